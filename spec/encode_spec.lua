-- Frames as they are printed in the documentation of the standard, byte for byte.
local core = require "mbus.core"
local encode = require "mbus.encode"
local mbus = require "mbus"
local by_hand = require "spec.procedure.by_hand"

local function is(wanted, bytes) assert.equal(wanted, core.hex(bytes)) end

describe("encode makes", function()
  it("requests", function()
    is("10 40 01 41 16", encode.snd_nke(1))
    is("10 5B 01 5C 16", encode.req_ud2(1, 0))
    is("10 7B 01 7C 16", encode.req_ud2(1, 1))
    is("10 5A 05 5F 16", encode.req_ud1(5, 0))
    is("10 7A 05 7F 16", encode.req_ud1(5, 1))
    is("10 40 FD 3D 16", encode.deselect())
  end)

  it("application resets", function()
    is("68 03 03 68 53 01 50 A4 16", encode.application_reset(1))
    is("68 04 04 68 53 FE 50 10 B1 16", encode.application_reset(254, 0x10))
    is("68 04 04 68 53 01 50 42 E6 16", encode.application_reset(1, 0x42))
    is("68 03 03 68 73 FD 50 C0 16", encode.application_reset(253, nil, 1))
  end)

  it("primary addresses", function()
    is("68 06 06 68 53 FE 51 01 7A 08 25 16", encode.set_primary_address(254, 8))
    is("68 06 06 68 53 00 51 01 7A 05 24 16", encode.set_primary_address(0, 5))
    is("68 06 06 68 73 FD 51 01 7A 05 41 16", encode.set_primary_address(253, 5, 1))
  end)

  it("secondary addresses", function()
    is("68 09 09 68 53 FE 51 0C 79 78 56 34 12 3B 16", encode.set_secondary_address(254, "12345678"))
    is("68 0D 0D 68 53 FE 51 07 79 04 03 02 01 24 40 01 04 95 16", encode.set_secondary_address(254, "0102030424400104"))
    is("68 0F 0F 68 53 FE 51 0C 79 78 56 34 12 0C 06 07 01 00 00 55 16", encode.write(254, {
      "\x0C\x79\x78\x56\x34\x12", { quantity = "energy", unit = "Wh", value = 107000, exponent = 3, data = "bcd8" } }))
    is("68 10 10 68 53 FE 51 01 7A 08 07 79 04 03 02 01 24 40 01 04 18 16",
      encode.write(254, { "\x01\x7A\x08", core.unhex "07 79 04 03 02 01 24 40 01 04" }))
  end)

  it("clocks and dates", function()
    is("68 09 09 68 53 01 51 04 6D 2D 0D 1D 32 9F 16", encode.clock(1, "2024-02-29T13:45"))
    is("68 09 09 68 53 01 51 04 6D 00 8C 01 37 DA 16", encode.clock(1, "2024-07-01T12:00", { summer_time = true }))
    is("68 0B 0B 68 53 01 51 06 6D 9E 2D 8D 1D 32 09 C8 16", encode.clock(1, "2024-02-29T13:45:30", { type = "I" }))
    is("68 0B 0B 68 53 01 51 06 6D C0 40 2C 01 37 5B D7 16",
      encode.clock(1, "2024-07-01T12:00:00", { type = "I", summer_time = true }))
    local noon = { year = 2024, month = 7, day = 1, hour = 12, minute = 0, second = 0 }
    is("68 09 09 68 53 01 51 04 6D 00 8C 01 37 DA 16", encode.clock(1, noon, { summer_time = true }))
    assert.is_nil(noon.summer_time)
    for field, value in pairs { year = 2081, month = 13, day = 32, hour = 24, minute = 60, second = 0.5 } do
      local wrong = { year = 2024, month = 7, day = 1, hour = 12, minute = 0, second = 0 }
      wrong[field] = value
      assert.error_matches(function() encode.clock(1, wrong) end, "no date and time from 1981 to 2080")
    end
    assert.error_matches(function() encode.clock(1, "1980-12-31T23:59") end, "no date and time from 1981 to 2080")
    is("68 08 08 68 53 01 51 03 6D 1E 2D 0D 6D 16", encode.write(1, { { vif = "\x6D", data = "time", value = "13:45:30" } }))
    is("68 07 07 68 53 01 51 42 6C 1F 3C AE 16",
      encode.write(1, { { quantity = "date", data = "date", value = "2024-12-31", storage = 1 } }))
    is("68 08 08 68 53 01 51 42 EC 7E 1F 3C AC 16",
      encode.write(1, { { vif = "\xEC\x7E", data = "date", value = "2024-12-31", storage = 1 } }))
    is("68 09 09 68 53 FF 51 04 6D 2D 0D 1D 32 9D 16", encode.clock(255, "2024-02-29T13:45"))
    is("04 6D 2D 2D 1D 32", encode.clock(1, "2024-02-29T13:45", { hundred_years = true }):sub(8, -3))
  end)

  it("selections of records", function()
    is("68 07 07 68 53 07 51 08 13 08 5A 28 16", encode.select_records(7, { { quantity = "volume", exponent = -3, unit = "m3" },
      { quantity = "flow_temperature", unit = "°C", exponent = -1 } }))
    is("68 07 07 68 53 01 51 48 06 48 6C A7 16", encode.select_records(1, {
      { quantity = "energy", unit = "Wh", exponent = 3, storage = 1 }, { quantity = "date", storage = 1 } }))
    is("68 05 05 68 53 01 51 18 2B E8 16",
      encode.select_records(1, { { quantity = "power", unit = "W", exponent = 0, ["function"] = "maximum" } }))
    is("68 06 06 68 53 01 51 88 40 06 73 16",
      encode.select_records(1, { { quantity = "energy", unit = "Wh", exponent = 3, subunit = 1 } }))
    is("68 06 06 68 53 01 51 08 FD 17 C1 16", encode.select_records(1, { { quantity = "error_flags" } }))
    is("68 05 05 68 53 01 51 08 00 AD 16", encode.select_records(1, { { quantity = "energy", unit = "Wh", exponent = -3 } }))
    is("68 06 06 68 53 01 51 C8 3F 7E 2A 16", encode.select_records(1, { "\xC8\x3F\x7E" }))
    is("68 07 07 68 53 01 51 C8 FF 7F 7E 69 16", encode.select_records(1, "\xC8\xFF\x7F\x7E"))
    is("68 04 04 68 53 03 51 7F 26 16", encode.select_records(3, "all"))
    is("68 06 06 68 53 01 51 0C 93 0C 50 16", encode.write(1, "\x0C\x93\x0C")) -- an action, without data
  end)

  it("raises on options that there are not: a misspelt one would select more meters", function()
    for name, fn in pairs {
      fabricaton = function() encode.select("12345678", { fabricaton = "01020304" }) end,
      summertime = function() encode.clock(1, "2024-02-29T13:45", { summertime = true }) end,
      mor = function() encode.telegram(1, { access_no = 1 }, nil, { mor = true }) end,
      tolerent = function() require("mbus").gateway({ connections = {} }, { tolerent = true }) end,
      sed = function() require("mbus").simulator.new("house", { sed = 1 }) end,
      updte = function() require("mbus").freeclient.new("", { bus = { devices = {} }, updte = print }) end,
    } do
      local ok, message = pcall(fn)
      assert.is_false(ok)
      assert.matches("encode_spec.lua:%d+: there is no option " .. name, message)
    end
  end)

  it("nothing of cut records, which would take what is missing from the one behind them", function()
    local energy = { quantity = "energy", value = 1000, data = "int32" }
    local function fails(message, ...) assert.matches(message, select(2, pcall(encode.write, 1, ...)), 1, true) end
    fails("record 1: the telegram ends inside the data of a record", { "\x0C\x13\0", energy })
    fails("record 1: the telegram ends inside the data of a record", "\x0C\x13")
    fails("record 2: a reserved DIF", { energy, "\x3F" })
    fails("record 1 takes all that follows", { "\x0F\1\2", energy })
    is("68 0C 0C 68 53 01 51 04 03 E8 03 00 00 0F 01 02 A9 16", encode.write(1, { energy, "\x0F\1\2" }))
  end)

  it("selections of meters", function()
    is("68 0B 0B 68 53 FD 52 78 56 34 12 24 40 01 07 22 16", encode.select("1234567824400107"))
    is("68 0B 0B 68 53 FD 56 12 34 56 78 40 24 01 07 26 16", encode.select("1234567824400107", { mode2 = true }))
    is("68 0B 0B 68 53 FD 52 78 56 34 12 FF FF FF FF B2 16", encode.select("12345678"))
    is("68 0B 0B 68 53 FD 52 FF FF FF 1F FF FF FF FF BA 16", encode.select("1FFFFFFF"))
    is("68 0B 0B 68 53 FD 52 FF FF FF FF 24 40 FF FF 00 16", encode.select("FFFFFFFF2440FFFF"))
    is("68 0B 0B 68 53 FD 52 FF FF FF FF FF FF FF 07 A2 16", encode.select("FFFFFFFFFFFFFF07"))
    is("68 11 11 68 53 FD 52 FF FF FF FF 24 40 01 07 0C 78 04 03 02 01 98 16",
      encode.select("FFFFFFFF24400107", { fabrication = "01020304" }))
    is("68 11 11 68 53 FD 52 78 56 34 12 24 40 01 07 0C 78 FF FF 02 01 A7 16",
      encode.select("1234567824400107", { fabrication = "0102FFFF" }))
    is("68 12 12 68 53 FD 52 FF FF FF FF FF FF FF FF 0C FD 10 78 56 34 12 C7 16",
      encode.select("FFFFFFFF", { records = "\x0C\xFD\x10\x78\x56\x34\x12" }))
    is("68 0E 0E 68 53 FD 52 FF FF FF FF FF FF FF FF 01 7A 05 1A 16", encode.select("FFFFFFFF", { records = "\x01\x7A\x05" }))
    assert.equal(0x73, encode.select("FFFFFFFF", { fcb = 1 }):byte(5))
  end)

  it("baud rates and synchronization", function()
    is("68 03 03 68 53 FE BD 0E 16", encode.set_baudrate(254, 9600))
    is("68 03 03 68 53 FE B8 09 16", encode.set_baudrate(254, 300))
    is("68 03 03 68 53 01 BB 0F 16", encode.set_baudrate(1, 2400))
    is("68 03 03 68 53 FF BB 0D 16", encode.set_baudrate(255, 2400))
    is("68 03 03 68 53 FF 5C AE 16", encode.synchronize())
    is("68 03 03 68 53 01 54 A8 16", encode.synchronize(1, 0x54))
    assert.has_error(function() encode.set_baudrate(1, 1234) end)
  end)

  it("values and object actions", function()
    local volume = { quantity = "volume", unit = "m3", value = 0, exponent = -3, data = "bcd8" }
    is("68 09 09 68 53 01 51 0C 13 00 00 00 00 C4 16", encode.write(1, { volume }))
    local function energy(raw, vife) return { vif = "\x86" .. vife, raw = raw, data = "bcd8" } end
    is("68 0A 0A 68 53 01 51 0C 86 00 07 01 00 00 3F 16", encode.write(1, { energy(107, "\0") }))
    is("68 0A 0A 68 53 01 51 0C 86 01 10 00 00 00 48 16", encode.write(1, { energy(10, "\1") }))
    is("68 06 06 68 53 01 51 00 86 07 32 16", encode.write(1, "\x00\x86\x07"))
    is("68 0A 0A 68 53 05 51 0C 86 08 11 05 00 00 59 16", encode.write(5, { energy(511, "\8") }))
    is("68 0C 0C 68 53 01 51 0D FD 10 05 31 30 2D 42 41 D5 16",
      encode.write(1, { { quantity = "customer_location", value = "AB-01", data = "text" } }))
    is("68 08 08 68 53 01 51 01 FD 9A 03 04 44 16", encode.write(1, { { vif = "\xFD\x9A\x03", raw = 4, data = "int8" } }))
    is("68 06 06 68 53 01 51 40 DA 0B CA 16", encode.write(1, "\x40\xDA\x0B"))
    is("68 07 07 68 53 01 51 C0 01 FE 0B 6F 16", encode.write(1, "\xC0\x01\xFE\x0B"))
    is("68 07 07 68 53 01 51 02 7F 34 12 6C 16", encode.write(1, "\x02\x7F\x34\x12"))
    is("68 07 07 68 53 01 51 0F 01 02 03 BA 16", encode.write(1, "\x0F\x01\x02\x03"))
  end)

  it("encrypted commands", function()
    local key = core.unhex("00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F")
    local bytes = assert(encode.encrypted(253, core.unhex "04 6D 2D 0D 1D 32", key,
      { address = "1234567893153303", access_no = 0x2B }))
    is("68 1F 1F 68 53 FD 5B 78 56 34 12 93 15 33 03 2B 00 10 05 F4 23 CF F7 3D B0 A5 C4 6B B6 2A 6D 23 4A E1 17 2D 16", bytes)
  end)

  it("telegrams as meters send them, which decode to what went in", function()
    local bytes = encode.telegram(5, { id = "31892747", manufacturer = "HYD", version = 40, medium = 4, access_no = 7, status = 2 },
      { { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8" } }, { more = true })
    local telegram = assert(mbus.decode(bytes))
    assert.same({ "3189274724232804", "HYD", 7, 2, true, 12.5 }, { telegram.secondary_address, telegram.manufacturer,
      telegram.access_no, telegram.status, telegram.more_records_follow, telegram:find({}).value })
    telegram = assert(mbus.decode(encode.telegram(5, { access_no = 9 }, nil, { manufacturer_data = "\1\2" })))
    assert.same({ "short", 9, "\1\2" }, { telegram.header, telegram.access_no, telegram.manufacturer_data })
    is("01 00 00 00", encode.short_header { access_no = 1 })
    assert.has_error(function() encode.long_header { id = "1" } end)
    assert.has_error(function() encode.long_header { id = "12345678", manufacturer = "hyd" } end)
  end)

  it("whole frames of their beginnings", function()
    for _, typed in ipairs { "10 5B 01", "10 5B 01 00", "10 5B 01 00 00", "10 5B 01 5C 16" } do
      is("10 5B 01 5C 16", encode.complete(core.unhex(typed)))
    end
    for _, typed in ipairs { "68 03 03 68 53 FE BD", "68 03 03 68 53 FE BD 00 16", "68 00 00 68 53 FE BD" } do
      is("68 03 03 68 53 FE BD 0E 16", encode.complete(core.unhex(typed)))
    end
    for _, typed in ipairs { "", "10 5B", "10 5B 01 02 03 04", "E5", "68 03 03 68 53", "99" } do
      assert.is_nil(encode.complete(core.unhex(typed)))
    end
  end)

  it("nothing of what does not fit", function()
    assert.has_error(function() encode.write(1, {}) end)
    assert.has_error(function() encode.write(1, { 5 }) end)
    assert.has_error(function() encode.select("1234") end)
    assert.has_error(function() encode.select("12345678", { fabrication = "1" }) end)
    assert.has_error(function() encode.clock(1, "yesterday") end)
  end)

  it("nothing where a field is misspelt: the record would be that of another register", function()
    local record = { quantity = "energy", unit = "Wh", value = 0, exponent = 0, data = "int32", storge = 1 }
    assert.error_matches(function() encode.record(record) end, "there is no field storge in a record")
    assert.error_matches(function() encode.write(5, { record }) end, "record 1: there is no field storge in a record")
    assert.error_matches(function() encode.record { quantity = "volume", value = 1, "int32" } end, "there is no field 1 in")
    for _, telegram in ipairs { by_hand.answer(5, "31892747", 1, "\x42\x6C\x1F\x3C\x44\x13\x01\x00\x00\x00") } do
      for _, decoded in assert(mbus.decode(telegram)):records() do assert.is_string(encode.record(decoded)) end
    end
  end)

  it("no address that a meter could not be asked at any more", function()
    for _, new in ipairs { 251, 255, -1, 1.5, "5" } do
      assert.error_matches(function() encode.set_primary_address(5, new) end, "0 to 250")
    end
    for _, digits in ipairs { "1234", "1234567890", "1234567F", "ABCDEF12", "123456782440FF04", 12345678 } do
      assert.error_matches(function() encode.set_secondary_address(5, digits) end, "8 decimal digits")
    end
  end)

  it("no clock of a type that there is not", function()
    assert.error_matches(function() encode.clock(1, "2024-02-29T13:45:30", { type = "i" }) end, '"F" or "I" expected')
  end)
end)
