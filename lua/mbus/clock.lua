---Clocks of meters: local calendar times and their codes on the wire (EN 13757-3, types F and I). A time is a table
---{ year, month, day, hour, minute, second, summer_time }; nothing here knows a time zone.
local Error = require "mbus.error"

local M = {}

---@class mbus.Time
---@field year integer
---@field month integer
---@field day integer
---@field hour integer
---@field minute integer
---@field second integer
---@field summer_time? boolean  daylight saving is in effect: the hour is one more than standard time

local DAY = 86400
local MONTH_DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function is_leap(year) return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) end

local function days_in(year, month) return month == 2 and is_leap(year) and 29 or MONTH_DAYS[month] end

-- Days since 1970-01-01, counting years from March so that the leap day is the last.
local function days(year, month, day)
  local y = month > 2 and year or year - 1
  return 365 * y + y // 4 - y // 100 + y // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 719469
end

---Seconds since 1970-01-01T00:00:00 on the same clock: for differences.
---@param time mbus.Time
---@return integer
function M.seconds(time)
  return days(time.year, time.month, time.day) * DAY + time.hour * 3600 + time.minute * 60 + (time.second or 0)
end

---The time so many seconds after 1970-01-01T00:00:00.
---@param seconds number
---@return mbus.Time
function M.at(seconds)
  local whole = seconds // 1 | 0
  local rest, count = whole % DAY, whole // DAY + 719468
  local era = count // 146097
  local of_era = count % 146097
  local year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
  local of_year = of_era - (365 * year + year // 4 - year // 100)
  local month = (5 * of_year + 2) // 153
  local day = of_year - (153 * month + 2) // 5 + 1
  month = month < 10 and month + 3 or month - 9
  return { year = year + era * 400 + (month <= 2 and 1 or 0), month = month, day = day, hour = rest // 3600,
    minute = rest // 60 % 60, second = rest % 60 }
end

local function in_range(time)
  return time.month >= 1 and time.month <= 12 and time.day >= 1 and time.day <= days_in(time.year, time.month)
    and time.hour <= 23 and time.minute <= 59 and time.second <= 59
end

local FIELDS = { "year", "month", "day", "hour", "minute", "second" }

---Whether the clock of a meter can show it: a date and time that there is, in the years whose last two digits are not those
---of another one.
---@param time mbus.Time
---@return boolean
function M.is_settable(time)
  for _, name in ipairs(FIELDS) do
    if math.type(time[name]) ~= "integer" or time[name] < 0 then return false end
  end
  return in_range(time) and time.year >= 1981 and time.year <= 2080
end

---@param text string  "2024-02-29T13:45" or "2024-02-29 13:45:30"
---@return mbus.Time? time
---@return mbus.Error? err  kind `invalid`
function M.parse(text)
  local fields = table.pack(text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)[T ](%d%d):(%d%d):?(%d*)$"))
  if fields[1] and (#fields[6] == 2 or fields[6] == "" and not text:find(":$")) then
    local time = { year = fields[1], month = fields[2], day = fields[3], hour = fields[4], minute = fields[5],
      second = fields[6] == "" and "0" or fields[6] }
    for name, digits in pairs(time) do time[name] = math.tointeger(tonumber(digits)) end
    if in_range(time) then return time end
  end
  return nil, Error.new("invalid", ("bad time %q: a date and time such as 2024-02-29T13:45:30 is needed"):format(text))
end

---What `os.date "*t"` gives.
---@param date table
---@return mbus.Time
function M.from_date(date)
  return { year = date.year, month = date.month, day = date.day, hour = date.hour, minute = date.min,
    second = math.min(date.sec, 59), summer_time = date.isdst }
end

---@param time mbus.Time
---@return string  "2024-02-29T13:45:30"
function M.text(time)
  return ("%04d-%02d-%02dT%02d:%02d:%02d"):format(time.year, time.month, time.day, time.hour, time.minute, time.second)
end

---The same moment without daylight saving.
---@param time mbus.Time
---@return mbus.Time
function M.standard(time) return time.summer_time and M.at(M.seconds(time) - 3600) or time end

---Monday is 1.
---@param time mbus.Time
---@return integer
function M.weekday(time) return (days(time.year, time.month, time.day) + 3) % 7 + 1 end

---Week of ISO 8601.
---@param time mbus.Time
---@return integer
function M.week(time)
  local today = days(time.year, time.month, time.day)
  local thursday = today - (today + 3) % 7 + 3
  local year = M.at(thursday * DAY).year
  return (thursday - days(year, 1, 1)) // 7 + 1
end

local function date_octets(time)
  local year = time.year % 100
  return time.day | (year & 7) << 5, time.month | (year >> 3) << 4
end

---Type F: date and time to the minute, 32 bits.
---@param time mbus.Time
---@param hundred_years? boolean  write the century bits, which old meters take for reserved ones (default: 0, a receiver
---takes 00 to 80 for 2000 to 2080)
---@return string  4 bytes
function M.type_f(time, hundred_years)
  local third, fourth = date_octets(time)
  local century = hundred_years and (time.year // 100 - 19) & 3 or 0
  return string.char(time.minute, time.hour | (time.summer_time and 0x80 or 0) | century << 5, third, fourth)
end

---Type I: date and time to the second, 48 bits, with weekday, week, and the hour of daylight saving.
---@param time mbus.Time
---@return string  6 bytes
function M.type_i(time)
  local fourth, fifth = date_octets(time)
  local summer = time.summer_time
  return string.char(time.second | (summer and 0x40 or 0) | (is_leap(time.year) and 0x80 or 0),
    time.minute | (summer and 0x40 or 0), time.hour | M.weekday(time) << 5, fourth, fifth,
    M.week(time) | (summer and 0x40 or 0))
end

---A record that sets the clock.
---@param time mbus.Time
---@param kind "F"|"I"
---@param hundred_years? boolean
---@return string  DIF, VIF 6D, data
function M.record(time, kind, hundred_years)
  if kind == "I" then return "\x06\x6D" .. M.type_i(time) end
  return "\x04\x6D" .. M.type_f(time, hundred_years)
end

return M
