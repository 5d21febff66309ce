---Data records as people type them: "quantity=volume,value=12.5,unit=m3,data=bcd8", or hex digits.
local core = require "mbus.core"

local M = {}

---For the help of a command.
M.HELP = [[
A record is DIF, VIF and data in hex ("0C 13 00 00 00 00"), or names and
values: quantity, unit, value, data (int8 int16 int24 int32 int48 int64 bcd2
bcd4 bcd6 bcd8 bcd12 real32 text date datetime none), exponent, storage, tariff,
subunit, function, action, modifiers (a+b), vif (hex), raw.]]

local function text(value) return value end
local function number(value) return tonumber(value) end
local function whole(value) return math.tointeger(tonumber(value)) end
local function hex(value) return core.unhex(value) end

local function list(value)
  local names = {}
  for name in value:gmatch("[^+]+") do names[#names + 1] = name end
  return names
end

local FIELDS = { quantity = text, unit = text, value = text, data = text, exponent = whole, storage = whole, tariff = whole,
  subunit = whole, ["function"] = text, action = text, modifiers = list, vif = hex, raw = whole }

---@param typed string
---@return table|string|nil record  a table as mbus.encode.record takes it, or bytes
---@return string? message  what is wrong
function M.parse(typed)
  if not typed:find("=", 1, true) then
    local bytes = core.unhex(typed)
    if bytes and bytes ~= "" then return bytes end
    return nil, ("'%s' is no record: neither hex digits nor name=value,..."):format(typed)
  end
  local record = {}
  for part in typed:gmatch("[^,]+") do
    local name, value = part:match("^%s*([%a_]+)=(.-)%s*$")
    if not name or not FIELDS[name] then return nil, ("'%s': there is no field '%s' in a record"):format(typed, name or part) end
    if record[name] ~= nil then return nil, ("'%s': %s stands there twice"):format(typed, name) end
    local checked = FIELDS[name](value)
    if checked == nil then return nil, ("'%s': bad %s '%s'"):format(typed, name, value) end
    record[name] = checked
  end
  -- A value may be a number, a date or a text, which may look like a number.
  local value = record.value
  if value and record.data ~= "text" then record.value = whole(value) or number(value) or value end
  return record
end

---@param typed string[]
---@return (table|string)[]? records
---@return string? message
function M.parse_all(typed)
  local records = {}
  for i, one in ipairs(typed) do
    local record, message = M.parse(one)
    if not record then return nil, message end
    records[i] = record
  end
  return records
end

---Bytes of what was typed, so that what cannot be a record is told as the user's mistake.
---@param typed string[]
---@param data? string  data field of all
---@return string? bytes
---@return string? message
function M.encode(typed, data)
  local records, message = M.parse_all(typed)
  if not records then return nil, message end
  local ok, bytes = pcall(require("mbus.records").encode, 1, records, data)
  if ok then return bytes end
  return nil, (tostring(bytes):gsub("^[^:]*:%d+: ", ""))
end

return M
