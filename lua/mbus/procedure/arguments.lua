---What procedures check before they start. A wrong type is the caller's bug and raises; a wrong value may be what a user
---typed, and is `nil, err`.
local Address = require "mbus.address"
local Error = require "mbus.error"

local M = {}

---@param level integer  of the caller, for `error`
---@param value any
---@return mbus.Address? address
---@return mbus.Error? err
function M.address(level, value)
  if type(value) ~= "number" and type(value) ~= "string" then
    error("an address is a number or a string, not " .. type(value), level + 1)
  end
  return Address.parse(value)
end

---The same, and 255 for everybody.
---@param level integer
---@param value any
---@return mbus.Address? address
---@return mbus.Error? err
function M.address_or_all(level, value)
  if tonumber(value) == Address.BROADCAST and #tostring(value) <= 5 then
    return { a = Address.BROADCAST, text = Address.BROADCAST }
  end
  return M.address(level, value) -- a tail call: no level of its own
end

---@return nil
---@return mbus.Error err
function M.refuse(...) return nil, Error.new("invalid", string.format(...)) end

return M
