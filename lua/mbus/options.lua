---Options of a call. A misspelt one would be ignored, and what it was to do would not happen.
local M = {}

---@param options any   nil, or a table
---@param known table<string, any>  names of those that there are
---@param level integer of the caller, for `error`
---@return table options
function M.check(options, known, level)
  if options == nil then return {} end
  if type(options) ~= "table" then error("options are a table, not " .. type(options), level + 1) end
  for name in pairs(options) do
    if not known[name] then error("there is no option " .. tostring(name), level + 1) end
  end
  return options
end

return M
