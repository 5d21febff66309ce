-- Dates against the calendar of the C library: what is valid, and what encoding computes (weekday, week, leap year).
local core = require "mbus.core"

---The record of one DIF, VIF and data.
local function record(dif, vif, data)
  return core.telegram(core.long(0x08, 1, 0x78, dif .. vif .. data)):record(0)
end

---Is this a day of the Gregorian calendar?
local function is_day(year, month, day)
  if month < 1 or month > 12 or day < 1 then return false end
  local back = os.date("*t", os.time { year = year, month = month, day = day, hour = 12 })
  return back.day == day and back.month == month
end

---Years of two digits (EN 13757-3, Annex A): up to 80 in this century, to 99 in the last; more mean nothing.
local function full_year(year) return year <= 80 and 2000 + year or year <= 99 and 1900 + year or nil end

local function date_octets(year, month, day)
  return string.char(day | (year & 7) << 5, month | (year >> 3) << 4)
end

describe("a date", function()
  it("of type G is valid where the calendar has it", function()
    for _, year in ipairs { 0, 1, 4, 24, 79, 80, 81, 84, 96, 99, 100, 126, 127 } do
      for month = 0, 15 do
        for day = 0, 31 do
          local r, full = record("\x02", "\x6C", date_octets(year, month, day)), full_year(year)
          local where = ("%d-%d-%d"):format(year, month, day)
          if full and is_day(full, month, day) then
            assert.are.equal(("%04d-%02d-%02d"):format(full, month, day), r.value, where)
          else
            assert.is_nil(r.value, where)
            assert.are.equal("date_invalid", r.flags[1], where)
          end
        end
      end
    end
  end)

  it("of type F has a hundred-year field", function()
    for hundreds = 0, 3 do
      for _, year in ipairs { 0, 12, 80, 81, 99 } do
        local r = record("\x04", "\x6D", "\x2D" .. string.char(0x0D | hundreds << 5) .. date_octets(year, 3, 28))
        local want = hundreds == 0 and full_year(year) or 1900 + 100 * hundreds + year
        assert.are.equal(("%04d-03-28T13:45:00"):format(want), r.value)
        assert.are.equal(hundreds > 0 or nil, r.hundred_years)
      end
      for _, year in ipairs { 100, 126, 127 } do
        assert.is_nil(record("\x04", "\x6D", "\x2D" .. string.char(0x0D | hundreds << 5) .. date_octets(year, 3, 28)).value)
      end
    end
    -- 1900 + 100 * 2 = 2100 is no leap year, 2000 is
    assert.is_nil(record("\x04", "\x6D", "\0\x40" .. date_octets(0, 2, 29)).value)
    assert.are.equal("2000-02-29T00:00:00", record("\x04", "\x6D", "\0\x20" .. date_octets(0, 2, 29)).value)
  end)

  it("of type I counts from 2000, and has no more than 99 years", function()
    for _, year in ipairs { 0, 80, 81, 99 } do
      local r = record("\x06", "\x6D", "\x1E\x2D\x0D" .. date_octets(year, 3, 28) .. "\0")
      assert.are.equal(("%04d-03-28T13:45:30"):format(2000 + year), r.value)
    end
    for _, year in ipairs { 100, 126, 127 } do
      assert.is_nil(record("\x06", "\x6D", "\x1E\x2D\x0D" .. date_octets(year, 3, 28) .. "\0").value)
    end
  end)
end)

describe("a time of day", function()
  --- Octets of minute and hour (and second) in types F, I and J.
  local function decoded(second, minute, hour)
    local s, m, h = string.char(second), string.char(minute), string.char(hour)
    return record("\x04", "\x6D", m .. h .. "\x1C\x33"), record("\x06", "\x6D", s .. m .. h .. "\x1C\x33\0"), record("\x03", "\x6D", s .. m .. h)
  end

  it("ends at 23:59:59", function()
    for _, case in ipairs { { 0, 0, 0 }, { 59, 59, 23 }, { 7, 30, 12 } } do
      local f, i, j = decoded(case[1], case[2], case[3])
      local clock = ("%02d:%02d:%02d"):format(case[3], case[2], case[1])
      assert.are.same({ "2024-03-28T" .. clock:sub(1, 5) .. ":00", "2024-03-28T" .. clock, clock }, { f.value, i.value, j.value })
    end
    for _, case in ipairs { { 0, 60, 0 }, { 0, 63, 0 }, { 0, 0, 24 }, { 0, 0, 31 } } do
      for _, r in ipairs { decoded(case[1], case[2], case[3]) } do
        assert.are.same({ nil, "date_invalid" }, { r.value, r.flags[1] })
      end
    end
    local _, i, j = decoded(60, 0, 0)
    assert.are.same({ nil, "date_invalid", nil, "date_invalid" }, { i.value, i.flags[1], j.value, j.flags[1] })
  end)

  it("has marks beside it", function()
    local function flags(dif, data) return table.concat(record(dif, "\x6D", data).flags, " ") end
    assert.are.equal("", flags("\x04", "\x6D\x0D\x1C\x33")) -- bit 6 of the minute is reserved
    assert.are.equal("time_invalid", flags("\x04", "\xAD\x0D\x1C\x33"))
    assert.are.equal("summer_time", flags("\x04", "\x2D\x8D\x1C\x33"))
    assert.are.equal("summer_time", flags("\x06", "\x5E\x2D\x0D\x1C\x33\0"))
    assert.are.equal("", flags("\x06", "\x9E\x6D\xED\x1C\x33\xFF"))
    assert.are.equal("", flags("\x06", "\xBB\x7B\xF7\x1C\x33\xFF")) -- odd ones too
    assert.are.equal("time_invalid", flags("\x06", "\x1E\xAD\x0D\x1C\x33\0"))
    assert.are.equal("13:45:30", record("\x03", "\x6D", "\xDE\xED\xED").value)
  end)

  it("shows its wildcards", function()
    assert.are.equal("*:*:*", record("\x03", "\x6D", "\x3F\x3F\x1F").text)
    assert.are.equal("*-*-*T*:*:00", record("\x04", "\x6D", "\x3F\x1F\xE0\xFF").text)
    assert.is_nil(record("\x02", "\x6C", "\0\0").text) -- not set
  end)
end)

describe("in mode 2, a date", function()
  it("has its octets turned round", function()
    local function value(data)
      return core.telegram(core.long(0x08, 1, 0x76, "\x12\x34\x56\x78\x40\x24\1\7\0\0\0\0" .. data)):record(0).value
    end
    assert.are.equal("2024-12-31", value "\x02\x6C\x3C\x1F")
    assert.are.equal("2024-02-29T13:45:00", value "\x04\x6D\x32\x1D\x0D\x2D")
    assert.are.equal("2024-02-29T13:45:30", value "\x06\x6D\x09\x32\x1D\x8D\x2D\x9E")
    assert.are.equal("13:45:30", value "\x03\x6D\x0D\x2D\x1E")
  end)
end)

describe("a written date", function()
  it("of type I has weekday, week and leap year of the calendar", function()
    for year = 2000, 2099 do
      local leap = is_day(year, 2, 29)
      for _, day in ipairs { { 1, 1 }, { 1, 2 }, { 1, 3 }, { 1, 4 }, { 1, 5 }, { 2, 28 }, { 2, 29 }, { 3, 1 }, { 4, 1 }, { 5, 1 }, { 6, 1 }, { 7, 1 },
        { 8, 1 }, { 9, 1 }, { 10, 1 }, { 11, 1 }, { 12, 1 }, { 12, 28 }, { 12, 29 }, { 12, 30 }, { 12, 31 } } do
        if is_day(year, day[1], day[2]) then
          local text = ("%04d-%02d-%02d"):format(year, day[1], day[2])
          local o = { core.record { quantity = "datetime", value = text .. "T13:45:30", data = "datetime48" }:byte(3, 8) }
          local week, weekday = os.date("%V %u", os.time { year = year, month = day[1], day = day[2], hour = 12 }):match "(%d+) (%d)"
          assert.are.same({ leap, 30, 45, 13, tonumber(weekday), tonumber(week) },
            { o[1] & 0x80 ~= 0, o[1] & 0x3F, o[2], o[3] & 0x1F, o[3] >> 5, o[6] }, text)
          assert.are.same({ day[2], day[1], year - 2000 }, { o[4] & 0x1F, o[5] & 0x0F, o[4] >> 5 | o[5] >> 4 << 3 })
        end
      end
    end
  end)

  local function written(value, data, more)
    local wanted = { quantity = "datetime", value = value, data = data }
    for key, item in pairs(more or {}) do wanted[key] = item end
    local good, text = pcall(core.record, wanted)
    return good and core.hex(text) or text
  end

  it("has the years that its type holds", function()
    assert.are.equal("02 6C 21 A1", core.hex(core.record { quantity = "date", value = "1981-01-01" }))
    assert.are.equal("02 6C 1F AC", core.hex(core.record { quantity = "date", value = "2080-12-31" }))
    assert.is_false(pcall(core.record, { quantity = "date", value = "1980-12-31" }))
    assert.is_false(pcall(core.record, { quantity = "date", value = "2081-01-01" }))
    assert.matches("1981 to 2299", written("1980-12-31T00:00", "datetime"))
    assert.matches("1981 to 2299", written("2300-01-01T00:00", "datetime"))
    assert.matches("2000 to 2099", written("1999-12-31T00:00:00", "datetime48"))
    assert.matches("2000 to 2099", written("2100-01-01T00:00:00", "datetime48"))
    for _, value in ipairs { "1981-01-01T00:00:00", "1999-12-31T23:59:00", "2000-01-01T00:00:00", "2080-12-31T23:59:00", "2081-01-01T00:00:00",
      "2100-03-01T12:00:00", "2199-12-31T23:59:00", "2299-12-31T23:59:00" } do
      local bytes = core.record { quantity = "datetime", value = value, data = "datetime" }
      assert.are.equal(value, core.telegram(core.long(0x08, 1, 0x78, bytes)):record(0).value)
    end
    assert.are.equal("04 6D 00 00 01 A1", written("2080-01-01T00:00", "datetime")) -- as meters did before the field was there
    assert.are.equal("04 6D 00 20 21 A1", written("2081-01-01T00:00", "datetime"))
    assert.are.equal("04 6D 00 20 01 01", written("2000-01-01T00:00", "datetime", { hundred_years = true }))
    assert.are.equal("04 6D 00 00 61 C1", written("1999-01-01T00:00", "datetime", { hundred_years = true }))
  end)

  it("is a date and a time that exist", function()
    for _, value in ipairs { "2024-00-01T00:00", "2024-13-01T00:00", "2024-01-00T00:00", "2024-01-32T00:00", "2024-01-01T24:00",
      "2024-01-01T00:60" } do
      assert.matches("not a", written(value, "datetime"))
    end
    assert.matches("not a time of day", written("00:00:60", "time"))
    assert.are.equal("03 6D 3B 3B 17", written("23:59:59", "time"))
    assert.are.equal("04 6D 3B 17 1F 3C", written("2024-12-31T23:59", "datetime"))
  end)
end)
