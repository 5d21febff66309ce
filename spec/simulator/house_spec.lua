local core = require "mbus.core"
local simulator = require "mbus.simulator"

local HYD = "47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01 0C 12 91 72 64 02 0C 2A 00 00 00 00 0B 3A 00 00 00 0A 5A 22 05 "
  .. "0A 5E 23 04 0A 62 99 00 04 6D 21 16 0A 39 4C 05 30 78 11 00 44 6D 00 00 1E 14 44 ED 7E 00 00 3F 1C 8C 01 05 20 30 69 01 "
  .. "84 01 6D 00 00 FF 2C 0B 26 02 03 16"

-- Primary and secondary addresses.
local METERS = {
  { 0, "3189274724232804" }, { 0, "3189274924232804" }, { 10, "829690102D2C400D" }, { 12, "829690122D2C400D" },
  { 15, "829690152D2C400D" }, { 17, "829690172D2C400D" }, { 74, "830036742D2C400D" }, { 75, "830036752D2C400D" },
  { 76, "830036762D2C400D" }, { 77, "830036772D2C400D" }, { 79, "830036792D2C400D" },
}

local function ask_house()
  local sim, time = assert(simulator.new()), 0
  return function(frame)
    sim:receive(frame, time)
    time = time + 2
    return sim:take(time)
  end
end

local function select_frame(secondary)
  local id, rest = core.unhex(secondary:sub(1, 8)), core.unhex(secondary:sub(9))
  return core.long(0x53, 253, 0x52, id:reverse() .. rest)
end

-- All telegrams of the meter at `address`, by its frame count.
local function read(ask, address)
  local telegrams, c = {}, 0x7B
  repeat
    telegrams[#telegrams + 1] = assert(core.telegram((ask(core.short(c, address)))))
    c = c ~ 0x20
  until not telegrams[#telegrams].more_records_follow
  return telegrams
end

describe("the built-in house", function()
  it("has the eleven meters at their addresses", function()
    local ask = ask_house()
    for _, meter in ipairs(METERS) do
      ask(core.short(0x40, 253))
      assert.equal("\xE5", (ask(select_frame(meter[2]))))
      local telegram = read(ask, 253)[1]
      assert.same(meter, { telegram.a, telegram.secondary_address })
    end
    assert.equal(#METERS, #assert(simulator.load()).meters)
  end)

  it("is what every name for it means", function()
    for _, name in ipairs { "", "house" } do assert.equal(#METERS, #assert(simulator.load(name)).meters) end
    assert.equal("house", simulator.new().name)
    assert.equal("house", simulator.new(assert(simulator.load())).name)
  end)

  it("answers with the user data of the real heat meter", function()
    local ask = ask_house()
    ask(select_frame "3189274724232804")
    assert.equal(core.hex(core.long(0x08, 0, 0x72, core.unhex(HYD))), core.hex((ask(core.short(0x7B, 253)))))
  end)

  it("has a collision at address 0, which the converter turns into 00", function()
    local ask = ask_house()
    for _ = 1, 20 do
      assert.same({ "\0", 1 }, { ask(core.short(0x40, 0)) })
      local bytes, errors = ask(core.short(0x7B, 0))
      assert.is_nil(core.telegram(bytes))
      assert.is_true(errors > 0)
    end
  end)

  it("has nine heat and cooling meters that each say something else", function()
    local ask, seen = ask_house(), {}
    for i = 3, #METERS do
      local telegram = read(ask, METERS[i][1])[1]
      assert.is_nil(telegram.error)
      local function value(filter) return assert(telegram:find(filter)).value end
      local heat, cold = value { quantity = "energy", tariff = 0, storage = 0 }, value { quantity = "energy", tariff = 1, storage = 0 }
      assert.is_true(heat > 1e6 and cold >= 0 and cold < heat)
      assert.is_nil(seen[heat])
      seen[heat] = true
      local supply, back = value { quantity = "flow_temperature" }, value { quantity = "return_temperature" }
      assert.near(supply - back, value { quantity = "temperature_difference" }, 1e-9)
      local flow = value { quantity = "volume_flow", ["function"] = "instantaneous" }
      assert.near(flow * 1163 * (supply - back), value { quantity = "power", ["function"] = "instantaneous" }, 100)
      assert.is_true(flow < value { quantity = "volume_flow", ["function"] = "maximum", storage = 0 })
      assert.matches("^2024%-09%-10T18:2", value { quantity = "datetime" })
      assert.equal("2024-09-01", value { quantity = "date", storage = 1 })
      assert.is_true(value { quantity = "volume", storage = 1 } < value { quantity = "volume", storage = 0 })
      assert.equal(METERS[i][2]:sub(1, 8), ("%08d"):format(value { quantity = "fabrication_number" }))
    end
  end)

  it("has meters with long logs, which answer in several telegrams", function()
    local ask, counts = ask_house(), {}
    for i = 3, #METERS do counts[METERS[i][1]] = #read(ask, METERS[i][1]) end
    assert.same({ [10] = 1, [12] = 1, [15] = 1, [17] = 3, [74] = 1, [75] = 1, [76] = 1, [77] = 1, [79] = 2 }, counts)
    local storages, last = {}, math.huge
    for _, telegram in ipairs(read(ask_house(), 17)) do
      for _, record in telegram:records() do
        if record.quantity == "volume" then
          storages[#storages + 1] = record.storage
          assert.is_true(record.value < last and record.value > 0)
          last = record.value
        end
      end
    end
    assert.same({ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 }, storages)
  end)

  it("counts its access number on with every new answer, not with a repeated one", function()
    local ask = ask_house()
    local function access_no(c) return assert(core.telegram((ask(core.short(c, 10))))).access_no end
    local first = access_no(0x7B)
    assert.equal(first, access_no(0x7B))
    assert.equal((first + 1) % 256, access_no(0x5B))
  end)
end)
