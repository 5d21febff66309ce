---Checks tables that a user wrote against a schema: every wrong setting is named by its path, with what is allowed.
---
---    local problems = schema.problems()
---    local checked = schema.fields { name = { schema.text(), required = true } }(value, "connections[1]", problems)
---
---A checker takes (value, path, problems) and returns what is good of the value; what is not good is added to `problems`
---and left out, so that one look tells everything that is wrong.
local printable = require("mbus.format.text").printable

local M = {}

---@class mbus.gateway.Problem
---@field path string     "connections[2].bindings[1].address"
---@field message string  what is wrong, and what is allowed

local Problems = {}
Problems.__index = Problems

---@return table problems  array of mbus.gateway.Problem
function M.problems() return setmetatable({}, Problems) end

-- What a stranger wrote must not steer the terminal that it is shown on.
function Problems:add(path, message)
  self[#self + 1] = { path = printable(path), message = printable(message) }
end

---@param allowed string  "a whole number from 1 to 5 is needed"
function Problems:refuse(path, allowed, value)
  local got = ""
  if type(value) == "string" then
    got = (", not %q"):format(#value > 60 and value:sub(1, 57) .. "..." or value)
  elseif type(value) == "number" or type(value) == "boolean" then
    got = ", not " .. tostring(value)
  elseif value ~= nil then
    got = ", not a " .. type(value)
  end
  self:add(path, allowed .. got)
end

---@return boolean  something at or below this path is wrong
function Problems:concerns(path)
  for _, problem in ipairs(self) do
    local next_character = problem.path:sub(#path + 1, #path + 1)
    if problem.path:sub(1, #path) == path and next_character:find("^[%.%[]?$") then return true end
  end
  return false
end

local function finite(value) return type(value) == "number" and value == value and math.abs(value) < math.huge end

---@param least integer
---@param most integer
function M.integer(least, most)
  return function(value, path, problems)
    local whole = type(value) == "number" and math.tointeger(value)
    if whole and whole >= least and whole <= most then return whole end
    problems:refuse(path, ("a whole number from %d to %d is needed"):format(least, most), value)
  end
end

---@param least? number
---@param most? number
function M.number(least, most)
  local allowed = "a number is needed"
  if least and most then
    allowed = ("a number from %.14g to %.14g is needed"):format(least, most)
  elseif least then
    allowed = ("a number from %.14g is needed"):format(least)
  end
  return function(value, path, problems)
    if finite(value) and (not least or value >= least) and (not most or value <= most) then return value end
    problems:refuse(path, allowed, value)
  end
end

function M.flag(value, path, problems)
  if type(value) == "boolean" then return value end
  problems:refuse(path, "true or false is needed", value)
end

function M.callable(value, path, problems)
  if type(value) == "function" then return value end
  problems:refuse(path, "a function is needed", value)
end

local TEXT_MAX = 1000

-- JSON, tables and terminals take UTF-8 alone.
local function is_plain(value)
  return type(value) == "string" and #value <= TEXT_MAX and utf8.len(value) and not value:find("%c")
end

---@param pattern? string  that the text must match as a whole
---@param allowed? string  what to say otherwise
function M.text(pattern, allowed)
  allowed = allowed or "a text in UTF-8 without control characters is needed"
  return function(value, path, problems)
    if is_plain(value) and (not pattern or value:find(pattern)) then return value end
    problems:refuse(path, allowed, value)
  end
end

---@param allowed table  array of values
---@param aliases? table  other spellings
function M.choice(allowed, aliases)
  local names = {}
  for i, value in ipairs(allowed) do names[i] = tostring(value) end
  local text = "one of " .. table.concat(names, ", ") .. " is needed"
  return function(value, path, problems)
    local known = aliases and aliases[value]
    if known ~= nil then return known end
    for _, one in ipairs(allowed) do
      if value == one then return one end
    end
    problems:refuse(path, text, value)
  end
end

---A table that is what it holds: metamethods would be asked while it is checked, and could take as long as they like.
---@param value any
---@return boolean
function M.is_table(value) return type(value) == "table" and getmetatable(value) == nil end

---One item alone may stand for an array of one, where `single` recognises it.
---@param of function  checker of the items; gets (value, path, problems)
---@param single? fun(value: any): boolean
function M.array(of, single)
  return function(value, path, problems)
    if single and single(value) then value = { value } end
    if not M.is_table(value) then return problems:refuse(path, "an array is needed", value) end
    local checked = {}
    for i = 1, #value do
      local item_path = ("%s[%d]"):format(path, i)
      local before = #problems
      local item = of(value[i], item_path, problems)
      if item ~= nil and #problems == before then checked[#checked + 1] = item end
    end
    for key in pairs(value) do
      if math.type(key) ~= "integer" or key < 1 or key > #value then
        problems:add(path, ("an array has no field %q"):format(tostring(key)))
      end
    end
    return checked
  end
end

local function sorted_names(fields)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

local function join(path, name) return (path ~= "" and path .. "." or "") .. name end

---A table with fields. Each is { checker, default = value, required = true }, or the checker alone.
---@param fields table<string, table|function>
function M.fields(fields)
  local names = sorted_names(fields)
  return function(value, path, problems)
    if not M.is_table(value) then return problems:refuse(path, "a table is needed", value) end
    local checked = {}
    for name, item in pairs(value) do
      local field = fields[name]
      if not field then
        problems:add(join(path, tostring(name)), ("no such setting; allowed are %s"):format(names))
      else
        checked[name] = (type(field) == "table" and field[1] or field)(item, join(path, name), problems)
      end
    end
    for name, field in pairs(fields) do
      if value[name] == nil and type(field) == "table" then
        if field.required then problems:add(join(path, name), "is missing: " .. field.required) end
        checked[name] = field.default
      end
    end
    return checked
  end
end

return M
