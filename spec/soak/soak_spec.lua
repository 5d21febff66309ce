-- The short form of `make soak`: the same judge, fewer polls.
local virtual = require "spec.soak.virtual"

describe("the gateway, with faults coming and going", function()
  it("tells no wrong value, misses none in silence, keeps its time and its memory", function()
    local lines = {}
    local judge = virtual.run(12000, function(line) lines[#lines + 1] = line end)
    assert.equal(0, judge.count, table.concat(judge.violations, "\n"))
    assert.is_true(judge.polls >= 12000)
    assert.is_true(judge.good > judge.polls) -- two values a meter: more than half of them
    assert.is_true(judge.beginnings > 300)
    for _, reason in ipairs { "no connection", 'unavailable address "N"' } do
      assert.is_true((judge.missing[reason] or 0) > 100, reason)
    end
  end)
end)

describe("the judge of the soak", function()
  local house = require "spec.soak.house"

  -- A gateway of one bus that tells what we say.
  local function told(...)
    local connection = { name = "bus1", bindings = {} }
    for i = 1, 4 do connection.bindings[i] = { name = "b" .. i } end
    local tell
    local judge = house.judge({ connections = { connection }, on = function(_, _, fn) tell = fn end }, function() return 100 end)
    for _, one in ipairs { ... } do
      local binding = connection.bindings[one[1]]
      binding.quality = one[3]
      tell(binding, one[2], one[3], nil, { error = one[4] })
    end
    return judge, { connections = { connection } }
  end

  local function raw(meter, time) return meter * (1 << 23) + time * 10 end
  local function partner(value) return (value * 7919 + 13) % (1 << 30) / 1000 end

  it("is content with what is right", function()
    local value = raw(1, 99)
    local judge, gateway = told({ 1, value * 1000, "good" }, { 2, partner(value), "good" }, { 3, nil, "bad", "no connection" },
      { 4, nil, "bad", "no connection" })
    judge:look(gateway, 50)
    assert.same({}, judge.violations)
    assert.same({ 2, 2, { ["no connection"] = 2 } }, { judge.polls, judge.good, judge.missing })
  end)

  it("finds another meter's value, an old one, halves of two, and what is missing in silence", function()
    local function complaint(...) return (told(...)).violations[1] end
    assert.matches("the value of meter 2", complaint { 1, raw(2, 99) * 1000, "good" })
    assert.matches("a value that is 40.0 s old", complaint { 1, raw(1, 60) * 1000, "good" })
    assert.matches("is no partner of", complaint({ 1, raw(1, 99) * 1000, "good" }, { 2, partner(raw(1, 98)), "good" }))
    assert.matches("good without its partner", complaint { 2, partner(raw(1, 99)), "good" })
    assert.matches("bad without a reason", complaint { 1, nil, "bad" })
    assert.matches("bad, and yet 5", complaint { 1, 5, "bad", "oh" })
    local judge, gateway = told({ 1, raw(1, 99) * 1000, "good" })
    judge:look(gateway, 101)
    assert.matches("bus1.b1: good, though there was no value since 101", judge.violations[1])
    judge = told({ 1, nil, "bad", "no connection" })
    judge:expect_all_good()
    assert.is_true(judge.count > 0)
  end)
end)
