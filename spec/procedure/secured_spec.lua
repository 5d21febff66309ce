-- Encrypted and compact telegrams of meters on a bus.
local mbus = require "mbus"

local KEY = "000102030405060708090A0B0C0D0E0F"
-- OMS Vol. 2, Annex N.5.4: one encrypted block and a plain tail behind the header.
local ENCRYPTED = "88 77 66 55 93 44 55 08 00 04 10 05 00 DF E2 A7 82 14 6D 15 13 58 1C D2 F8 3F 39 04 "
  .. "0C FD 10 78 56 34 12 0C 78 44 33 22 11"

local function open(meters, options)
  return assert(mbus.open(assert(mbus.simulator.new { meters = meters }), options))
end

describe("an encrypted meter", function()
  local meters = { { address = 5, telegrams = { { data = ENCRYPTED } } } }

  it("is read with its key, by primary and secondary address", function()
    for _, address in ipairs { 5, "55667788FFFFFFFF" } do
      local bus <close> = open(meters, { keys = KEY })
      local readout, err = bus:read(address)
      assert.is_nil(err)
      assert.is_nil(readout.error)
      assert.are.same({ 5, 1234 }, { #readout, readout:find({ quantity = "hca", storage = 0 }).value })
    end
  end)

  it("shows who it is without", function()
    local bus <close> = open(meters)
    local readout, err = bus:read(5)
    assert.is_nil(readout)
    assert.are.same({ "encrypted", "55667788" }, { err.kind, err.readout.id })
    readout, err = bus:read(5, { keys = ("F"):rep(32) })
    assert.is_nil(readout)
    assert.are.same({ "encrypted", "wrong_key" }, { err.kind, err.code })
    assert.is_nil(tostring(err):find("FFFF", 1, true))
  end)

  it("refuses what can be no key", function()
    local bus <close> = open(meters)
    assert.has_error(function() bus:read(5, { keys = 5 }) end)
  end)
end)

describe("a meter with compact telegrams", function()
  it("is read once its format was seen", function()
    local bus <close> = open {
      { address = 5, telegrams = { { ci = 0x78, data = "02 02 D2 04 02 15 2E 16 02 2A 34 23" } } },
      { address = 6, telegrams = { { ci = 0x79, data = "31 3B 42 A6 D2 04 2E 16 34 23" } } },
    }
    local _, err = bus:read(6)
    assert.are.equal("unknown_format", err.code)
    assert(bus:read(5))
    local readout = assert(bus:read(6))
    assert.are.same({ 3, 123.4 }, { #readout, readout:find({ quantity = "energy" }).value })
  end)
end)
