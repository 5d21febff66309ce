local Transformation = require "mbus.gateway.transformation"
local schema = require "mbus.gateway.schema"

local function chain(...)
  local problems = schema.problems()
  local steps = Transformation.check({ ... }, "t", problems)
  assert(#problems == 0, problems[1] and problems[1].message)
  return Transformation.new(steps)
end

local function run(one, value, now, unit)
  local sample = { value = value, unit = unit, quality = value ~= nil and "good" or "bad", error = value == nil and "gone" or nil }
  one:apply(sample, { name = "x" }, now or 0)
  return sample.value, sample.quality, sample.error, sample.unit
end

describe("a transformation", function()
  it("scales and shifts, exactly where a division is meant", function()
    assert.equal(0.3, (run(chain { type = "scaling", factor = 0.1 }, 3)))
    assert.equal(12, (run(chain { type = "scaling", factor = 2, shift = 2 }, 5)))
    assert.equal("float", math.type((run(chain { type = "scaling", factor = 0.001 }, 5000))))
    for _, one in ipairs { { 1.001, 1000, 0, 1001 }, { 4.1, 100, 0, 410 }, { 0.0279, 1000, 0, 27.9 }, { 52.2, 1, 273.15, 325.35 },
      { 3, 0.3, 0, 0.9 }, { 7, 0.07, 0, 0.49 }, { 1234567890123456, 0.1, 0, 123456789012345.6 } } do
      assert.equal(one[4], (run(chain { type = "scaling", factor = one[2], shift = one[3] }, one[1])))
    end
    local _, _, _, unit = run(chain { type = "scaling", factor = 0.001, unit = "kWh" }, 5, 0, "Wh")
    assert.equal("kWh", unit)
    _, _, _, unit = run(chain { type = "scaling", factor = 0.001 }, 5, 0, "Wh")
    assert.is_nil(unit) -- Wh it is not any more
    _, _, _, unit = run(chain { type = "limit", lower = 0 }, 5, 0, "Wh")
    assert.equal("Wh", unit)
  end)

  it("does not wrap around where 64 bits are too few", function()
    assert.equal(9223372036854775807 * 10.0, (run(chain { type = "scaling", factor = 10 }, math.maxinteger)))
    assert.equal(2.0 ^ 63, (run(chain { type = "scaling", shift = 1 }, math.maxinteger)))
    assert.equal(-2.0 ^ 64, (run(chain { type = "scaling", factor = 2 }, math.mininteger)))
    assert.equal(4000000000000, math.tointeger(run(chain { type = "scaling", factor = 4 }, 1000000000000)))
    local area = chain { type = "integration", per = 1000 }
    run(area, math.maxinteger, 0)
    assert.equal(2.0 ^ 63, (run(area, math.maxinteger, 1)))
  end)

  it("gives a default value, always or until the first good one", function()
    local constant, initial = chain { type = "default", value = 7 }, chain { type = "default", value = 7, mode = "initial" }
    for _, one in ipairs { constant, initial } do
      local value, quality, err = run(one, nil)
      assert.same({ 7, "uncertain", "gone" }, { value, quality, err }) -- why it is not the meter's own
      assert.equal(5, (run(one, 5)))
    end
    assert.equal(7, (run(constant, nil)))
    local value, quality, err = run(initial, nil)
    assert.same({ nil, "bad", "gone" }, { value, quality, err })
  end)

  it("clamps", function()
    local limit = chain { type = "limit", lower = 0, upper = 100 }
    assert.same({ 0, 50, 100 }, { run(limit, -5), run(limit, 50), (run(limit, 500)) })
  end)

  it("integrates over time, and not over gaps", function()
    local energy = chain { type = "integration", per = 3600000, unit = "Wh" }
    assert.equal(0, (run(energy, 100, 0)))
    assert.equal(100, (run(energy, 100, 3600)))
    assert.equal(250, (run(energy, 200, 7200)))
    run(energy, nil, 7300)
    assert.equal(250, (run(energy, 200, 90000)))
    assert.equal(450, (run(energy, 200, 93600)))
  end)

  it("differentiates over time", function()
    local flow = chain { type = "derivative", per = 3600000 }
    local value, quality, err = run(flow, 10, 0)
    assert.same({ "bad", "transformation 1 (derivative) no second value yet" }, { quality, err })
    assert.is_nil(value)
    assert.equal(4, (run(flow, 12, 1800)))
    assert.equal(-2, (run(flow, 11, 3600)))
  end)

  it("damps as a first-order lag", function()
    local lag = chain { type = "damper", time = 10000 }
    assert.equal(0, (run(lag, 0, 0)))
    local value = run(lag, 100, 10)
    assert.is_true(math.abs(value - 63.212) < 0.001)
    value = run(lag, 100, 60)
    assert.is_true(value > 99.7 and value < 100)
  end)

  it("calls functions with a context and a state of their own", function()
    local function count(value, context, state)
      state.n = (state.n or 0) + 1
      return value .. context.name .. state.n
    end
    local one, other = chain(count), chain({ type = "function", f = count }, count)
    assert.equal("ax1", (run(one, "a")))
    assert.equal("ax2", (run(one, "a")))
    assert.equal("ax1x1", (run(other, "a")))
  end)

  it("names the step that fails or yields nonsense, and goes on", function()
    local cases = {
      [{ function() error "boom" end }] = "1 %(function%) fails: .*boom",
      [{ function() return {} end }] = "1 %(function%) yields a table",
      [{ function() end }] = "1 %(function%) yields no value",
      [{ { type = "limit", lower = 0 }, function() return 0 / 0 end }] = "2 %(function%) yields NaN",
      [{ function(v) return v / 0 end }] = "yields an infinite number",
      [{ function() return ("x"):rep(70000) end }] = "yields a text of 70000 bytes, more than 65536",
      [{ function() return "x" end, { type = "scaling", factor = 2 } }] = '2 %(scaling%) needs a number, not "x"',
      [{ function() while true do end end }] = "it takes too long",
    }
    for steps, pattern in pairs(cases) do
      local value, quality, err = run(chain(table.unpack(steps)), 5)
      assert.is_nil(value)
      assert.equal("bad", quality)
      assert.matches(pattern, err)
    end
  end)

  it("does not let a function spoil the steps behind it", function()
    local function spoil(value, context)
      context.elapsed, context.now = nil, "x"
      return value
    end
    local one = chain(spoil, { type = "integration", per = 1000 }, { type = "derivative", per = 1000 }, { type = "damper", time = 1 })
    run(one, 5, 0)
    run(one, 5, 1)
    assert.equal(5, (run(one, 5, 2)))
    local seen
    local two = chain(function(value, context, state)
      seen = state.at and context.elapsed(state)
      state.at = context.now
      return value
    end)
    run(two, 1, 10)
    run(two, 1, 17)
    assert.equal(7, seen)
  end)

  it("is undone for writing, where that is possible", function()
    assert.equal(5000, chain({ type = "scaling", factor = 0.001 }, { type = "limit", upper = 5 }):invert(9))
    assert.equal(3, chain({ type = "function", f = print, inverse = function(v) return v + 1 end }):invert(2))
    local _, reason = chain({ type = "damper", time = 5 }):invert(9)
    assert.matches("1 %(damper%) cannot be undone", reason)
    _, reason = chain(function(v) return v end):invert(9)
    assert.matches("has no inverse", reason)
  end)
end)
