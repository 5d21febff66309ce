---A record's number as plain decimal text: no exponent, no digit lost, none invented.
local core = require "mbus.core"

local M = {}

---@param value number  finite
---@return string  the fewest digits that read back as `value`
function M.shortest(value)
  for digits = 15, 17 do
    local text = ("%." .. digits .. "g"):format(value)
    if tonumber(text) == value then return text end
  end
end

---"1.5e-07" as "0.00000015".
local function without_exponent(text)
  local sign, whole, fraction, exponent = text:match("^(-?)(%d+)%.?(%d*)e([-+]%d+)$")
  if not exponent then return text end
  local digits, point = whole .. fraction, #whole + tonumber(exponent)
  if point <= 0 then return sign .. "0." .. ("0"):rep(-point) .. digits end
  if point >= #digits then return sign .. digits .. ("0"):rep(point - #digits) end
  return sign .. digits:sub(1, point) .. "." .. digits:sub(point + 1)
end

---@param value number
---@return string  plain decimal text that reads back as `value`
function M.plain(value)
  if math.type(value) == "integer" then return ("%d"):format(value) end
  if value == 0 then return "0" end -- also the negative one
  return without_exponent(M.shortest(value))
end

---A result without what arithmetic has put behind its digits: 1.001 * 1000 is 1000.9999999999999.
---@param value number
---@param size? number  the largest number that it was made of, default itself
---@return number
function M.tidy(value, size)
  if math.type(value) ~= "float" or value ~= value or value == math.huge or value == -math.huge then return value end
  local short = tonumber(("%.15g"):format(value)) + 0.0 -- which stays a float
  return math.abs(short - value) <= 2.0 ^ -50 * math.max(math.abs(value), math.abs(size or 0)) and short or value
end

---@param record mbus.Record
---@return string? text  with all places that the meter sends ("22.0"); of a real32 those that tell it from its neighbours;
---nil: the record has no number, or no valid one
function M.text(record)
  if record.type ~= "number" or record.value == nil then return nil end
  return core.decimal(record) or M.plain(record.value)
end

return M
