-- What a simulated meter does with what is written to it, and what the line does unasked.
local core = require "mbus.core"
local mbus = require "mbus"
local simulator = require "mbus.simulator"

local function bus_with(meter, description)
  description = description or {}
  meter.address, meter.id = 5, "31892747"
  description.meters = { meter }
  local sim = assert(simulator.new(description))
  local transport = sim:transport()
  return assert(mbus.open(transport)), sim, transport
end

local function telegrams(...)
  local list = {}
  for i, records in ipairs { ... } do list[i] = { records = records } end
  return list
end

local CLOCK = { vif = "\x6D", data = "datetime48", value = "2024-01-01T00:00:00" }
local VOLUME = { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8" }
local ENERGY = { quantity = "energy", unit = "Wh", value = 123000, exponent = 3, data = "int32" }

describe("a simulated meter", function()
  it("has a clock that stands until it is set, and then runs", function()
    local bus, _, transport = bus_with { telegrams = telegrams { CLOCK } }
    local function shown() return assert(bus:read(5)):find({ quantity = "datetime" }).value end
    assert.equal("2024-01-01T00:00:00", shown())
    transport:sleep(60)
    assert.equal("2024-01-01T00:00:00", shown())
    assert(bus:set_clock(5, "2024-12-31T23:59:00"))
    transport:sleep(120)
    assert.matches("^2025%-01%-01T00:01:0%d$", shown())
  end)

  it("takes its own type of clock only", function()
    local bus = bus_with { telegrams = telegrams { CLOCK } }
    local _, err = bus:set_clock(5, "2024-12-31T23:59:00", { type = "F" })
    assert.equal("unchanged", err.code)
  end)

  it("reports what was written, in whatever telegram it is", function()
    local bus = bus_with { telegrams = telegrams({ ENERGY }, { VOLUME }) }
    assert(bus:write(5, { { quantity = "volume", unit = "m3", value = 99, exponent = -3, data = "bcd8" } }))
    local readout = assert(bus:read(5))
    assert.same({ 123000, 99.0 }, { readout:find({ quantity = "energy" }).value, readout:find({ quantity = "volume" }).value })
  end)

  it("sends what was selected, until an application reset", function()
    local bus = bus_with { telegrams = telegrams({ ENERGY }, { VOLUME }) }
    assert.equal(1, #assert(bus:select_records(5, "\x08\x13")))
    assert.equal(1, #assert(bus:read(5)))
    assert(bus:reset(5))
    assert.equal(2, #assert(bus:read(5)))
  end)
end)

describe("a simulated line", function()
  -- All that comes within so many seconds, in hex.
  local function heard(sim, seconds, step)
    local parts = {}
    for time = 0, seconds, step or 0.1 do parts[#parts + 1] = (sim:take(time)) end
    return core.hex(table.concat(parts))
  end

  it("has noise around answers", function()
    local sim = assert(simulator.new { meters = { { address = 5 } }, converter = { noise = { before = "00", after = "FF 55" } } })
    sim:receive("\x10\x40\x05\x45\x16", 0)
    assert.equal("00 E5 FF 55", core.hex((sim:take(1))))
  end)

  it("has noise at any time, the same for a seed", function()
    local function noise(seed)
      return heard(assert(simulator.new { seed = seed, meters = {}, converter = { noise = { between = 1 } } }), 100)
    end
    local bytes = #noise(1) // 3
    assert.is_true(bytes > 50 and bytes < 200, bytes)
    assert.equal(noise(1), noise(1))
    assert.not_equal(noise(1), noise(2))
    local sim = assert(simulator.new { meters = {} })
    assert.equal("", heard(sim, 10))
  end)

  it("has ghosts where nobody answers", function()
    local sim = assert(simulator.new { meters = { { address = 5 } }, converter = { ghosts = 1 } })
    sim:receive("\x10\x40\x06\x46\x16", 0)
    assert.is_true(#sim:take(1) > 0)
    sim:receive("\x10\x40\x05\x45\x16", 2)
    assert.equal("E5", core.hex((sim:take(3))))
  end)

  it("has meters that babble, up to a time", function()
    local sim = assert(simulator.new { meters = { { address = 5, babbles = 2, babbles_until = 7 } } })
    assert.equal("", core.hex((sim:take(0))))
    assert.near(2, sim:next(), 1e-6)
    assert.equal("E5 E5 E5", heard(sim, 20))
  end)

  it("loses characters, cuts and glues answers", function()
    local function answer(faults)
      local sim = assert(simulator.new { meters = { { address = 5, telegrams = telegrams { VOLUME }, faults = faults } } })
      sim:receive("\x10\x7B\x05\x80\x16", 0)
      return (sim:take(2))
    end
    local whole = #answer()
    assert.equal(2 * whole, #answer { glued = true })
    assert.is_true(#answer { cut = 1 } < whole)
    assert.equal("", answer { lost = 1 })
    local lost = #answer { lost = 0.2 }
    assert.is_true(lost < whole and lost > 0)
  end)
end)
