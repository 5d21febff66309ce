-- Encrypted telegrams: the vectors of OMS and CEN/TR 17167, and what goes wrong with them.
local aes = require "mbus.aes"
local core = require "mbus.core"
local Error = require "mbus.error"
local security = require "mbus.security"

local function bytes(hex) return (assert(core.unhex(hex))) end

local KEY_HEX = "000102030405060708090A0B0C0D0E0F"
local KEY = bytes(KEY_HEX)
local WRONG = bytes "FF0102030405060708090A0B0C0D0E0F"

-- Mode 5 over a radio, OMS volume 2, annex N.2.1: here its application layer in a wired frame.
local V1_KEY = bytes "0102030405060708090A0B0C0D0E0F11"
local V1_ADDRESS = "1234567893153303"
local V1_CIPHER = bytes("5923C95A AA26D1B2 E7493B01 3EC4A6F6 D3529B52 0EDFF0EA 6DEFC99D 6D69EBF3")
local V1_PLAIN = bytes("2F2F 0C1427048502 046D32371F15 02FD170000") .. ("\x2F"):rep(13)
local V1 = core.long(0x08, 5, 0x7A, bytes "2A 00 20 25" .. V1_CIPHER)

-- Mode 5, one encrypted block and a plain tail, annex N.5.4.
local V2 = bytes("68 2C 2C 68 08 FD 72 88 77 66 55 93 44 55 08 00 04 10 05 00 DF E2 A7 82 14 6D 15 13 58 1C D2 F8 3F 39 04"
  .. "0C FD 10 78 56 34 12 0C 78 44 33 22 11 26 16")

-- Mode 7 with AFL and MAC, CEN/TR 17167 annex F.3.
local V3_AFL = bytes "0F 00 2C 25 B3 0A 00 00 AF 5D 74 DF 73 A6 00 D9"
local V3_HEADER = bytes "78 56 34 12 93 15 33 03 75 00 20 07"
local V3_CIPHER = bytes("90 58 47 5F 4B C9 1D F8 78 B8 0A 1B 0F 98 B6 29 02 4A AC 72 79 42 BF C5 49 23 3C 01 40 82 9B 93")
local V3_ENCRYPTION_KEY = bytes "EC CF 39 D4 75 D7 30 B8 28 4F DF DC 19 95 D5 2F"
local V3_MAC_KEY = bytes "C9 CD 19 FF 5A 9A AD 5A 6B BD A1 3B D2 C4 C7 AD"
local V3_TAIL = "\x72" .. V3_HEADER .. "\x10" .. V3_CIPHER
local V3 = core.long(0x08, 0xFD, 0x90, V3_AFL .. V3_TAIL)

-- The same without AFL: the counter stands in the extension (Z).
local V3_Z = core.long(0x08, 0xFD, 0x72, V3_HEADER:sub(1, 10) .. "\x20\x27" .. "\x10" .. bytes "B3 0A 00 00" .. V3_CIPHER)

local function decrypted(...)
  local plain, info = assert(security.decrypt(...))
  return assert(core.telegram(plain)), info, plain
end

local function fails(kind, code, ...)
  local plain, err = security.decrypt(...)
  assert.is_nil(plain)
  assert.is_true(Error.is(err))
  assert.same({ kind, code }, { err.kind, err.code })
  return tostring(err)
end

local function values(telegram)
  local list = {}
  for _, quantity, value in telegram:each() do list[#list + 1] = ("%s=%s"):format(quantity, value) end
  return table.concat(list, " ")
end

local V1_VALUES = "volume=28504.27 datetime=2008-05-31T23:50:00 error_flags=0"

-- A frame with one byte of its user data changed, and the checksum right again.
local function altered(frame, at, mask)
  local parts = core.frame(frame)
  local byte = string.char(parts.data:byte(at) ~ (mask or 1))
  return core.long(parts.c, parts.a, parts.ci, parts.data:sub(1, at - 1) .. byte .. parts.data:sub(at + 1))
end

local function with_word(frame, word)
  local parts = core.frame(frame)
  return core.long(parts.c, parts.a, parts.ci, parts.data:sub(1, 10) .. ("<I2"):pack(word) .. parts.data:sub(13))
end

describe("mode 5", function()
  it("decrypts with the address that was selected, where the header is short (V1)", function()
    for _, address in ipairs { V1_ADDRESS, bytes "7856341293153303" } do
      local telegram, info, plain = decrypted(V1, V1_KEY, { address = address })
      assert.equal(V1_VALUES, values(telegram))
      assert.equal(bytes "2A 00 20 25" .. V1_PLAIN, core.frame(plain).data)
      assert.same({ mode = 5, encrypted = true, authenticated = false }, info)
      assert.same({ "short", 5, 0x2520 }, { telegram.header, telegram.security_mode, telegram.signature })
    end
  end)

  it("decrypts one block and keeps the plain tail (V2)", function()
    local telegram, _, plain = decrypted(V2, KEY)
    assert.equal("hca=1234 date=2007-04-30 hca=23456 customer_location=12345678 fabrication_number=11223344", values(telegram))
    assert.is_nil(telegram.error)
    assert.same({ "5566778893445508", 4, 0x0510 }, { telegram.secondary_address, telegram.status, telegram.signature })
    assert.equal(#V2, #plain)
  end)

  it("says for a short header without secondary address that it needs one", function()
    for _, address in ipairs { false, 5, "5", "12345678", "12345678FFFFFFFF" } do
      assert.matches("at address 5 .*secondary address",
        fails("encrypted", "no_address", V1, V1_KEY, { address = address or nil }))
    end
    fails("invalid", nil, V1, V1_KEY, { address = "somewhere" })
  end)

  it("tells a wrong key, and another manufacturer, by the missing 2F 2F", function()
    assert.equal("the key is not that of meter 5566778893445508: mode 5 does not give 2F 2F", fails("encrypted", "wrong_key", V2, WRONG))
    fails("encrypted", "wrong_key", V1, V1_KEY, { address = "1234567894153303" })
    fails("encrypted", "wrong_key", altered(V2, 5), KEY)
    fails("encrypted", "wrong_key", altered(V2, 13), KEY)
  end)

  it("names meter and mode where there is no key", function()
    assert.equal("meter 5566778893445508 is encrypted (mode 5, AES-128-CBC), and there is no key for it",
      fails("encrypted", "no_key", V2))
    fails("encrypted", "no_key", V2, {})
    fails("encrypted", "no_key", V2, function() end)
    assert.matches("the meter at address 5 is encrypted", fails("encrypted", "no_key", V1))
  end)

  it("names the blocks that are missing", function()
    local message = fails("truncated", "missing_blocks", with_word(V2, 0x0530), KEY)
    assert.equal("meter 5566778893445508 announces 3 encrypted blocks (48 bytes), more than the 29 bytes left at byte 19", message)
    local parts = core.frame(V2)
    for size = 12, 27 do
      fails("truncated", "missing_blocks", core.long(parts.c, parts.a, parts.ci, parts.data:sub(1, size)), KEY)
    end
    decrypted(core.long(parts.c, parts.a, parts.ci, parts.data:sub(1, 28)), KEY)
  end)

  it("decrypts a payload that happens to begin with 2F 2F", function()
    local iv = bytes "93448877665555080000000000000000"
    -- Found by search: a record whose ciphertext begins like a plain telegram.
    local number = -1
    local cipher
    repeat
      number = number + 1
      cipher = aes.cbc_encrypt(KEY, iv, "\x2F\x2F\x04\x06" .. ("<I4"):pack(number) .. ("\x2F"):rep(8))
    until cipher:sub(1, 2) == "\x2F\x2F"
    local frame = core.long(8, 5, 0x72, bytes "88776655934455080004" .. "\x10\x05" .. cipher)
    assert.equal(number * 1000, decrypted(frame, KEY):record(0).value)
  end)

  it("decrypts what is not records without the fillers", function()
    local iv = bytes "93448877665555080000000000000000"
    local cipher = aes.cbc_encrypt(KEY, iv, "\x2F\x2F\x81" .. ("\x2F"):rep(13))
    local telegram = decrypted(core.long(8, 5, 0x75, bytes "88776655934455080004" .. "\x10\x05" .. cipher), KEY)
    assert.equal(0x81, telegram.alarm_status)
  end)
end)

describe("mode 7", function()
  it("verifies the MAC and decrypts with derived keys (V3)", function()
    local telegram, info, plain = decrypted(V3, KEY)
    assert.equal(V1_VALUES, values(telegram))
    assert.equal(V3_HEADER .. V1_PLAIN, core.frame(plain).data)
    assert.same({ 0x72, "1234567893153303", 0x75, 0x0720, 7 },
      { telegram.ci, telegram.secondary_address, telegram.access_no, telegram.signature, telegram.security_mode })
    assert.same({ mode = 7, encrypted = true, authenticated = true, counter = 0xAB3, key_id = 0 }, info)
  end)

  it("derives the keys of the vector", function()
    local function derived(constant) return aes.cmac(KEY, constant .. bytes "B30A0000 78563412" .. ("\7"):rep(7)) end
    assert.equal(V3_ENCRYPTION_KEY, derived "\0")
    assert.equal(V3_MAC_KEY, derived "\1")
  end)

  it("takes the counter from the extension", function()
    local telegram, info = decrypted(V3_Z, KEY)
    assert.equal(V1_VALUES, values(telegram))
    assert.same({ mode = 7, encrypted = true, authenticated = false, counter = 0xAB3, key_id = 0 }, info)
  end)

  it("steps over the key version", function()
    local telegram, info = decrypted(core.long(8, 5, 0x72, V3_HEADER:sub(1, 10) .. "\x20\x27" .. "\x53"
      .. bytes "B3 0A 00 00" .. "\x09" .. V3_CIPHER), KEY)
    assert.equal(V1_VALUES, values(telegram))
    assert.same({ 3, 9 }, { info.key_id, info.key_version })
  end)

  it("uses the key as it is where the extension says so", function()
    local cipher = aes.cbc_encrypt(KEY, ("\0"):rep(16), V1_PLAIN)
    local telegram = decrypted(core.long(8, 5, 0x72, V3_HEADER .. "\0" .. cipher .. bytes "02 65 AB 09"), KEY)
    assert.equal(V1_VALUES .. " external_temperature=24.75", values(telegram))
  end)

  it("derives other keys for what the master sends", function()
    local function key(constant) return aes.cmac(KEY, constant .. bytes "B30A0000 78563412" .. ("\7"):rep(7)) end
    local cipher = aes.cbc_encrypt(key "\x10", ("\0"):rep(16), V1_PLAIN)
    local layer = "\x5B" .. V3_HEADER .. "\x10" .. cipher
    local mac = aes.cmac(key "\x11", bytes "25 B3 0A 00 00" .. layer):sub(1, 8)
    local telegram, info = decrypted(core.long(0x53, 5, 0x90, bytes "0F 00 2C 25 B3 0A 00 00" .. mac .. layer), KEY)
    assert.same({ V1_VALUES, true }, { values(telegram), info.authenticated })
  end)

  it("takes MACs of all sizes", function()
    for type, size in pairs { [3] = 2, [4] = 4, [5] = 8, [6] = 12, [7] = 16 } do
      local mcl = string.char(0x20 | type)
      local mac = aes.cmac(V3_MAC_KEY, mcl .. bytes "B3 0A 00 00" .. V3_TAIL):sub(1, size)
      local function frame(sent) return core.long(8, 5, 0x90, string.char(7 + size) .. bytes "00 2C" .. mcl .. bytes "B3 0A 00 00" .. sent .. V3_TAIL) end
      local _, info = decrypted(frame(mac), KEY)
      assert.is_true(info.authenticated)
      for at = 1, size do
        local wrong = mac:sub(1, at - 1) .. string.char(mac:byte(at) ~ 0x80) .. mac:sub(at + 1)
        fails("checksum", "bad_mac", frame(wrong), KEY)
      end
    end
  end)

  it("covers the message length, and takes key information", function()
    -- FCL: MCL, ML, MCR, MAC, KI; KI with KDF-A
    local head, ml = bytes "65 10 00 B3 0A 00 00", bytes "2E 00"
    local mac = aes.cmac(V3_MAC_KEY, bytes "65 B3 0A 00 00" .. ml .. V3_TAIL):sub(1, 8)
    local telegram, info = decrypted(core.long(8, 5, 0x90, bytes "13 01 3E" .. head .. mac .. ml .. V3_TAIL), KEY)
    assert.same({ V1_VALUES, true }, { values(telegram), info.authenticated })
  end)

  it("tells an altered telegram by its MAC", function()
    local message = fails("checksum", "bad_mac", altered(V3, 9), KEY)
    assert.matches("meter 1234567893153303: the telegram was altered", message)
    fails("checksum", "bad_mac", altered(V3, #V3_AFL + 1 + 9), KEY) -- access number
    fails("checksum", "bad_mac", altered(V3, #V3_AFL + #V3_TAIL), KEY) -- last byte
    fails("checksum", "bad_mac", core.long(8, 5, 0x90, V3_AFL .. V3_TAIL .. "\x2F"), KEY)
  end)

  it("does not let the MAC be taken away", function()
    fails("checksum", "bad_mac", core.long(8, 5, 0x90, bytes "07 00 28 25 B3 0A 00 00" .. V3_TAIL), KEY)
  end)

  it("tells a wrong key by both", function()
    assert.equal("the key is not that of meter 1234567893153303: mode 7 does not give 2F 2F, and its MAC does not fit either",
      fails("encrypted", "wrong_key", V3, WRONG))
    fails("encrypted", "wrong_key", V3_Z, WRONG)
    assert.matches("^meter 1234567893153303 is encrypted %(mode 7", fails("encrypted", "no_key", V3))
    fails("encrypted", "no_key", V3_Z)
  end)

  it("counts the blocks behind the extension", function()
    local parts = core.frame(V3_Z)
    for size = 12, #parts.data - 1 do
      fails("truncated", "missing_blocks", core.long(parts.c, parts.a, parts.ci, parts.data:sub(1, size)), KEY)
    end
  end)

  it("needs a counter, and a derivation that it knows", function()
    fails("malformed", "no_counter", core.long(8, 5, 0x72, V3_HEADER .. "\x10" .. V3_CIPHER), KEY)
    assert.matches("key derivation function 2", fails("unsupported", "security", core.long(8, 5, 0x72, V3_HEADER .. "\x20" .. V3_CIPHER), KEY))
  end)
end)

describe("the AFL", function()
  local PLAIN_LAYER = "\x72" .. bytes "78563412931533037500 0000" .. V1_PLAIN

  it("is taken off a plain telegram, with a key after verification", function()
    local mac = aes.cmac(V3_MAC_KEY, bytes "25 B30A0000" .. PLAIN_LAYER):sub(1, 8)
    local frame = core.long(8, 5, 0x90, bytes "0F 00 2C 25 B3 0A 00 00" .. mac .. PLAIN_LAYER)
    local telegram, info = decrypted(frame, KEY)
    assert.equal(V1_VALUES, values(telegram))
    assert.same({ mode = 0, encrypted = false, authenticated = true, counter = 0xAB3 }, info)
    telegram, info = decrypted(frame)
    assert.same({ V1_VALUES }, { values(telegram), info })
    fails("checksum", "bad_mac", frame, WRONG)
    assert.equal(V1_VALUES, values(decrypted(core.long(8, 5, 0x90, bytes "02 00 00" .. PLAIN_LAYER), KEY)))
  end)

  it("is verified whatever the mode, before anything is read", function()
    for _, mode in ipairs { 0, 1, 4, 8, 13 } do
      local layer = "\x72" .. bytes "7856341293153303 7500" .. string.char(0, mode) .. bytes "0C 13 00 25 01 00"
      local mac = aes.cmac(V3_MAC_KEY, bytes "25 B30A0000" .. layer):sub(1, 8)
      local head = bytes "0F 00 2C 25 B3 0A 00 00"
      assert.equal("volume=12.5", values(decrypted(core.long(8, 5, 0x90, head .. mac .. layer), KEY)))
      fails("checksum", "bad_mac", core.long(8, 5, 0x90, head .. ("\0"):rep(8) .. layer), KEY)
    end
  end)

  it("gives a reader no value that its MAC does not vouch for", function()
    local mbus = require "mbus"
    local data = V3_AFL:sub(1, 8) .. ("\0"):rep(8) .. PLAIN_LAYER
    local bus <close> = assert(mbus.open(assert(mbus.simulator.new { meters = {
      { address = 5, id = "12345678", telegrams = { { ci = 0x90, data = core.hex(data) } } } } }), { keys = KEY }))
    local readout, err = bus:read(5)
    assert.is_nil(readout)
    assert.same({ "checksum", "bad_mac" }, { err.kind, err.code })
  end)

  it("leaves nothing of a telegram that its MAC does not vouch for, but the header", function()
    local mbus = require "mbus"
    local frame = core.long(8, 5, 0x90, V3_AFL:sub(1, 8) .. ("\0"):rep(8) .. PLAIN_LAYER)
    local telegram, err = mbus.decode(frame, { keys = KEY })
    assert.same({ "1234567893153303", 0, "bad_mac" }, { telegram.secondary_address, #telegram, err.code })
    assert.equal(3, #mbus.decode(frame)) -- nobody could know
  end)

  it("proves that what follows is encrypted, though blocks are missing", function()
    local frame = core.long(8, 5, 0x90, V3_AFL .. V3_TAIL:sub(1, -17))
    local telegram, err = security.telegram(frame)
    assert.same({ "1234567893153303", 0, "no_key" }, { telegram.secondary_address, #telegram, err.code })
    telegram, err = security.telegram(frame, KEY)
    assert.same({ "1234567893153303", 0, "missing_blocks" }, { telegram.secondary_address, #telegram, err.code })
  end)

  it("shows where the records begin though none is encrypted (mode 7)", function()
    local function frame(z, extension)
      local layer = "\x72" .. V3_HEADER:sub(1, 10) .. string.char(0, 7 | z) .. extension .. bytes "0C 13 12 34 56 78"
      local mac = aes.cmac(V3_MAC_KEY, bytes "25 B30A0000" .. layer):sub(1, 8)
      return core.long(8, 5, 0x90, bytes "0F 00 2C 25 B3 0A 00 00" .. mac .. layer)
    end
    local cases = { [frame(0, "\x10")] = 0, [frame(0, "\x13")] = 3, [frame(0, "\x50\x07")] = 0,
      [frame(0x20, bytes "12 B3 0A 00 00")] = 2, [frame(0x20, bytes "5F B3 0A 00 00 01")] = 15 }
    for sent, key_id in pairs(cases) do
      local telegram, err, info = security.telegram(sent, KEY)
      assert.same({ "volume=78563.412", 0, true, key_id }, { values(telegram), err or 0, info.authenticated, info.key_id })
      assert.equal("volume=78563.412", values(security.telegram(sent)))
      assert.equal("volume=78563.412", values(decrypted(sent, KEY)))
    end
  end)

  it("is named as the reason wherever a telegram is shown", function()
    local telegram = require("mbus").decode(altered(V3, 9), { keys = KEY })
    assert.matches('"code":"bad_mac"', require("mbus.format.json").telegram(telegram))
    assert.matches("<!%-%- [^\n]*MAC[^\n]* %-%->", require("mbus.format.xml").telegram(telegram))
    assert.matches("Problem +meter 1234567893153303: the telegram%s+was%s+altered", require("mbus.format.table").telegram(telegram))
  end)

  it("is refused where it is broken", function()
    for size = 0, #V3_AFL do fails("truncated", "bad_afl", core.long(8, 5, 0x90, V3_AFL:sub(1, size)), KEY) end
    fails("malformed", "bad_afl", core.long(8, 5, 0x90, bytes "00" .. V3_TAIL), KEY)
    fails("malformed", "bad_afl", core.long(8, 5, 0x90, bytes "01 00" .. V3_TAIL), KEY)
    for length = 2, 18 do
      if length ~= 15 then
        fails("malformed", "bad_afl", core.long(8, 5, 0x90, string.char(length) .. V3_AFL:sub(2) .. V3_TAIL), KEY)
      end
    end
  end)

  it("is refused where it has fragments or an unknown MAC", function()
    assert.matches("fragments", fails("unsupported", "security", core.long(8, 5, 0x90, bytes "02 01 40" .. V3_TAIL), KEY))
    assert.matches("fragments", fails("unsupported", "security", core.long(8, 5, 0x90, bytes "02 02 00" .. V3_TAIL), KEY))
    assert.matches("GMAC", fails("unsupported", "security", altered(V3, 4, 0x0D), KEY))
    assert.matches("type 9", fails("unsupported", "security", altered(V3, 4, 0x0C), KEY))
  end)
end)

describe("keys", function()
  local FULL = "5566778893445508"

  it("are binary or hex", function()
    for _, key in ipairs { KEY, KEY_HEX, KEY_HEX:lower(), "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f" } do
      decrypted(V2, key)
    end
  end)

  it("are found by secondary address, by identification number, or for any meter", function()
    decrypted(V2, { [FULL] = KEY, ["55667788"] = WRONG, FFFFFFFF = WRONG })
    decrypted(V2, { ["55667788"] = KEY_HEX, FFFFFFFF = WRONG })
    decrypted(V2, { FFFFFFFF = KEY })
    decrypted(V1, { ["12345678"] = V1_KEY }, { address = V1_ADDRESS })
    fails("encrypted", "no_key", V2, { ["55667789"] = KEY })
    local hex_id = with_word(V2, 0x0510)
    hex_id = altered(hex_id, 1, 0x88 ~ 0xAB)
    fails("encrypted", "wrong_key", hex_id, { ["556677ab"] = WRONG })
    fails("encrypted", "wrong_key", hex_id, { ["556677AB"] = WRONG })
  end)

  it("are asked of a function, which sees the header", function()
    local seen
    decrypted(V2, function(telegram, address)
      seen = { telegram.id, telegram.manufacturer, address }
      return KEY
    end)
    assert.same({ "55667788", "QDS", FULL }, seen)
    decrypted(V3, function(telegram, address)
      seen = { telegram.ci, address }
      return KEY_HEX
    end)
    assert.same({ 0x72, "1234567893153303" }, seen)
  end)

  it("that are none are refused, and never shown", function()
    for _, key in ipairs { "", "0102", "secret", KEY_HEX .. "00", KEY_HEX:sub(2), "zz" .. KEY_HEX } do
      for _, keys in ipairs { key, { [FULL] = key }, function() return key end } do
        local message = fails("invalid", "bad_key", V2, keys)
        assert.matches("the key of meter 5566778893445508 is not 32 hex digits", message)
        assert.is_nil(key ~= "" and message:find(key, 1, true) or nil)
      end
    end
  end)

  it("are in no error", function()
    for _, frame in ipairs { V1, V2, V3, V3_Z, altered(V3, 9), with_word(V2, 0x05F0) } do
      for _, key in ipairs { KEY, WRONG } do
        local _, err = security.decrypt(frame, key)
        if Error.is(err) then
          for _, value in pairs(err) do
            assert.is_nil(tostring(value):find(key, 1, true))
            assert.is_nil(tostring(value):find(core.hex(key, ""), 1, true))
          end
        end
      end
    end
  end)

  it("are read as people type them", function()
    local keys = assert(security.keys { KEY_HEX, " 12345678 = " .. core.hex(V1_KEY), "55667788FFFFFFFF=" .. KEY_HEX, FULL .. "=" .. KEY_HEX })
    assert.same({ FFFFFFFF = KEY, ["12345678"] = V1_KEY, ["55667788"] = KEY, [FULL] = KEY }, keys)
    decrypted(V1, keys, { address = V1_ADDRESS })
    assert.same({}, security.keys {})
    for text, expected in pairs {
      [""] = "key 2 is not 32 hex digits (16 bytes)", ["0102"] = "key 2 is not 32 hex digits (16 bytes)",
      ["sixteen letters!"] = "key 2 is not 32 hex digits (16 bytes)", ["12345678="] = "key 2 is not 32 hex digits (16 bytes)",
      ["5=" .. KEY_HEX] = "key 2: a meter is named by 8 digits, or by 16 without wildcards",
      ["1234567F93153303=" .. KEY_HEX] = "key 2: a meter is named by 8 digits, or by 16 without wildcards",
      [KEY_HEX .. "=12345678"] = "key 2 is not 32 hex digits (16 bytes)",
    } do
      local none, err = security.keys { KEY_HEX, text }
      assert.is_nil(none)
      assert.same({ "invalid", "bad_key", expected }, { err.kind, err.code, tostring(err) })
    end
  end)
end)

describe("what is not encrypted", function()
  local HYD = bytes(require("spec.helper").HYD)

  it("comes back as it was", function()
    for _, frame in ipairs { HYD, core.ACK, core.short(0x40, 5), core.long(0x53, 5, 0x50), core.long(0x08, 5, 0x78, "\x2F"),
      core.long(0x08, 5, 0x70, "\x05"), core.long(0x08, 5, 0xA0, "anything"), core.long(0x08, 5, 0x72, "short") } do
      for _, keys in ipairs { KEY, {}, false } do
        local plain, info = security.decrypt(frame, keys or nil)
        assert.same({ frame }, { plain, info })
      end
    end
  end)

  it("comes back as it was also with garbage in the configuration word", function()
    local parts = core.frame(HYD)
    for word = 0, 0xFFFF, 0x33 do
      local frame = with_word(HYD, word)
      local plain, err = security.decrypt(frame, KEY)
      local mode, blocks = word >> 8 & 0x1F, word >> 4 & 0x0F
      if plain then
        assert.equal(frame, plain)
      else -- this meter has unset dates, so a word that names a known mode is believed
        assert.is_true(security.name(mode) ~= nil, tostring(err))
        assert.is_true(mode ~= 5 and mode ~= 7 or blocks > 0)
      end
      if not security.name(mode) then assert.is_string(plain) end
    end
    assert.equal(0x72, parts.ci)
  end)

  it("comes back where all records make sense, whatever mode the word names", function()
    local records = core.record { quantity = "energy", unit = "Wh", value = 35000, data = "int32" }
      .. core.record { quantity = "volume", unit = "m3", value = 12, data = "int32" }
    local frame = core.long(8, 5, 0x72, V3_HEADER .. records)
    for mode = 0, 31 do
      for _, low in ipairs { 0x00, 0x08, 0x10, 0x20, 0xFF } do
        local word = mode << 8 | low
        if not ((mode == 5 or mode == 7) and low == 0x10 and #records >= 16) and not ((mode == 2 or mode == 3) and low == 8) then
          assert.equal(with_word(frame, word), security.decrypt(with_word(frame, word), KEY))
        end
      end
    end
  end)

  it("comes back where the two fillers stand in front, as a real meter sends it", function()
    local frame = bytes("68 43 43 68 08 01 72 40 69 00 33 e1 0e 03 00 77 08 30 85 2f 2f 03 fd 08 06 c0 00 04 fd 10 00 00 00 00 02 65 ab 09"
      .. "12 65 be 09 22 65 3a 09 01 fd 48 25 04 6d 12 10 7e 28 02 7c 01 48 31 00 0f 01 fd 62 b7 01 fd 7b ca e2 16")
    for _, keys in ipairs { KEY, {}, false } do assert.equal(frame, security.decrypt(frame, keys or nil)) end
  end)

  it("comes back the second time", function()
    for _, case in ipairs { { V2, KEY }, { V3, KEY }, { V3_Z, KEY }, { V1, V1_KEY } } do
      local once = assert(security.decrypt(case[1], case[2], { address = V1_ADDRESS }))
      assert.equal(once, security.decrypt(once, case[2], { address = V1_ADDRESS }))
    end
  end)
end)

describe("modes that are not supported", function()
  local NAMES = {
    [1] = "manufacturer specific", [2] = "DES%-CBC", [3] = "DES%-CBC with initialization vector", [4] = "static initialization vector",
    [8] = "AES%-128%-CTR", [9] = "AES%-128%-GCM", [10] = "AES%-128%-CCM", [13] = "TLS 1.2", [15] = "private encryption",
  }

  it("are named", function()
    for mode, name in pairs(NAMES) do
      local message = fails("unsupported", "security", with_word(V2, mode << 8 | 0x10), KEY)
      assert.matches("meter 5566778893445508 is encrypted with .*" .. name .. ".*%(mode " .. mode .. "%), which is not supported", message)
      assert.matches(name, security.name(mode))
    end
  end)

  it("are left to the decoder without a key", function()
    for mode in pairs(NAMES) do
      local frame = with_word(V2, mode << 8 | 0x10)
      assert.equal(frame, security.decrypt(frame))
    end
  end)
end)

describe("encrypting a command", function()
  local RECORDS = bytes "04 6D 2D 0D 1D 32"
  local FRAME = bytes("68 1F 1F 68 53 FD 5B 78 56 34 12 93 15 33 03 2B 00 10 05 F4 23 CF F7 3D B0 A5 C4 6B B6 2A 6D 23 4A E1 17 2D 16")

  it("gives the known frame", function()
    for _, address in ipairs { V1_ADDRESS, bytes "7856341293153303" } do
      for _, keys in ipairs { KEY, KEY_HEX, { [V1_ADDRESS] = KEY }, { ["12345678"] = KEY_HEX }, function(_, to) return to == V1_ADDRESS and KEY end } do
        assert.equal(FRAME, core.long(0x53, 0xFD, security.encrypt(RECORDS, keys, { address = address, access_no = 0x2B })))
      end
    end
    local telegram = decrypted(FRAME, KEY)
    assert.equal("datetime=2024-02-29T13:45:00", values(telegram))
  end)

  it("has a short form", function()
    local options = { address = V1_ADDRESS, access_no = 0x2B, header = "short" }
    local frame = core.long(0x53, 0xFD, security.encrypt(RECORDS, KEY, options))
    assert.equal(bytes "2B 00 10 05" .. core.frame(FRAME).data:sub(13), core.frame(frame).data)
    assert.equal(core.frame(FRAME).ci - 1, core.frame(frame).ci)
    assert.equal("datetime", decrypted(frame, KEY, options):record(0).quantity)
  end)

  it("pads to whole blocks, and what went in comes out", function()
    for size = 0, 238 do
      local records = ("\x2F"):rep(size)
      local ci, data = security.encrypt(records, KEY, { address = V1_ADDRESS, access_no = size })
      local blocks = (size + 2 + 15) // 16
      assert.same({ 0x5B, 12 + 16 * blocks, 0x0500 | blocks << 4 }, { ci, #data, (("<I2"):unpack(data, 11)) })
      local _, _, plain = decrypted(core.long(0x53, 5, ci, data), KEY)
      assert.equal("\x2F\x2F" .. records, core.frame(plain).data:sub(13, 14 + size))
    end
  end)

  it("says what a user got wrong", function()
    local function refused(kind, code, keys, address)
      local ci, err = security.encrypt(RECORDS, keys, { address = address or V1_ADDRESS, access_no = 1 })
      assert.is_nil(ci)
      assert.same({ kind, code }, { err.kind, err.code })
    end
    refused("encrypted", "no_key", {})
    refused("encrypted", "no_key", nil)
    refused("invalid", "bad_key", "1234")
    refused("invalid", nil, KEY, "12345678FFFFFFFF")
    refused("invalid", nil, KEY, "12345678")
    refused("invalid", nil, KEY, "5")
    refused("invalid", nil, KEY, "x")
  end)
end)

describe("a wrong argument raises", function()
  local OPTIONS = { address = V1_ADDRESS, access_no = 1 }

  local function raises(text, fn, ...)
    local arguments = table.pack(...)
    local ok, message = pcall(function()
      local result = fn(table.unpack(arguments, 1, arguments.n))
      return result
    end)
    assert.is_false(ok)
    assert.matches("security_spec.lua.*" .. text, message)
  end

  it("at the caller", function()
    raises("bytes are a string", security.decrypt, nil, KEY)
    raises("a key, a table of keys or a function", security.decrypt, V2, 5)
    raises("bytes are a string", security.telegram, 5)
    raises("a key, a table of keys or a function", security.telegram, V2, true)
    raises("records are a string", security.encrypt, nil, KEY, OPTIONS)
    raises("at most 238 bytes", security.encrypt, ("x"):rep(239), KEY, OPTIONS)
    raises("access_no is needed", security.encrypt, "", KEY, { address = V1_ADDRESS })
    raises("access_no is needed", security.encrypt, "", KEY, { address = V1_ADDRESS, access_no = 256 })
    raises("access_no is needed", security.encrypt, "", KEY)
    raises("address is needed", security.encrypt, "", KEY, { access_no = 1 })
    raises("header is long or short", security.encrypt, "", KEY, { address = V1_ADDRESS, access_no = 1, header = "none" })
    raises("a key, a table of keys or a function", security.encrypt, "", true, OPTIONS)
  end)
end)

describe("a key that is no string", function()
  it("raises, since it is a mistake in the program", function()
    assert.has_error(function() security.decrypt(V2, function() return true end) end, "a key is a string, not boolean")
    assert.has_error(function() security.decrypt(V2, { ["55667788"] = 5 }) end, "a key is a string, not number")
  end)
end)

describe("reading a telegram", function()
  it("gives the decrypted one, and what is known of it", function()
    local telegram, err, info = security.telegram(V3, KEY)
    assert.same({ V1_VALUES, nil, true }, { values(telegram), err, info.authenticated })
    telegram, err, info = security.telegram(V1, V1_KEY, { address = V1_ADDRESS })
    assert.same({ V1_VALUES, nil, 5 }, { values(telegram), err, info.mode })
    telegram, err, info = security.telegram(core.ACK)
    assert.same({ "ack" }, { telegram.type, err, info })
  end)

  it("gives the header where it can't be decrypted", function()
    for code, key in pairs { no_key = {}, wrong_key = WRONG } do
      local telegram, err = security.telegram(V2, key)
      assert.same({ "5566778893445508", "encrypted", code }, { telegram.secondary_address, telegram.error.code, err.code })
      telegram, err = security.telegram(V3, key)
      assert.same({ "1234567893153303", "encrypted", code }, { telegram.secondary_address, telegram.error.code, err.code })
    end
    local telegram, err = security.telegram(altered(V3, 9), KEY)
    assert.same({ "1234567893153303", 0, "bad_mac" }, { telegram.secondary_address, #telegram, err.code })
  end)

  it("gives what the core gives where the AFL is broken", function()
    local telegram, err = security.telegram(core.long(8, 5, 0x90, ""), KEY)
    assert.same({ 0x90, "unsupported_ci", "bad_afl" }, { telegram.ci, telegram.error.code, err.code })
  end)

  it("gives nothing of a bad frame", function()
    local telegram, err = security.telegram("\x68\x03", KEY)
    assert.same({ nil, "truncated" }, { telegram, err.kind })
    assert.is_true(Error.is(err))
  end)
end)

describe("mbus.aes", function()
  local function without_aes(reason, fn)
    local loaded, preload = package.loaded["mbus.aes"], package.preload["mbus.aes"]
    package.loaded["mbus.aes"] = nil
    package.preload["mbus.aes"] = function() error(reason, 0) end
    local ok, message = pcall(fn)
    package.loaded["mbus.aes"], package.preload["mbus.aes"] = loaded, preload
    assert(ok, message)
  end

  it("is needed only where there is something to decrypt", function()
    without_aes("libmbedcrypto is missing", function()
      assert.matches("AES needs the module mbus.aes: .*libmbedcrypto is missing", fails("unsupported", "no_aes", V2, KEY))
      fails("encrypted", "no_key", V2)
      assert.equal(core.ACK, security.decrypt(core.ACK, KEY))
      local ci, err = security.encrypt("", KEY, { address = V1_ADDRESS, access_no = 1 })
      assert.same({ false, "no_aes" }, { ci or false, err.code })
    end)
  end)

  it("is not what is missing when there is no memory to load it", function()
    without_aes("not enough memory", function()
      local ok, err = pcall(security.decrypt, V2, KEY)
      assert.same({ false, "not enough memory" }, { ok, err })
    end)
  end)
end)

describe("any bytes", function()
  math.randomseed(20240711)

  local function noise(n)
    local list = {}
    for i = 1, n do list[i] = string.char(math.random(0, 255)) end
    return table.concat(list)
  end

  -- Result, or an error of a known kind; the result is a frame.
  local function check(frame, keys, options)
    local plain, err = security.decrypt(frame, keys, options)
    local telegram = security.telegram(frame, keys, options)
    assert.equal(core.frame(frame) ~= nil, telegram ~= nil)
    if plain then
      assert(core.telegram(plain))
    else
      assert(Error.is(err) and tostring(err) ~= "", "an error object is due")
    end
  end

  it("give a frame or an error", function()
    for _ = 1, 2000 do check(noise(math.random(0, 64)), KEY) end
  end)

  it("give a frame or an error inside good frames", function()
    local cis = { 0x72, 0x7A, 0x5A, 0x5B, 0x90, 0x73, 0x76, 0x78, 0x75, 0x7B, 0x6F }
    for _ = 1, 6000 do
      local ci = cis[math.random(#cis)]
      local data = noise(math.random(0, 80))
      local word = string.char(math.random(0, 255), math.random(0, 1) == 0 and 5 or 0x27)
      if ci ~= 0x90 and #data > 12 then data = data:sub(1, 10) .. word .. data:sub(13) end
      check(core.long(math.random(0, 255), 5, ci, data), KEY, { address = math.random(0, 1) == 0 and V1_ADDRESS or nil })
    end
  end)

  it("give a frame or an error where known telegrams are damaged", function()
    for _, frame in ipairs { V1, V2, V3, V3_Z } do
      local parts = core.frame(frame)
      for size = 0, #parts.data do check(core.long(parts.c, parts.a, parts.ci, parts.data:sub(1, size)), KEY, { address = V1_ADDRESS }) end
      for at = 1, #parts.data do
        for bit = 0, 7 do check(altered(frame, at, 1 << bit), KEY, { address = V1_ADDRESS }) end
      end
    end
  end)
end)
