-- mbus.decode with keys and formats.
local mbus = require "mbus"

local function bytes(text) return assert(mbus.unhex(text)) end

local ENCRYPTED = bytes [[
  68 2C 2C 68 08 FD 72 88 77 66 55 93 44 55 08 00 04 10 05 00 DF E2 A7 82 14 6D 15 13 58 1C D2 F8 3F 39 04
  0C FD 10 78 56 34 12 0C 78 44 33 22 11 26 16
]]
local KEY = "000102030405060708090A0B0C0D0E0F"

describe("mbus.decode", function()
  it("decrypts with a key, and shows the header without", function()
    local telegram, err = mbus.decode(ENCRYPTED, { keys = KEY })
    assert.is_nil(err)
    assert.are.same({ 5, 1234, "2007-04-30" }, { #telegram, telegram:record(0).value, telegram:record(1).value })
    telegram = assert(mbus.decode(ENCRYPTED))
    assert.are.same({ "55667788", 0, "encrypted" }, { telegram.id, #telegram, telegram.error.kind })
    telegram, err = mbus.decode(ENCRYPTED, { keys = ("F"):rep(32) })
    assert.are.same({ "55667788", "wrong_key" }, { telegram.id, err.code })
    telegram = assert(mbus.decode(ENCRYPTED, { keys = { ["55667788"] = KEY } }))
    assert.are.equal(5, #telegram)
  end)

  it("reads compact frames once it has seen their format", function()
    local full = mbus.encode.long(0x08, 1, 0x78, bytes "02 02 D2 04 02 15 2E 16 02 2A 34 23")
    local compact = mbus.encode.long(0x08, 1, 0x79, bytes "31 3B 42 A6 D2 04 2E 16 34 23")
    local formats = {}
    local telegram, err = mbus.decode(compact, { formats = formats })
    assert.are.same({ 0x3B31, "unknown_format" }, { telegram.format_signature, err.code })
    mbus.decode(full, { formats = formats })
    telegram, err = mbus.decode(compact, { formats = formats })
    assert.is_nil(err)
    assert.are.same({ 3, 123.4, 567.8, 901.2 }, { #telegram, telegram:record(0).value, telegram:record(1).value, telegram:record(2).value })
    assert.are.equal("unknown_format", mbus.decode(compact).error.code)
  end)

  it("says of bad frames what it says without options", function()
    for _, options in ipairs { {}, { keys = KEY }, { formats = {} } } do
      local telegram, err = mbus.decode("\x68\x03", options)
      assert.are.same({ nil, "truncated" }, { telegram, err.kind })
    end
  end)
end)
