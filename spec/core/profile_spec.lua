-- Compact profiles (EN 13757-3:2018, Annex F): times against the calendar of the C library, sums, and what can't be one.
local core = require "mbus.core"

local function bytes(text) return assert(core.unhex(text)) end

---What the profile that ends a telegram packs: a list of { storage, value, time }, or nil and the error.
local function profile(records)
  local t = assert(core.telegram(core.long(0x08, 1, 0x78, records)))
  local list, err = t:profile(#t - 1)
  if not list then return nil, err end
  for i, element in ipairs(list) do list[i] = { element.storage, element.value, element.time } end
  return list, t
end

---A profile of volumes without a VIFE beside the profile's: one BCD digit pair each, spaced as the control bytes say.
local function series(control, spacing, data, vife)
  return "\x0D\x93" .. (vife or "\x1F") .. string.char(2 + #data, control, spacing) .. data
end

local function date(year, month, day)
  local y = year % 100
  return "\x02\x6C" .. string.char(day | (y & 7) << 5, month | (y >> 3) << 4)
end

local function datetime(year, month, day, hour, minute)
  local y = year % 100
  return "\x04\x6D" .. string.char(minute, hour | (year - 1900) // 100 << 5, day | (y & 7) << 5, month | (y >> 3) << 4)
end

---A base and seconds after it; days are counted at noon, where no zone's clock changes.
local function later(year, month, day, seconds)
  local days, clock = seconds // 86400, seconds % 86400
  return os.date("%Y-%m-%d", os.time { year = year, month = month, day = day + days, hour = 12 })
    .. ("T%02d:%02d:%02d"):format(clock // 3600, clock // 60 % 60, clock % 60)
end

local function times(records)
  local list = {}
  for i, element in ipairs(assert(profile(records))) do list[i] = element[3] end
  return list
end

-- control byte: mode in bits 7..6 (0 absolute), unit of spacing in bits 5..4, data field below
local ABSOLUTE, BYTE = 0x00, 0x01
local SECONDS = { [0] = 1, 60, 3600, 86400 }

describe("the times of a profile", function()
  it("are steps of seconds, minutes, hours and days, forth and back", function()
    for _, base in ipairs { { 2024, 2, 28 }, { 2023, 12, 31 }, { 2000, 2, 29 }, { 1999, 12, 31 }, { 2100, 2, 28 }, { 2099, 12, 31 }, { 2024, 1, 1 } } do
      for unit, seconds in pairs(SECONDS) do
        for _, spacing in ipairs { 1, 7, 100, 250 } do
          for vife, sign in pairs { ["\x1F"] = 1, ["\x13"] = -1 } do
            local got = times(datetime(base[1], base[2], base[3], 23, 59) .. series(ABSOLUTE | unit << 4 | BYTE, spacing, "\1\2\3", vife))
            for k = 1, 3 do
              assert.are.equal(later(base[1], base[2], base[3], 86340 + sign * k * spacing * seconds), got[k])
            end
          end
        end
      end
    end
  end)

  it("go through the months of three hundred years", function()
    for year = 1985, 2290, 5 do
      local got = times(datetime(year, 3, 1, 0, 0) .. series(ABSOLUTE | 0x30 | BYTE, 1, ("\1"):rep(180)))
      for k = 1, 180, 13 do assert.are.equal(later(year, 3, 1, k * 86400), got[k]) end
    end
  end)

  it("keep the day of the month where there is one", function()
    local function months(base, unit, vife) return times(base .. series(ABSOLUTE | unit << 4 | BYTE, 254, "\1\2\3", vife)) end
    assert.are.same({ "2024-02-29", "2024-03-31", "2024-04-30" }, months(date(2024, 1, 31), 3))
    assert.are.same({ "2023-12-31", "2023-11-30", "2023-10-31" }, months(date(2024, 1, 31), 3, "\x13"))
    assert.are.same({ "2024-04-30", "2024-07-31", "2024-10-31" }, months(date(2024, 1, 31), 2))
    assert.are.same({ "2024-02-29", "2024-08-31", "2025-02-28" }, months(date(2023, 8, 31), 1))
    assert.are.same({ "2024-12-15", "2025-01-15", "2025-02-15" }, months(date(2024, 11, 15), 3))
    assert.are.same({ "2025-01-01", "2025-02-01", "2025-03-01" }, months(date(2024, 12, 1), 3))
    assert.are.same({ "2023-12-01", "2023-11-01", "2023-10-01" }, months(date(2024, 1, 1), 3, "\x13"))
    assert.are.same({ "2024-11-30T12:34:00", "2024-12-30T12:34:00", "2025-01-30T12:34:00" }, months(datetime(2024, 10, 30, 12, 34), 3))
  end)

  it("step by half months", function()
    local function halves(base, vife) return times(base .. series(ABSOLUTE | 0x30 | BYTE, 253, "\1\2\3", vife)) end
    assert.are.same({ "2024-01-16", "2024-02-01", "2024-02-16" }, halves(date(2024, 1, 1)))
    assert.are.same({ "2024-02-01", "2024-02-16", "2024-03-01" }, halves(date(2024, 1, 16)))
    assert.are.same({ "2024-02-15", "2024-02-29", "2024-03-15" }, halves(date(2024, 1, 31)))
    assert.are.same({ "2024-01-30", "2024-02-15", "2024-02-29" }, halves(date(2024, 1, 15)))
    assert.are.same({ "2023-12-16", "2023-12-01", "2023-11-16" }, halves(date(2024, 1, 1), "\x13"))
    assert.are.same({ "2024-01-01", "2023-12-16", "2023-12-01" }, halves(date(2024, 1, 16), "\x13"))
  end)

  it("are not there where spacing or base is none", function()
    assert.are.same({}, times(date(2024, 1, 1) .. series(ABSOLUTE | 0x30 | BYTE, 0, "\1\2")))
    assert.are.same({}, times(date(2024, 1, 1) .. series(ABSOLUTE | BYTE, 254, "\1\2")))
    assert.are.same({}, times(date(2024, 1, 1) .. series(ABSOLUTE | 0x20 | BYTE, 253, "\1\2")))
    for _, spacing in ipairs { 251, 252, 255 } do assert.are.same({}, times(date(2024, 1, 1) .. series(ABSOLUTE | 0x30 | BYTE, spacing, "\1"))) end
    assert.are.same({}, times(series(ABSOLUTE | 0x30 | BYTE, 1, "\1")))
    assert.are.same({}, times("\x02\x6C\0\0" .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1"))) -- an unset date
    assert.are.same({}, times("\x42\x6C\x01\x31" .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1"))) -- of another storage
    assert.are.same({}, times("\x82\x40\x6C\x01\x31" .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1"))) -- of another subunit
    assert.are.same({}, times("\x02\xEC\x7E\x01\x31" .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1"))) -- the future date is another thing
    assert.are.same({}, times("\x02\xFD\x30\x01\x31" .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1"))) -- so is the start of a tariff
    assert.are.same({}, times("\x03\x6D\0\0\0" .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1"))) -- a time of day is no date
  end)

  it("are dates where neither base nor spacing has a clock", function()
    assert.are.same({ "2024-01-02" }, times(date(2024, 1, 1) .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1")))
    assert.are.same({ "2024-01-01T01:00:00" }, times(date(2024, 1, 1) .. series(ABSOLUTE | 0x20 | BYTE, 1, "\1")))
    assert.are.same({ "2024-01-11T10:00:00" }, times(date(2024, 1, 1) .. series(ABSOLUTE | 0x20 | BYTE, 250, "\1")))
    assert.are.same({ "2024-01-02T00:00:00" }, times(datetime(2024, 1, 1, 0, 0) .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1")))
    assert.are.same({ "2024-09-07T00:00:00" }, times(datetime(2024, 1, 1, 0, 0) .. series(ABSOLUTE | 0x30 | BYTE, 250, "\1")))
    assert.are.same({ "2024-04-01" }, times(date(2024, 1, 1) .. series(ABSOLUTE | 0x20 | BYTE, 254, "\1")))
  end)

  it("keep the seconds of a base of type I", function()
    assert.are.same({ "2024-02-29T13:46:30", "2024-02-29T13:47:30" },
      times(bytes "06 6D 1E 2D 0D 1D 32 00" .. series(ABSOLUTE | 0x10 | BYTE, 1, "\1\2")))
    assert.are.same({ "2024-02-29T00:59:59", "2024-02-29T01:00:00" },
      times(bytes "06 6D 3A 3B 00 1D 32 00" .. series(ABSOLUTE | BYTE, 1, "\1\2")))
    assert.are.same({ "2024-02-29T23:59:59", "2024-03-01T00:00:00" },
      times(bytes "06 6D 3A 3B 17 1D 32 00" .. series(ABSOLUTE | BYTE, 1, "\1\2")))
  end)

  it("count from the nearest base before the profile", function()
    assert.are.same({ "2024-05-02" }, times(date(2024, 1, 1) .. date(2024, 5, 1) .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1")))
    local t = core.telegram(core.long(0x08, 1, 0x78, date(2024, 1, 1) .. series(ABSOLUTE | 0x30 | BYTE, 1, "\1") .. date(2024, 5, 1)))
    assert.are.equal("2024-01-02", t:profile(1)[1].time)
  end)
end)

describe("the values of a profile", function()
  --- Values behind a base of 1000 litres (BCD 8), data of one byte each.
  local function values(control, data, vife, base)
    local list = {}
    for i, element in ipairs(assert(profile((base or "\x0C\x13\x00\x10\0\0") .. series(control, 0, data, vife)))) do
      list[i] = element[2] or "none"
    end
    return list
  end

  it("are absolute, rising, falling or signed differences", function()
    assert.are.same({ 0.001, 0.002, -0.001 }, values(0x01, "\1\2\xFF"))
    assert.are.same({ 1.001, 1.003, 1.257 }, values(0x41, "\1\2\xFE"))
    assert.are.same({ 0.999, 0.997, 0.743 }, values(0x81, "\1\2\xFE"))
    assert.are.same({ 1.001, 1.003, 1.001 }, values(0xC1, "\1\2\xFE"))
    assert.are.same({ 0.999, 0.997 }, values(0x41, "\1\2", "\x13"))
    assert.are.same({ 1.001, 1.003 }, values(0x81, "\1\2", "\x13"))
    assert.are.same({ 1.001, 1.003 }, values(0x41, "\1\2", "\x1E"))
    assert.are.same({ 0.999, 0.997, 0.999 }, values(0xC1, "\1\2\xFE", "\x13"))
    assert.are.same({ 1.012, 1.024 }, values(0x49, "\x12\x12")) -- BCD
    assert.are.same({ 1.258, 1.515 }, values(0x42, "\2\1\1\1"))
    assert.are.same({ -0.001, -0.003 }, values(0x81, "\1\2", nil, "\x0C\x13\0\0\0\0"))
    assert.are.same({ -0.009, -0.007 }, values(0x41, "\1\2", nil, "\x0C\x13\x10\0\0\xF0"))
    assert.are.same({ 0.99, 0.989 }, values(0xC9, "\xF9\xF1", nil, "\x0C\x13\x99\x09\0\0"))
  end)

  it("have the sign of the sum, not that of the step", function()
    local list = assert(core.telegram(core.long(0x08, 1, 0x78, bytes "0C 93 7F 00 10 00 00 0D 93 9F 7F 04 C9 00 F1 02")):profile(1))
    assert.are.same({ 0.999, "opaque", 1.001, "opaque" },
      { list[1].value, table.concat(list[1].flags, " "), list[2].value, table.concat(list[2].flags, " ") })
  end)

  it("need a base that is the same thing", function()
    local none = { "none", "none" }
    for _, base in ipairs { "\x4C\x13\x00\x10\0\0", "\x8C\x10\x13\x00\x10\0\0", "\x8C\x40\x13\x00\x10\0\0", "\x0C\x14\x00\x10\0\0", "\x0C\x3B\x00\x10\0\0",
      "\x0C\x93\x3C\x00\x10\0\0", "\x0C\x13\x00\xA0\0\0", "\x1C\x13\x00\x10\0\0", "\x05\x13\0\0\x80\x3F", "\x0C\x05\x00\x10\0\0" } do
      assert.are.same(none, values(0x41, "\1\2", nil, base), core.hex(base))
      assert.are.same({ 0.001, 0.002 }, values(0x01, "\1\2", nil, base), core.hex(base)) -- absolute ones need none
    end
    -- the temperature of the return is not that of the flow, although its unit is
    local temperatures = assert(profile(bytes "0A 5E 00 10 0D DA 1F 04 41 00 01 02"))
    assert.are.same({ 2 }, { #temperatures, temperatures[1][2], temperatures[2][2] })
    -- with the same VIFE it is the same thing again
    local list = assert(profile(bytes "0C 93 3C 00 10 00 00 0D 93 BC 1F 04 41 00 01 02"))
    assert.are.same({ 1.001, 1.003 }, { list[1][2], list[2][2] })
    list = assert(profile(bytes "0C 93 3C 00 10 00 00 0D 93 9F 3C 04 41 00 01 02"))
    assert.are.same({ 1.001, 1.003 }, { list[1][2], list[2][2] })
  end)

  it("end with a missing element", function()
    assert.are.same({ 1.001, "none", "none" }, values(0x41, "\1\xFF\1"))
    assert.are.same({ 0.001, "none", 0.001 }, values(0x01, "\1\x80\1"))
    assert.are.same({ "none" }, values(0x45, "\0\0\x80\x3F")) -- a sum of reals is none
  end)

  it("end where the sum leaves 64 bits", function()
    local base = "\x07\x13\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x1F" -- a quarter of all
    assert.are.same({ 2305843009213693.952, "none" }, values(0x41, "\1\1", nil, base))
    base = "\x07\x13\x01\0\0\0\0\0\0\xE0"
    assert.are.same({ -2305843009213693.952, "none" }, values(0x81, "\1\1", nil, base))
    assert.are.same({ "none" }, values(0x47, "\0\0\0\0\0\0\0\x20"))
    assert.are.same({ 2305843009213694.951 }, values(0x47, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x1F")) -- the largest step
  end)

  it("have storage numbers from that of the profile on", function()
    local list = assert(profile(bytes "8D 01 93 1E 05 01 00 01 02 03"))
    assert.are.same({ { 3, 0.001 }, { 4, 0.002 }, { 5, 0.003 } }, list)
  end)
end)

describe("a record", function()
  it("that is no profile is refused", function()
    local function code(text)
      local _, err = profile(bytes(text))
      return err.code
    end
    assert.are.equal("bad_value", code "01 13 05")
    assert.are.equal("bad_value", code "04 93 1F 01 02 03 04") -- a number, not a series
    assert.are.equal("premature_end_of_data", code "0D 93 1F 00")
    assert.are.equal("premature_end_of_data", code "0D 93 1F 01 01")
    for _, field in ipairs { 0, 8, 0xD, 0xF } do assert.are.equal("bad_value", code(("0D 93 1F 03 %02X 00 01"):format(field))) end
    assert.are.same({}, profile(bytes "0D 93 1F 02 01 00"))
    local list, t = profile(bytes "0D 93 1F 05 02 00 01 00 02") -- half an element at the end
    if list then assert.are.same({ { 1, 0.001 } }, { list[1] }) else assert.are.equal("premature_end_of_data", t.code) end
  end)
end)
