---What functions of this project promise, as checks that raise.
local Error = require "mbus.error"

local M = {}

function M.that(condition, ...)
  if not condition then error(string.format(...), 2) end
  return condition
end

---`nil, err` with an Error that prints, or a result.
---@return any result
function M.result(value, err)
  if value ~= nil and value ~= false then return value end
  if not Error.is(err) then error("no result and no Error, but " .. tostring(err), 2) end
  if not Error.kinds[err.kind] then error("an unknown kind of error: " .. tostring(err.kind), 2) end
  if type(err.message) ~= "string" or err.message == "" then error("an error without a message", 2) end
  if err.offset and math.type(err.offset) ~= "integer" then error("an offset that is no integer", 2) end
  tostring(err)
  return nil
end

-- In one order, with no two alike: for comparison. Functions and userdata stand for themselves.
local function text_of(value, seen)
  if type(value) ~= "table" then return type(value) == "number" and ("%.17g"):format(value) or ("%q"):format(tostring(value)) end
  if seen[value] then return "..." end
  seen[value] = true
  local parts = {}
  for key, item in pairs(value) do parts[#parts + 1] = text_of(key, seen) .. "=" .. text_of(item, seen) end
  table.sort(parts)
  seen[value] = nil
  return "{" .. table.concat(parts, ",") .. "}"
end

function M.same(a, b, what)
  local first, second = text_of(a, {}), text_of(b, {})
  if first ~= second then error(("%s: %s is not %s"):format(what, second:sub(1, 300), first:sub(1, 300)), 2) end
end

return M
