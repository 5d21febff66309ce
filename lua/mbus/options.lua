---Options of a call. A misspelt one would be ignored, and what it was to prevent would happen.
local M = {}

---@param options any   nil, or a table
---@param known table<string, any>  those that there are: a function that says what is wrong with a value, or anything else
---@param level integer of the caller, for `error`
---@param others? table<string, any>  further ones
---@return table options
function M.check(options, known, level, others)
  if options == nil then return {} end
  if type(options) ~= "table" then error("options are a table, not " .. type(options), level + 1) end
  for name, value in pairs(options) do
    local rule = known[name] or others and others[name]
    if not rule then error("there is no option " .. tostring(name), level + 1) end
    local wrong = type(rule) == "function" and rule(value)
    if wrong then error(("option %s: %s"):format(name, wrong), level + 1) end
  end
  return options
end

---@return string? wrong
function M.boolean(value)
  if type(value) ~= "boolean" then return "true or false expected" end
end

---Keys of encrypted meters.
---@return string? wrong
function M.keys(value)
  if type(value) ~= "string" and type(value) ~= "table" and type(value) ~= "function" then
    return "a key, a table of keys, or a function expected"
  end
end

return M
