-- The small tables of EN 13757-3, EN 13757-7 and EN 1434-3: CI fields, media, application errors, units of the fixed structure,
-- and the errors that scripts compare.
local core = require "mbus.core"

local function bytes(text) return assert(core.unhex(text)) end

local LONG, SHORT = "78 56 34 12 24 40 01 07 55 11 00 00", "55 11 00 00"
local ONE = "01 13 05"

local function telegram(ci, text) return assert(core.telegram(core.long(0x08, 1, ci, bytes(text)))) end

-- CI, header (-, S or L), what follows
local CI = [[
50 - reset
51 - command
52 - selection
53 L reset
54 - synchronize
55 - command
56 - selection
5A S command
5B L command
5C - synchronize
60 L nothing
61 S nothing
64 L nothing
65 S nothing
66 - nothing
67 S nothing
68 L nothing
69 - format
6A S format
6B L format
6C L nothing
6D L nothing
6E S error
6F L error
70 - error
71 - alarm
72 L records
74 S alarm
75 L alarm
76 L records
78 - records
79 - compact
7A S records
7B S compact
7C L nothing
7D S nothing
7E L nothing
7F S nothing
80 L nothing
84 L nothing
85 L nothing
8A S nothing
8B L nothing
B8 - 300
B9 - 600
BA - 1200
BB - 2400
BC - 4800
BD - 9600
BE - 19200
BF - 38400
]]
local HEADERS = { ["-"] = { "none", "" }, S = { "short", SHORT }, L = { "long", LONG } }

local FIELDS = { application_reset = "reset", synchronize = "synchronize", application_error = "error", alarm_status = "alarm" }

local FOLLOWS = {
  nothing = function(t) assert.are.same({ 0 }, { #t, t.error }) end,
  records = function(t)
    assert.are.same({ 1, 0.005 }, { #t, t:record(0).value })
    assert.is_nil(t:record(0).action)
  end,
  command = function(t) assert.are.same({ 1, 0.005, "write" }, { #t, t:record(0).value, t:record(0).action or "write" }) end,
  reset = function(t) assert.are.same({ 0, "011305" }, { #t, t.application_reset }) end,
  synchronize = function(t) assert.are.same({ 0, true }, { #t, t.synchronize }) end,
  selection = function(t) assert.are.equal("header_too_short", t.error.code) end,
  format = function(t) assert.are.equal("header_too_short", t.error.code) end,
  compact = function(t) assert.are.equal("unknown_format", t.error.code) end,
  error = function(t) assert.are.same({ 0, { code = 1, name = "unimplemented_ci" } }, { #t, t.application_error }) end,
  alarm = function(t) assert.are.same({ 0, 1 }, { #t, t.alarm_status }) end,
}

-- What three bytes of records are not enough for, or too much.
local IS_DAMAGED = { selection = true, format = true, compact = true }

describe("the CI field", function()
  local known = {}
  for ci, header, follows in CI:gmatch "(%x%x) (%S) (%S+)" do known[tonumber(ci, 16)] = { header = header, follows = follows } end

  it("tells header and content", function()
    for ci, row in pairs(known) do
      local name, text = table.unpack(HEADERS[row.header])
      local t, where = telegram(ci, text .. ONE), ("%02X"):format(ci)
      assert.are.equal(name, t.header, where)
      if row.header ~= "-" then assert.are.same({ 0x55, 0x11 }, { t.access_no, t.status }, where) else assert.is_nil(t.access_no) end
      if tonumber(row.follows) then
        assert.are.same({ 0, tonumber(row.follows) }, { #t, t.set_baud_rate }, where)
      else
        FOLLOWS[row.follows](t)
      end
      if not IS_DAMAGED[row.follows] then assert.is_nil(t.error, where) end
      for field, follow in pairs(FIELDS) do
        if follow ~= row.follows then assert.is_nil(t[field], where .. " " .. field) end
      end
    end
  end)

  it("is unsupported elsewhere", function()
    for ci = 0, 255 do
      if not known[ci] and ci ~= 0x73 and ci ~= 0x77 then
        local err = telegram(ci, ONE).error
        assert.are.same({ "unsupported_ci", 6 }, { err.code, err.offset }, ("%02X"):format(ci)) -- where the CI stands
      end
    end
  end)

  it("in mode 2 turns all numbers round", function()
    local t = telegram(0x76, "12 34 56 78 40 24 01 07 55 11 12 34 02 13 01 02")
    assert.are.same({ "12345678", "PAD", 0x1234, 0.258 }, { t.id, t.manufacturer, t.signature, t:record(0).value })
    assert.are.equal(0.258, telegram(0x55, "02 13 01 02"):record(0).value)
    t = telegram(0x56, "12 34 56 78 40 24 01 07")
    assert.are.same({ "12345678", 0x4024 }, { t.selection.id, t.selection.manufacturer_code })
    for ci, text in pairs { [0x51] = "02 13 02 01", [0x72] = LONG .. "02 13 02 01", [0x78] = "02 13 02 01" } do
      assert.are.equal(0.258, telegram(ci, text):record(0).value)
    end
  end)

  it("of a selection may be followed by records that must match", function()
    local t = telegram(0x52, "78 56 34 12 FF FF FF FF 0C 78 15 00 00 00")
    assert.are.same({ 1, "fabrication_number", 15, "12345678" }, { #t, t:record(0).quantity, t:record(0).value, t.selection.id })
    assert.is_nil(t.error)
    assert.are.same({ id = "FFFFFFFF", manufacturer_code = 0xFFFF, version = 0xFF, medium = 0xFF },
      telegram(0x52, "FF FF FF FF FF FF FF FF").selection)
    for n = 0, 7 do assert.are.equal("header_too_short", telegram(0x52, ("FF"):rep(n)).error.code) end
  end)

  it("of an error may be followed by records that describe it", function()
    local t = telegram(0x70, "F0 01 13 05")
    assert.are.same({ "dynamic", 1, 0.005 }, { t.application_error.name, #t, t:record(0).value })
    t = telegram(0x6F, LONG .. "F0 01 13 05")
    assert.are.same({ "dynamic", 1, "12345678" }, { t.application_error.name, #t, t.id })
    assert.are.equal(0, #telegram(0x70, "F1 01 13 05"))
    assert.are.same({ code = 0, name = "unspecified" }, telegram(0x70, "").application_error)
    assert.is_nil(telegram(0x70, "").error)
  end)

  it("of a format frame needs length and signature, and headers only if there are records", function()
    assert.are.same({ 0 }, { #telegram(0x69, "02 FF FF"), telegram(0x69, "02 FF FF").error })
    assert.are.equal("header_too_short", telegram(0x69, "01 FF").error.code)
    assert.are.equal("header_too_short", telegram(0x69, "03 FF FF").error.code)
    local err = telegram(0x69, "02 FF FE").error
    assert.are.same({ "bad_crc", 8 }, { err.code, err.offset }) -- of the signature
  end)

  it("of an alarm needs its byte", function()
    assert.are.equal("header_too_short", telegram(0x71, "").error.code)
    assert.are.equal("header_too_short", telegram(0x74, SHORT).error.code)
  end)

  it("needs the whole header", function()
    for n = 0, 11 do
      local t = assert(core.telegram(core.long(0x08, 1, 0x72, bytes(LONG):sub(1, n))))
      assert.are.same({ "header_too_short", "none" }, { t.error.code, t.header })
    end
    for n = 0, 3 do
      local t = assert(core.telegram(core.long(0x08, 1, 0x7A, bytes(SHORT):sub(1, n))))
      assert.are.same({ "header_too_short", "none" }, { t.error.code, t.header })
    end
    assert.is_nil(telegram(0x7A, SHORT).error)
    assert.is_nil(telegram(0x72, LONG).error)
  end)
end)

describe("the configuration field", function()
  --- Error and number of records of a telegram with this field and some blocks of 16 bytes behind the header.
  local function sealed(configuration, blocks, first)
    local data = bytes "78 56 34 12 24 40 01 07 55 00" .. string.pack("<I2", configuration) .. (first or "") .. ("\x01\x13\x05\x2F"):rep(4 * blocks)
    local t = assert(core.telegram(core.long(0x08, 1, 0x72, data)))
    return t.error and t.error.code, #t
  end

  it("seals as many blocks as it counts, in mode 5 and 7", function()
    assert.are.same({ "encrypted", 0 }, { sealed(0x0510, 1) })
    assert.are.same({ "encrypted", 0 }, { sealed(0x0710, 1) })
    assert.are.same({ "encrypted", 0 }, { sealed(0x05F0, 15) })
    assert.are.same({ "encrypted", 0 }, { sealed(0x0520, 3) })
    assert.are.same({ nil, 4 }, { sealed(0x0500, 1) })
    assert.are.same({ nil, 4 }, { sealed(0x0520, 1) }) -- fewer blocks than it counts
    for _, mode in ipairs { 0, 1, 2, 3, 4, 6, 8, 13, 15, 21, 23 } do assert.are.same({ nil, 4 }, { sealed(mode << 8 | 0x10, 1) }, mode) end
    assert.are.same({ "encrypted", 0 }, { sealed(0xE51F, 1) }) -- the other bits are something else
  end)

  it("is not believed where the 2F 2F of decryption stand", function()
    assert.are.same({ nil, 4 }, { sealed(0x0510, 1, "\x2F\x2F") })
    assert.are.same({ "encrypted", 0 }, { sealed(0x0510, 1, "\x2F") })
    assert.are.same({ "encrypted", 0 }, { sealed(0x0510, 1, "\x01\x2F") })
  end)
end)

local MEDIA = { [0] = "other", "oil", "electricity", "gas", "heat", "steam", "warm water", "water", "heat cost allocator", "compressed air",
  "cooling (return)", "cooling (flow)", "heat (flow)", "heat/cooling", "bus/system component", "unknown", "irrigation water",
  "water data logger", "gas data logger", "gas converter", "calorific value", "hot water", "cold water", "dual register water", "pressure",
  "A/D converter", "smoke alarm", "room sensor", "gas detector", "carbon monoxide alarm", "heat alarm", "sensor", "breaker", "valve",
  [0x25] = "customer unit", [0x28] = "waste water", [0x29] = "garbage", [0x2A] = "carbon dioxide", [0x30] = "system device",
  [0x31] = "communication controller", [0x32] = "unidirectional repeater", [0x33] = "bidirectional repeater",
  [0x36] = "radio converter (system side)", [0x37] = "radio converter (meter side)", [0x38] = "wired adapter", [0xFF] = "any" }

local FIXED_MEDIA = { [0] = "other", "oil", "electricity", "gas", "heat", "steam", "hot water", "water", "heat cost allocator", "unknown",
  "gas", "heat", "hot water", "water", "heat cost allocator", "unknown" }

describe("the medium", function()
  it("has the names of EN 13757-7", function()
    for code = 0, 255 do
      local t = assert(core.telegram(core.long(0x08, 1, 0x72, bytes "78 56 34 12 24 40 01" .. string.char(code) .. "\0\0\0\0")))
      assert.are.same({ code, MEDIA[code] or "reserved" }, { t.medium, t.medium_name })
    end
  end)

  it("of the fixed structure is spread over two bytes, and A to E mean mode 2", function()
    for code = 0, 15 do
      local data = "\x78\x56\x34\x12\x0A\x01" .. string.char((code & 3) << 6 | 0x05, (code >> 2) << 6 | 0x05) .. "\1\0\0\2\3\0\0\4"
      local t = assert(core.telegram(core.long(0x08, 1, 0x73, data)))
      assert.are.same({ code, FIXED_MEDIA[code], 10, 1 }, { t.medium, t.medium_name, t.access_no, t.status })
      local swapped = code >= 10 and code <= 14
      assert.are.equal(swapped and "78563412" or "12345678", t.id)
      assert.are.equal((swapped and 0x01000002 or 0x02000001) * 1000, t:record(0).value)
      assert.are.equal((swapped and 0x03000004 or 0x04000003) * 1000, t:record(1).value)
    end
  end)
end)

describe("CI 77", function()
  it("is the fixed structure of mode 2", function()
    local t = telegram(0x77, "12 34 56 78 0A 00 05 05 00 00 00 01 00 00 12 34")
    assert.are.same({ "fixed", "12345678", 10, 0 }, { t.header, t.id, t.access_no, t.status })
    assert.is_nil(t.error)
    assert.are.same({ 1000, 1234000, "energy", "Wh" }, { t:record(0).value, t:record(1).value, t:record(1).quantity, t:record(1).unit })
    assert.are.equal("fixed_length", telegram(0x77, ONE).error.code)
  end)
end)

describe("application errors", function()
  it("have their names", function()
    local names = { [0] = "unspecified", "unimplemented_ci", "buffer_too_long", "too_many_records", "premature_end_of_record", "too_many_dife",
      "too_many_vife", [8] = "application_busy", [9] = "too_many_readouts", [0x10] = "access_denied", [0x11] = "unknown_command",
      [0x12] = "parameter_wrong", [0x13] = "unknown_receiver_address", [0x14] = "decryption_key_fails", [0x15] = "encryption_not_supported",
      [0x16] = "signature_not_supported", [0xF0] = "dynamic" }
    for code = 0, 255 do
      local want = names[code] or (code > 0xF0 and "manufacturer_specific" or "reserved")
      assert.are.same({ code = code, name = want }, telegram(0x70, ("%02X"):format(code)).application_error)
    end
  end)
end)

describe("units of the fixed structure", function()
  -- first code, quantity, unit, power of ten; nine codes each
  local BLOCKS = { { 0x02, "energy", "Wh", 0 }, { 0x0B, "energy", "J", 3 }, { 0x14, "power", "W", 0 }, { 0x1D, "power", "J/h", 3 },
    { 0x26, "volume", "m3", -6 }, { 0x2F, "volume_flow", "m3/h", -6 } }
  local OTHERS = { [0x00] = { "time" }, [0x01] = { "date" }, [0x38] = { "temperature", "°C", -3 }, [0x39] = { "hca", "hca" },
    [0x3F] = { "dimensionless" } }

  local function counter(first, second, status)
    local data = "\x78\x56\x34\x12\x0A" .. string.char(status or 0, first, second) .. "\x01\0\0\0\x02\0\0\0"
    local t = assert(core.telegram(core.long(0x08, 1, 0x73, data)))
    assert.are.equal(2, #t)
    return t:record(0), t:record(1)
  end

  it("are those of EN 1434-3", function()
    local want = {}
    for code = 0, 0x3F do want[code] = OTHERS[code] or { "reserved" } end
    for _, block in ipairs(BLOCKS) do
      for i = 0, 8 do want[block[1] + i] = { block[2], block[3], block[4] + i } end
    end
    for code, row in pairs(want) do
      if code ~= 0x3E then
        local first, second = counter(code, code)
        local scale = tonumber("1e" .. (row[3] or 0))
        assert.are.same({ row[1], 1 * scale, 0, row[2] }, { first.quantity, first.value, first.storage, first.unit }, ("%02X"):format(code))
        assert.are.same({ row[1], tonumber("2e" .. (row[3] or 0)), 0, row[2] }, { second.quantity, second.value, second.storage, second.unit })
      end
    end
  end)

  it("3E means that of the other counter, historic", function()
    local first, second = counter(0x29, 0x3E)
    assert.are.same({ 0.001, "m3", 0, 0.002, "m3", 1 }, { first.value, first.unit, first.storage, second.value, second.unit, second.storage })
    first, second = counter(0x3E, 0x05)
    assert.are.same({ 1000, "Wh", 1, 2000, "Wh", 0 }, { first.value, first.unit, first.storage, second.value, second.unit, second.storage })
    first, second = counter(0x3E, 0x3E)
    assert.are.same({ "reserved", "reserved" }, { first.quantity, second.quantity })
  end)

  it("are stored and coded by the status", function()
    local first, second = counter(0x05, 0x06, 0x02)
    assert.are.same({ 1, 1 }, { first.storage, second.storage })
    local data = "\x78\x56\x34\x12\x0A\1\5\5\xFF\xFF\xFF\xFF\x10\0\0\0"
    local t = core.telegram(core.long(0x08, 1, 0x73, data))
    assert.are.same({ -1000, 16000 }, { t:record(0).value, t:record(1).value })
    data = "\x78\x56\x34\x12\x0A\0\5\5\x01\0\0\xF0\x10\0\0\0"
    t = core.telegram(core.long(0x08, 1, 0x73, data))
    assert.are.same({ -1000, 10000 }, { t:record(0).value, t:record(1).value })
  end)

  it("come with 16 bytes, no more and no less", function()
    for n = 0, 20 do
      local t = assert(core.telegram(core.long(0x08, 1, 0x73, ("\0"):rep(n))))
      assert.are.equal(n ~= 16 and "fixed_length" or nil, t.error and t.error.code)
      assert.are.equal(n ~= 16 and "none" or "fixed", t.header)
    end
  end)
end)
