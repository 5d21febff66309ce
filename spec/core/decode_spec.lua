-- Telegrams and records (EN 13757-3:2018). Frames are those of the standard, of "The M-Bus: A Documentation", or built here.
local core = require "mbus.core"

local function bytes(text)
  return assert(core.unhex(text))
end

local HEADER = bytes "78 56 34 12 24 40 01 07 55 00 00 00"

--- A telegram with a long header around these records.
local function telegram(records, header)
  return assert(core.telegram(core.long(0x08, 2, 0x72, (header or HEADER) .. bytes(records))))
end

local function record(text)
  local t = telegram(text)
  assert.is_nil(t.error)
  assert.are.equal(1, #t)
  return t:record(0)
end

--- value and unit of one record
local function value(text)
  local r = record(text)
  return r.value, r.unit
end

describe("a telegram", function()
  it("has the fields of its header", function()
    local t = telegram("")
    assert.are.same({ "long", 0x08, 2, 0x72 }, { t.type, t.c, t.a, t.ci })
    assert.are.same({ "long", "12345678", "PAD", 1, 7, "water", 0x55, 0, 0 },
      { t.header, t.id, t.manufacturer, t.version, t.medium, t.medium_name, t.access_no, t.status, t.signature })
    assert.are.equal("1234567824400107", t.secondary_address)
    assert.are.equal(0, #t)
    assert.is_nil(t.no_such_field)
    assert.are.equal("mbus.telegram: 12345678 PAD, 0 records", tostring(t))
  end)

  it("keeps hex digits of an identification", function()
    assert.are.equal("0500023E", telegram("", bytes "3E 02 00 05 24 40 01 07 55 00 00 00").id)
  end)

  it("reads storage, tariff and subunit from the DIFEs", function()
    local t = telegram "03 13 15 31 00 DA 02 3B 13 01 8B 60 04 37 18 02"
    local list = {}
    for position, r in t:records() do
      list[#list + 1] = { position, r["function"], r.storage, r.tariff, r.subunit, r.quantity, r.value, r.unit }
    end
    assert.are.same({
      { 0, "instantaneous", 0, 0, 0, "volume", 12.565, "m3" },
      { 1, "maximum", 5, 0, 0, "volume_flow", 0.113, "m3/h" },
      { 2, "instantaneous", 0, 2, 1, "energy", 218370, "Wh" },
    }, list)
    local seen = {}
    for position, quantity, v, unit, fn, storage, tariff, subunit in t:each() do
      seen[#seen + 1] = { position, fn, storage, tariff, subunit, quantity, v, unit }
    end
    assert.are.same(list, seen)
  end)

  it("reads the widest DIB: 41 bits of storage, 20 of tariff, 10 of subunit", function()
    local r = record "C1 FF FF FF FF FF FF FF FF FF 7F 13 01"
    assert.are.same({ (1 << 41) - 1, (1 << 20) - 1, (1 << 10) - 1, 0.001 }, { r.storage, r.tariff, r.subunit, r.value })
  end)

  it("skips fillers and stops at manufacturer data", function()
    local t = telegram "2F 2F 01 13 05 2F 0F 01 02 1F"
    assert.are.same({ 1, "\x01\x02\x1F", false }, { #t, t.manufacturer_data, t.more_records_follow })
    t = telegram "01 13 05 1F"
    assert.are.same({ 1, "", true }, { #t, t.manufacturer_data, t.more_records_follow })
    assert.is_nil(telegram("01 13 05").manufacturer_data)
  end)

  it("keeps the good records before a damaged tail and says where it breaks", function()
    local cases = {
      { "01 13 05 84", "premature_end_of_dif", 23 }, { "01 13 05 04", "premature_end_of_vif", 23 },
      { "01 13 05 04 93", "premature_end_of_vif", 24 }, { "01 13 05 04 13 01 02 03", "premature_end_of_data", 24 },
      { "01 13 05 0D 78", "premature_end_of_data", 24 }, { "01 13 05 0D 78 CA 00", "reserved_lvar", 24 },
      { "01 13 05 0D 78 05 41", "premature_end_of_data", 24 }, { "01 13 05 3F 00", "reserved_dif", 22 },
      { "01 13 05 8F 00", "reserved_dif", 22 }, { "01 13 05 02 7C 09 41", "premature_end_of_var_vif", 24 },
      { "01 13 05 81 80 80 80 80 80 80 80 80 80 80 01 13 05", "too_many_dife", 33 },
      { "01 13 05 01 93 BA BA BA BA BA BA BA BA BA BA 3A 05", "too_many_vife", 34 },
    }
    for _, case in ipairs(cases) do
      local t = telegram(case[1])
      assert.are.equal(1, #t, case[1])
      assert.are.equal(0.005, t:record(0).value)
      assert.are.same({ case[2], case[3] }, { t.error.code, t.error.offset }, case[1])
      assert.is_nil(t:record(1))
    end
  end)

  it("that cannot be read says why and shows what it has", function()
    local t = assert(core.telegram(core.long(0x08, 2, 0x72, "\x78\x56")))
    assert.are.same({ "header_too_short", "truncated", 7 }, { t.error.code, t.error.kind, t.error.offset })
    assert.are.equal("none", t.header)
    t = assert(core.telegram(core.long(0x08, 2, 0x11, "\x78\x56")))
    assert.are.same({ "unsupported_ci", "unsupported" }, { t.error.code, t.error.kind })
    t = assert(core.telegram(core.long(0x08, 2, 0x73, "\x78\x56")))
    assert.are.equal("fixed_length", t.error.code)
    local encrypted = bytes "78 56 34 12 24 40 01 07 55 00 10 05" .. ("\xA5"):rep(16)
    t = assert(core.telegram(core.long(0x08, 2, 0x72, encrypted)))
    assert.are.same({ "encrypted", 19, 5, 0, "12345678" }, { t.error.code, t.error.offset, t.security_mode, #t, t.id })
  end)

  it("reads a configuration word of FFFF as the garbage that it is", function()
    local t = telegram("01 13 05", bytes "78 56 34 12 24 40 01 07 55 00 FF FF")
    assert.are.same({ 1, 31 }, { #t, t.security_mode })
    assert.is_nil(t.error)
  end)

  it("refuses bad frames", function()
    local t, err = core.telegram(bytes "68 03 03 68 08 01 72 7C 16")
    assert.is_nil(t)
    assert.are.equal("checksum", err.kind)
    assert.are.equal("truncated", select(2, core.telegram("")).kind)
    assert.are.equal("checksum", select(2, core.telegram(("\x68"):rep(5000))).kind)
  end)

  it("reads records in any order of asking", function()
    local t = telegram "01 13 00 01 13 01 01 13 02 01 13 03"
    for _, position in ipairs { 3, 0, 2, 2, 1, 3 } do assert.are.equal(position, t:record(position).value * 1000) end
    assert.is_nil(t:record(4))
    assert.is_nil(t:record(-1))
    local pairs_seen = 0
    for _ in t:records() do
      for _ in t:records() do pairs_seen = pairs_seen + 1 end
    end
    assert.are.equal(16, pairs_seen)
  end)

  it("finds records by what they mean", function()
    local t = telegram "04 06 01 00 00 00 44 06 02 00 00 00 84 10 06 03 00 00 00 14 2B 04 00 00 00 04 86 3C 05 00 00 00"
    assert.are.equal(1000, t:find { quantity = "energy" }.value)
    assert.are.equal(2000, t:find { quantity = "energy", storage = 1 }.value)
    assert.are.equal(3000, t:find { tariff = 1 }.value)
    assert.are.equal(4, t:find { ["function"] = "maximum", unit = "W" }.value)
    assert.are.equal(5000, t:find { modifiers = { "backward_only" } }.value)
    assert.are.equal(3, #t:select { quantity = "energy", modifiers = {} })
    assert.are.equal(0, #t:select { modifiers = { "backward_only\0x" } })
    assert.has_error(function() t:select { ["quantity\0x"] = "energy" } end)
    assert.is_nil(t:find { quantity = "volume" })
    assert.has_error(function() t:find { quantitty = "energy" } end)
    assert.has_error(function() t:find { "energy" } end)
    for _, never in ipairs { { quantity = "energy\0" }, { quantity = 1 }, { storage = "0" }, { storage = 0.5 }, { unit = true } } do
      assert.is_nil(t:find(never))
      assert.equal(0, #t:select(never))
    end
    assert.equal(1000, t:find { quantity = "energy", storage = 0.0 }.value)
    assert.same({ 2000, "Wh" }, { t:value { quantity = "energy", storage = 1 } })
    assert.equal(0, select("#", t:value { quantity = "volume" }))
    assert.equal(1, t:position { quantity = "energy", storage = 1 })
    assert.is_nil(t:position { quantity = "volume" })
  end)

  it("tells the values of records that have no more to say", function()
    -- plain, with VIFE, BCD error, IV record error, no data, plain-text unit, maximum of a date
    local t = telegram "04 06 01 00 00 00 04 86 3C 05 00 00 00 0A 5A AB 02 04 93 15 01 00 00 00 00 06 01 FC 02 68 25 05 D2 6C 1F 3C"
    assert.same({ "energy", 1000, "Wh", "instantaneous", 0, 0, 0 }, { t:plain(0) })
    for _, position in ipairs { 1, 2, 3, 4, 5, 7, -1, 1 << 40 } do assert.equal(0, select("#", t:plain(position)), position) end
    for position = 0, #t - 1 do
      local plain, whole = { t:plain(position) }, t:record(position)
      if plain[1] then assert.same({ whole.quantity, whole.value, whole.unit }, { plain[1], plain[2], plain[3] }) end
    end
  end)
end)

describe("the fixed data structure", function()
  -- EN 1434-3: status bit 0 tells binary counters from BCD, bit 1 those of a fixed date from present ones.
  it("keeps apart what the two lowest bits of its status say", function()
    for status, expected in pairs { [0] = { 1, 0, 135, 0 }, { 1, 0, 309, 0 }, { 1, 1, 135, 1 }, { 1, 1, 309, 1 } } do
      local data = "\x78\x56\x34\x12\x0A" .. string.char(status) .. "\xE9\x69\x01\0\0\0\x35\x01\0\0"
      local t = assert(core.telegram(core.long(0x08, 5, 0x73, data)))
      local first, second = t:record(0), t:record(1)
      assert.are.same(expected, { first.raw, first.storage, second.raw, second.storage })
    end
  end)

  it("has two counters, the second historic here", function()
    local t = assert(core.telegram(bytes "68 13 13 68 08 05 73 78 56 34 12 0A 00 E9 7E 01 00 00 00 35 01 00 00 3C 16"))
    assert.are.same({ "fixed", "12345678", 7, "water" }, { t.header, t.id, t.medium, t.medium_name })
    local first, second = t:record(0), t:record(1)
    assert.are.same({ 2, 0.001, "m3", 0 }, { #t, first.value, first.unit, first.storage })
    assert.are.same({ 0.135, "m3", 1 }, { second.value, second.unit, second.storage })
  end)

  it("counts in binary where its status says so", function()
    local t = core.telegram(core.long(0x08, 5, 0x73, bytes "78 56 34 12 0A 01 05 7F FE FF FF FF 10 00 00 00"))
    assert.are.same({ -2000, "Wh", 16 }, { t:record(0).value, t:record(0).unit, t:record(1).value })
  end)
end)

describe("mode 2", function()
  it("sends the most significant byte first", function()
    local t = assert(core.telegram(core.long(0x08, 1, 0x76, bytes "12 34 56 78 40 24 01 07 55 00 00 00 04 13 00 00 01 00 0D FD 10 03 41 42 43")))
    assert.are.same({ "12345678", "PAD" }, { t.id, t.manufacturer })
    assert.are.same({ 0.256, "ABC" }, { t:record(0).value, t:record(1).value })
  end)
end)

describe("numbers", function()
  it("are integers where they are, else the nearest double", function()
    assert.are.equal("integer", math.type((value "04 06 23 00 00 00")))
    assert.are.equal(35000, (value "04 06 23 00 00 00"))
    assert.are.equal("integer", math.type((value "02 5A DC 00")))
    assert.are.equal(22, (value "02 5A DC 00"))
    assert.are.equal(0.3, (value "01 5A 03"))
    assert.are.equal(12.565, (value "03 13 15 31 00"))
  end)

  it("have every length and sign", function()
    assert.are.equal(-1, (value "01 2B FF"))
    assert.are.equal(-2, (value "02 2B FE FF"))
    assert.are.equal(-3, (value "03 2B FD FF FF"))
    assert.are.equal(-4, (value "04 2B FC FF FF FF"))
    assert.are.equal(-5, (value "06 2B FB FF FF FF FF FF"))
    assert.are.equal(-6, (value "07 2B FA FF FF FF FF FF FF FF"))
    assert.are.equal(8388608, (value "03 FD 0F 00 00 80")) -- type C by the FD table
  end)

  it("lose nothing with 64 bits", function()
    local r = record "07 2B FF FF FF FF FF FF FF 7F"
    assert.are.same({ math.maxinteger, math.maxinteger }, { r.value, r.raw })
    r = record "07 28 15 CD 5B 07 15 CD 5B 07"
    assert.are.equal("530242871347629.333", core.decimal(r))
    assert.are.equal(530242871347629.333, r.value)
    r = record "07 FD 0F FE FF FF FF FF FF FF FF"
    assert.are.same({ "18446744073709551614", 18446744073709551614.0 }, { r.raw, r.value })
    r = record "07 23 FF FF FF FF FF FF FF 7F" -- days: beyond 64 bits in seconds
    assert.are.equal("796899343984252629724800", core.decimal(r))
    assert.are.equal(796899343984252629724800.0, r.value)
  end)

  it("are null with a flag where the meter has none", function()
    for text, flag in pairs {
      ["01 13 80"] = "value_invalid", ["02 13 00 80"] = "value_invalid", ["04 13 00 00 00 80"] = "value_invalid",
      ["01 FD 0F FF"] = "value_invalid", ["0A 13 A0 00"] = "bcd_invalid", ["0A 13 00 A0"] = "bcd_invalid",
      ["0A 13 F0 0F"] = "bcd_invalid", ["05 13 00 00 C0 7F"] = "not_a_number", ["05 13 00 00 80 FF"] = "not_a_number",
      ["05 13 01 00 C0 7F"] = "not_a_number", ["05 13 01 00 80 7F"] = "not_a_number",
    } do
      local r = record(text)
      assert.is_nil(r.value, text)
      assert.are.same({ flag }, { table.unpack(r.flags) }, text)
      local hex = text:gsub(" ", ""):lower()
      assert.are.equal(hex, r.raw_dif_hex .. r.raw_vif_hex .. r.raw_data_hex)
    end
  end)

  it("that name something have no minus", function()
    for text, shown in pairs { ["0C 78 78 56 34 F2"] = "F2345678", ["0C 79 78 56 34 F2"] = "F2345678", ["09 78 F5"] = "F5" } do
      local r = record(text)
      assert.is_nil(r.value)
      assert.are.same({ { "bcd_invalid" }, shown }, { { table.unpack(r.flags) }, r.text })
    end
  end)

  it("in BCD have a minus in the top digit", function()
    assert.are.equal(-0.18, (value "0B 61 18 00 F0"))
    assert.are.equal(999999999999, (value "0E 2B 99 99 99 99 99 99"))
    assert.are.equal(-99999999999, (value "0E 2B 99 99 99 99 99 F9"))
    assert.are.equal("  E--4  ", record("3C 2B DD B4 EB DD").text)
  end)

  it("in real32 are scaled like the others", function()
    assert.are.equal(0.15625, (value "05 2B 00 00 20 3E"))
    assert.are.equal(0.0015625, (value "05 29 00 00 20 3E"))
    assert.are.equal(400.9, (value "05 FD 48 00 90 7A 45"))
  end)

  it("of variable length count bytes", function()
    assert.are.equal(12345678, (value "0D 2B C4 78 56 34 12"))
    assert.are.equal(-1234, (value "0D 2B D2 34 12"))
    assert.are.equal(999999999999999999, (value "0D 2B C9 99 99 99 99 99 99 99 99 99"))
    assert.are.equal(-2, (value "0D 2B E2 FE FF"))
    assert.are.equal("AB-01", (value "0D FD 10 05 31 30 2D 42 41"))
    assert.are.equal("\u{e4}", (value "0D FD 10 01 E4"))
    assert.are.equal("", (value "0D FD 10 00"))
    assert.are.same({ "bytes", "000102030405060708090a0b0c0d0e0f" },
      { record("0D FD 3A F0 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F").type,
        (value "0D FD 3A F0 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F") })
  end)

  it("have minutes, hours and days folded into seconds", function()
    assert.are.same({ 3600, "s" }, { value "01 22 01" })
    assert.are.same({ 86400, "s" }, { value "01 23 01" })
    assert.are.same({ 120, "s" }, { value "01 71 02" })
    assert.are.same({ 12, "month" }, { value "01 FD 28 0C" })
  end)

  it("of heat cost allocators have factors of 1/4096", function()
    assert.are.equal(1, (value "02 FB 68 00 10"))
    assert.are.equal("0.000244140625", core.decimal(record "01 FB 68 01"))
  end)
end)

describe("dates", function()
  it("have the types that their lengths say", function()
    assert.are.equal("2007-12-31", (value "42 6C FF 0C"))
    assert.are.equal("2008-05-31T23:50:00", (value "04 6D 32 37 1F 15"))
    assert.are.equal("2016-07-22T08:00:00", (value "46 6D 00 00 08 16 27 00"))
    assert.are.equal("13:45:30", (value "03 6D 1E 2D 0D"))
    assert.are.equal("2024-12-31", (value "02 FD 30 1F 3C"))
  end)

  it("know their century", function()
    assert.are.equal("1996-05-05T09:16:00", (value "04 6D 10 09 05 C5"))
    assert.are.equal("2080-01-01", (value "02 6C 01 A1"))
    assert.are.equal("1981-01-01", (value "02 6C 21 A1"))
    assert.are.equal("2014-03-13T14:02:00", (value "04 6D 02 2E CD 13"))
  end)

  it("are null where unset, impossible or a rule", function()
    for text, shown in pairs {
      ["02 6C FF 2F"] = "2023-*-31", ["02 6C FF FC"] = "*-12-31", ["02 6C 1E 02"] = "2000-02-30",
      ["04 6D 3F 1F 01 01"] = "2000-01-01T*:*:00",
    } do
      local r = record(text)
      assert.is_nil(r.value)
      assert.are.same({ { "date_invalid" }, shown }, { { table.unpack(r.flags) }, r.text })
    end
    for _, unset in ipairs { "02 6C 00 00", "04 6D 00 00 00 00", "06 6D 00 00 00 00 00 00" } do
      local r = record(unset)
      assert.is_nil(r.value)
      assert.are.same({ { "date_invalid" }, n = 1 }, { { table.unpack(r.flags) }, r.text, n = 1 })
    end
    local r = record "04 6D 80 00 01 01"
    assert.is_nil(r.value)
    assert.are.same({ "time_invalid" }, { table.unpack(r.flags) })
  end)

  it("of a daylight saving rule (type K) are bytes with a text", function()
    local r = record "04 FD 72 02 9F BB A3"
    assert.are.same({ "daylight_saving", "bytes", "029fbba3", "on, from 03-31 02:00 to 10-27, +1 h" }, { r.quantity, r.type, r.value, r.text })
    assert.are.equal("off, from 03-31 02:00 to 10-27, -1 h", record("04 FD 72 02 1F 3B A3").text)
    assert.are.equal("on, from 03-31 02:00 to 10-27, -1 h", record("04 FD 72 02 9F 3B A3").text)
    assert.are.equal("off, from 03-31 02:00 to 10-27, +1 h", record("04 FD 72 02 1F BB A3").text)
    local mode_2 = assert(core.telegram(core.long(0x08, 1, 0x76, HEADER .. bytes "04 FD 72 A3 BB 9F 02"))):record(0)
    assert.are.same({ "a3bb9f02", "on, from 03-31 02:00 to 10-27, +1 h" }, { mode_2.value, mode_2.text })
  end)

  it("keep the summer-time mark", function()
    assert.are.same({ "summer_time" }, { table.unpack(record("04 6D 00 8C 01 37").flags) })
  end)
end)

describe("VIFs and VIFEs", function()
  it("of an address with all its fields mark it as such", function()
    local size = { ["01"] = 1, ["04"] = 4, ["06"] = 6, ["07"] = 8, ["0C"] = 4 }
    for text, mark in pairs { ["07 79"] = "address_block", ["07 7A"] = "address_block", ["06 7A"] = "address_block", ["06 79"] = "", ["04 7A"] = "",
      ["01 7A"] = "", ["0C 79"] = "", ["07 78"] = "", ["07 13"] = "" } do
      assert.are.equal(mark, table.concat(record(text .. (" 01"):rep(size[text:sub(1, 2)])).flags, " "), text)
    end
  end)

  it("come from every table", function()
    assert.are.same({ 4.5e6, "Wh" }, { value "01 FB 00 2D" })
    assert.are.same({ 225.7, "V" }, { value "04 FD C8 FC 01 D1 08 00 00" })
    assert.are.same({ 48, "month" }, { value "01 FD FD 02 30" })
    assert.are.same({ "reserved", "reserved" }, { record("01 6F 01").quantity, record("01 FB 07 01").quantity })
  end)

  it("have units in plain text, before or behind the VIFEs", function()
    assert.are.same({ 54.1, "%RH" }, { value "02 FC 03 48 52 25 74 22 15" })
    assert.are.same({ 54.1, "%RH" }, { value "02 FC 74 03 48 52 25 22 15" })
    assert.are.same({ 4050, "bat. time" }, { value "02 7C 09 65 6D 69 74 20 2E 74 61 62 D2 0F" })
  end)

  it("extend the unit, scale, or change what the data is", function()
    assert.are.same({ 5, "m3/input_pulse_0" }, { value "01 96 28 05" })
    assert.are.same({ 50, "Wh/h" }, { value "01 84 22 05" })
    assert.are.same({ 0.05, "Wh" }, { value "01 84 73 05" })
    assert.are.same({ 5000, "W" }, { value "01 AB 7D 05" })
    assert.are.same({ 5.001, "W" }, { value "01 AB 78 05" })
    assert.are.same({ 11582395, "s" }, { value "04 BE 50 BB BB B0 00" })
    assert.are.same({ 3, nil }, { value "01 BE 41 03" })
    assert.are.same({ "2024-12-31", nil }, { value "02 DA 6F 1F 3C" })
    assert.are.same({ 5000, "non-metric(Wh)" }, { value "01 86 3D 05" })
  end)

  it("report record errors without a value", function()
    local r = record "04 93 15 01 00 00 00"
    assert.are.same({ "no_data_available", "01000000" }, { r.error, r.raw_data_hex })
    assert.is_nil(r.value)
    assert.are.equal(0.001, (value "04 93 00 01 00 00 00"))
  end)

  it("are actions when the master sends them", function()
    local t = core.telegram(bytes "68 0A 0A 68 53 01 51 0C 86 01 10 00 00 00 48 16")
    assert.are.same({ "add", 10000 }, { t:record(0).action, t:record(0).value })
    t = core.telegram(bytes "68 06 06 68 53 01 51 0C 93 0C 50 16")
    assert.are.same({ 1, "add_to_readout_list", "none" }, { #t, t:record(0).action, t:record(0).type })
    t = core.telegram(bytes "68 05 05 68 53 03 51 7F 7E A4 16")
    assert.is_true(t.global_readout_request)
    assert.are.same({ 0 }, { #t, t.error })
    t = core.telegram(bytes "68 04 04 68 53 03 51 7F 26 16")
    assert.is_true(t.global_readout_request)
    assert.are.same({ 0 }, { #t, t.error })
    for _, text in ipairs { "7F 7F", "7F 13", "7F 7E 7E", "7F 7E 13" } do -- one VIF of all storages, not everything
      assert.are.equal("reserved_dif", core.telegram(core.long(0x53, 3, 0x51, bytes(text))).error.code, text)
    end
  end)

  it("that are unknown cost only their own meaning", function()
    local t = telegram "01 93 44 05 02 FF 01 02 03 01 13 05"
    assert.are.equal(3, #t)
    assert.are.same({ "reserved_44" }, { table.unpack(t:record(0).modifiers) })
    assert.are.same({ "manufacturer_specific", { "opaque" } }, { t:record(1).quantity, { table.unpack(t:record(1).flags) } })
    assert.are.equal(0.005, t:record(2).value)
  end)
end)

describe("compact profiles", function()
  --- storage, value and time of what the last record packs
  local function profile(text)
    local t = telegram(text)
    local list = {}
    for i, element in ipairs(assert(t:profile(#t - 1))) do
      list[i] = { element.storage, element.value, element.time }
    end
    return list
  end

  it("hold absolute values by month (1E)", function()
    assert.are.same({ { 33, 100000, "2010-02-01T00:00:00" }, { 34, 130000, "2010-03-01T00:00:00" } },
      profile "86 80 81 00 6D 00 00 A0 41 11 35 84 90 81 00 03 F0 49 02 00 8D 90 81 00 83 1E 0A 34 FE A0 86 01 00 D0 FB 01 00")
  end)

  it("hold increments forward (1F) and backward (13) in time", function()
    assert.are.same({ { 9, 12300.3, "2010-01-01T01:00:00" }, { 10, 12300.5, "2010-01-01T02:00:00" }, { 11, 12301.6, "2010-01-01T03:00:00" } },
      profile "84 04 6D 00 20 41 11 8B 04 15 00 30 12 8D 04 95 1F 05 69 01 03 02 11")
    assert.are.same({ { 9, 12300.5, "2010-01-01T02:00:00" }, { 10, 12300.3, "2010-01-01T01:00:00" }, { 11, 12300, "2010-01-01T00:00:00" } },
      profile "84 04 6D 00 23 41 11 8B 04 15 16 30 12 8D 04 95 13 05 69 01 11 02 03")
  end)

  it("have no value where base or element is missing", function()
    assert.are.same({ { 9 }, { 10 } }, profile "8D 04 95 1F 04 69 01 03 02")
    assert.are.same({ { 9, 12300.3 }, { 10 }, { 11 } }, profile "8B 04 15 00 30 12 8D 04 95 1F 05 69 01 03 AA 11")
    assert.are.same({ { 9, 0.3 }, { 10 }, { 11, 1.1 } }, profile "8D 04 95 1F 05 29 01 03 AA 11")
  end)

  it("know month lengths", function()
    assert.are.same({ { 1, 1, "2024-02-29" }, { 2, 2, "2024-03-31" } }, profile "02 6C 1F 31 0D 95 1F 04 39 FE 10 20")
    assert.are.same({ { 1, 1, "2024-01-16" }, { 2, 2, "2024-02-01" } }, profile "02 6C 01 31 0D 95 1F 04 39 FD 10 20")
  end)

  it("are refused where there is none", function()
    local t = telegram "01 13 05"
    assert.is_nil((t:profile(0)))
    assert.has_error(function() t:profile(1) end)
  end)
end)

describe("compact frames", function()
  local full = core.long(0x08, 1, 0x78, bytes "02 02 D2 04 02 15 2E 16 02 2A 34 23")
  local format = core.long(0x08, 1, 0x69, bytes "08 31 3B 02 02 02 15 02 2A")
  local compact = core.long(0x08, 1, 0x79, bytes "31 3B 42 A6 D2 04 2E 16 34 23")

  it("are expanded with the record headers of a full or a format frame", function()
    for _, frame in ipairs { full, format } do
      local signature, headers = core.telegram(frame):format()
      assert.are.same({ 0x3B31, bytes "02 02 02 15 02 2A" }, { signature, headers })
      local t = core.telegram(compact)
      assert.are.same({ 0x3B31, "unknown_format" }, { t.format_signature, t.error.code })
      assert.are.equal(core.hex(full), core.hex(t:expand(headers)))
    end
  end)

  it("are refused with another format or a wrong CRC", function()
    local _, err = core.telegram(compact):expand(bytes "02 02 02 15")
    assert.are.equal("unknown_format", err.code)
    _, err = core.telegram(core.long(0x08, 1, 0x79, bytes "31 3B 42 A6 D3 04 2E 16 34 23")):expand(bytes "02 02 02 15 02 2A")
    assert.are.equal("bad_crc", err.code)
    _, err = core.telegram(core.long(0x08, 1, 0x79, bytes "31 3B 42 A6 D2 04 2E 16 34")):expand(bytes "02 02 02 15 02 2A")
    assert.are.equal("premature_end_of_data", err.code)
    _, err = core.telegram(full):expand("")
    assert.are.equal("unsupported", err.kind)
  end)

  it("with a long header share CI 73 with the fixed structure, which has 16 bytes", function()
    local frame = core.long(0x08, 1, 0x73, HEADER .. bytes "31 3B 42 A6 D2 04 2E 16 34 23")
    local t = assert(core.telegram(frame))
    assert.are.equal("fixed_length", t.error.code)
    local expanded = core.telegram(t:expand(bytes "02 02 02 15 02 2A"))
    assert.are.same({ "12345678", 0x72, 123.4 }, { expanded.id, expanded.ci, expanded:record(0).value })
  end)

  it("keep a short header", function()
    local t = assert(core.telegram(core.long(0x08, 1, 0x7B, bytes "55 10 00 00 31 3B 42 A6 D2 04 2E 16 34 23")))
    assert.are.same({ "short", 0x55, "unknown_format" }, { t.header, t.access_no, t.error.code })
    assert.are.equal(core.hex(core.long(0x08, 1, 0x7A, bytes "55 10 00 00 02 02 D2 04 02 15 2E 16 02 2A 34 23")),
      core.hex(t:expand(bytes "02 02 02 15 02 2A")))
  end)

  it("and their record headers can be listed", function()
    local t = core.telegram(format)
    assert.are.same({ 3, "energy", "none" }, { #t, t:record(0).quantity, t:record(0).type })
    assert.are.equal("bad_crc", core.telegram(core.long(0x08, 1, 0x69, bytes "08 32 3B 02 02 02 15 02 2A")).error.code)
  end)
end)
