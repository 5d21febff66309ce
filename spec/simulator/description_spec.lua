local core = require "mbus.core"
local simulator = require "mbus.simulator"

local DATA = "47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01"

local function refused(description)
  local result, err = simulator.load(description)
  assert.is_nil(result)
  assert.equal("invalid", err.kind)
  return tostring(err)
end

describe("the description of a bus", function()
  it("is complete with defaults", function()
    local description = assert(simulator.load { meters = { { telegrams = { { data = DATA } } } } })
    assert.equal(2400, description.baudrate)
    local meter = description.meters[1]
    assert.same({ 0, "31892747", 0x2324, 0x28, 4 }, { meter.address, meter.id, meter.manufacturer, meter.version, meter.medium })
  end)

  it("takes the identity out of a whole frame too", function()
    local frame = core.hex(core.long(0x08, 0, 0x72, core.unhex(DATA)))
    local description = assert(simulator.load { meters = { { telegrams = { { frame = frame } } } } })
    assert.equal("31892747", description.meters[1].id)
  end)

  it("knows manufacturers by letters and by number, ids as text and as number", function()
    local description = assert(simulator.load { meters = {
      { id = "0500023e", manufacturer = "KAM" }, { id = 42, manufacturer = 0x2C2D } } })
    assert.same({ "0500023E", "00000042" }, { description.meters[1].id, description.meters[2].id })
    assert.same({ 0x2C2D, 0x2C2D }, { description.meters[1].manufacturer, description.meters[2].manufacturer })
  end)

  it("names the field that is wrong, and what is allowed", function()
    local cases = {
      { { baudrate = 1000 }, "baudrate: one of 300, 600, 1200, 2400, 4800, 9600, 19200, 38400 is needed, not 1000" },
      { { meters = { {}, { address = 251 } } }, "meters[2].address: a whole number from 0 to 250 is needed, not 251" },
      { { meters = { { address = 1.5 } } }, "meters[1].address: a whole number from 0 to 250 is needed, not 1.5" },
      { { meters = { { id = "123" } } }, 'meters[1].id: 8 hex digits are needed, not "123"' },
      { { meters = { { manufacturer = "abc" } } }, "meters[1].manufacturer: three capital letters or a number from 0 to 65535" },
      { { meters = { { telegrams = { { data = "0G" } } } } },
        "meters[1].telegrams[1].data: hex digits of 0 to 252 bytes are needed" },
      { { meters = { { telegrams = { {} } } } }, "meters[1].telegrams[1]: exactly one of frame, data and records is needed" },
      { { meters = { { telegrams = { { data = "00", frame = "E5" } } } } }, "exactly one of frame, data and records is needed" },
      { { meters = { { telegrams = { { data = ("00"):rep(253) } } } } }, "hex digits of 0 to 252 bytes" },
      { { meters = { { delay = { 0.2, 0.1 } } } }, "meters[1].delay[2]: a number from 0.2 to 3600 is needed, not 0.1" },
      { { meters = { { deaf = 1 } } }, "meters[1].deaf: true or false is needed, not 1" },
      { { meters = { { faults = { bit_flips = 2 } } } }, "meters[1].faults.bit_flips: a number from 0 to 1 is needed, not 2" },
      { { meters = { x = {} } }, 'meters: an array has no field "x"' },
      { { meters = "one" }, 'meters: an array is needed, not "one"' },
      { { converter = { collision = "bang" } }, "converter.collision: one of superpose, break is needed" },
      { { speed = 1 }, 'no field "speed"; allowed are baudrate, converter, gap, meters, seed' },
    }
    for _, case in ipairs(cases) do assert.matches(case[2], refused(case[1]), 1, true) end
  end)

  it("says which record cannot be encoded, and when a telegram becomes too long", function()
    local good = { quantity = "energy", unit = "Wh", value = 1000, exponent = 3, data = "int32" }
    local function with_records(records) return { meters = { { telegrams = { { records = records } } } } } end
    assert.matches("^meters%[1%].telegrams%[1%].records%[2%]: .*thing",
      refused(with_records { good, { quantity = "thing", unit = "Wh", value = 1, data = "int32" } }))
    local many = {}
    for i = 1, 39 do many[i] = good end -- 6 bytes each, 12 of the header and one of 1F
    assert(simulator.load(with_records(many)))
    many[40] = good
    assert.matches("meters[1].telegrams[1]: a telegram holds 252 bytes, these need 253", refused(with_records(many)), 1, true)
  end)

  it("is not what is wrong when memory runs out", function()
    local record = setmetatable({}, { __index = function() error("not enough memory", 0) end })
    local ok, err = pcall(simulator.load, { meters = { { telegrams = { { records = { record } } } } } })
    assert.same({ false, "not enough memory" }, { ok, err })
  end)

  it("does not take NaN for a number", function()
    assert.matches("meters[1].delay: a number", refused { meters = { { delay = 0 / 0 } } }, 1, true)
  end)

  describe("in a file", function()
    it("is read", function()
      local description = assert(simulator.load "spec/fixtures/sim_small.lua")
      assert.equal(9600, description.baudrate)
      assert.equal("00000002", description.meters[2].id)
    end)

    it("has no access to the system", function()
      local message = refused "spec/fixtures/sim_curious.lua"
      assert.matches("sim_curious.lua:2:", message, 1, true)
      assert.matches("'os'", message, 1, true)
    end)

    it("has its syntax errors named with the line", function()
      assert.matches("sim_unfinished.lua:3:", refused "spec/fixtures/sim_unfinished.lua", 1, true)
    end)

    it("is missing, is a folder, is no description", function()
      local _, err = simulator.load "spec/fixtures/sim_nothing.lua"
      assert.equal("not_found", err.kind)
      assert.equal("spec/fixtures/sim_nothing.lua: No such file or directory", tostring(err))
      _, err = simulator.load "spec/fixtures"
      assert.equal("io", err.kind)
      local name = os.tmpname()
      local file = assert(io.open(name, "w"))
      file:write("return 5")
      file:close()
      assert.matches("must return a table, it returns number", refused(name), 1, true)
      os.remove(name)
    end)

    it("is never loaded as bytecode", function()
      local name = os.tmpname()
      local file = assert(io.open(name, "wb"))
      file:write(string.dump(function() return {} end))
      file:close()
      assert.matches("binary", refused(name), 1, true)
      os.remove(name)
    end)
  end)

  it("raises at what is neither table nor name", function()
    assert.has_error(function() simulator.load(5) end, "a description is a table, or the name of a file")
  end)
end)
