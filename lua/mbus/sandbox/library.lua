---The libraries of scripts in `mbus.sandbox`: copies, none of whose functions can run for long.
---
---While C runs nobody looks at the limits. So what C goes through is paid for before; what asks metamethods or calls back at
---every step does so in Lua.
local limits = require "mbus.limits"
local pattern = require "mbus.sandbox.pattern"

-- No methods of strings in here: while a script runs they are the script's own.
local charge, weigh = limits.charge, limits.weigh
local find, format, gsub = string.find, string.format, string.gsub

local M = {}

local STEEP = 3e7 -- steps of a pattern, a part of a second

-- ------------------------------------------------------------------ arguments and errors

-- What table.sort does by itself, but in Lua: long strings take their time to compare.
local less = load("local a, b = ... return a < b", "=sort", "t", {})

-- Errors of C have no place when pcall has called it: it is the line of the script, two levels up since this is called last.
local function raise(message, is_theirs)
  if type(message) ~= "string" or is_theirs or message == "not enough memory" then error(message, 0) end
  error((gsub(message, "^sort:1: ", "")), 3)
end

local function relay(ok, ...)
  if ok then return ... end
  raise((...), type((...)) == "string" and find((...), "^[^\n]-:%d+: ") and not find((...), "^sort:1: "))
end

-- The same for what calls the script back, whose errors stay as they are.
local function relay_back(state, ok, ...)
  if ok then return ... end
  raise((...), state.inside)
end

local function outside(state, ...)
  state.inside = false
  return ...
end

-- A function of the script, for C: called from Lua, so that there is a look between any two calls whatever it is.
local function called_back(state, fn)
  return function(...)
    state.inside = true
    return outside(state, fn(...))
  end
end

---Checks an argument of a function that a script calls.
---@param name string
---@param value any
---@param wanted string  a type
---@param position integer
---@return any value
function M.plain(name, value, wanted, position)
  if type(value) == wanted or wanted == "string" and type(value) == "number" then return value end
  local got = value == nil and "no value" or type(value)
  error(format("bad argument #%d to '%s' (%s expected, got %s)", position, name, wanted, got), 3)
end
local plain = M.plain

-- For functions that go through strings which they do not copy.
local function weighed(fn)
  return function(...)
    weigh(...)
    return relay(pcall(fn, ...))
  end
end

M.tonumber = weighed(tonumber)

-- ------------------------------------------------------------------ strings

local strings = {}
for name, fn in pairs(string) do strings[name] = fn end
strings.dump = nil
for _, name in ipairs { "char", "format", "pack", "packsize", "unpack" } do strings[name] = weighed(string[name]) end

-- string.rep counts to `count` even where nothing is repeated.
function strings.rep(text, count, separator)
  plain("rep", text, "string", 1)
  if #tostring(text) + #tostring(separator or "") == 0 then return "" end
  return relay(pcall(string.rep, text, count, separator))
end

local function guard(text, wanted, everywhere)
  local cost = pattern.cost(text, wanted, everywhere, STEEP)
  if not cost then error("malformed pattern", 3) end
  if cost > STEEP then error("this pattern takes too long on a text of this length", 3) end
  charge(cost // 16)
end

-- string.find, match and gmatch.
local function searching(name, is_plain)
  local fn = string[name]
  return function(text, wanted, third, fourth)
    text, wanted = tostring(plain(name, text, "string", 1)), tostring(plain(name, wanted, "string", 2))
    if is_plain and fourth then
      charge(#text * (#wanted + 1) // 1024)
    else
      guard(text, wanted, name == "gmatch")
    end
    return relay(pcall(fn, text, wanted, third, fourth))
  end
end

strings.find, strings.match, strings.gmatch = searching("find", true), searching "match", searching "gmatch"

function strings.gsub(text, wanted, replacement, most)
  text, wanted = tostring(plain("gsub", text, "string", 1)), tostring(plain("gsub", wanted, "string", 2))
  guard(text, wanted)
  local state, by = {}, replacement
  if type(by) == "table" then by = function(key) return replacement[key] end end
  if type(by) == "function" then by = called_back(state, by) end
  return relay_back(state, pcall(string.gsub, text, wanted, by, most))
end

-- ------------------------------------------------------------------ tables

-- A metamethod may answer for what is not there, through two thousand tables each time. Where none can, C may go on alone.
local function is_bare(list) return debug.getmetatable(list) == nil end

local function copy(list, first, last)
  local result = {}
  for i = first, last do result[i - first + 1] = list[i] end
  return result
end

local function write_back(list, size, bare, ok, ...)
  if not ok then return relay(ok, ...) end
  for i = 1, math.max(size, #bare) do list[i] = bare[i] end
  return ...
end

-- Works on a bare copy of a list.
local function on_copy(fn, list, ...)
  local size = #list
  local bare = copy(list, 1, size)
  return write_back(list, size, bare, pcall(fn, bare, ...))
end

local tables = { pack = table.pack }

function tables.concat(list, separator, first, last)
  plain("concat", list, "table", 1)
  if is_bare(list) then return relay(pcall(table.concat, list, separator, first, last)) end
  first, last = plain("concat", first or 1, "number", 3), plain("concat", last or #list, "number", 4)
  return relay(pcall(table.concat, copy(list, first, last), separator, 1, last - first + 1))
end

function tables.insert(list, ...)
  plain("insert", list, "table", 1)
  if select("#", ...) == 1 then
    list[#list + 1] = (...)
  elseif is_bare(list) then
    charge(rawlen(list) // 4)
    return relay(pcall(table.insert, list, ...))
  else
    return on_copy(table.insert, list, ...)
  end
end

function tables.remove(list, ...)
  plain("remove", list, "table", 1)
  if not is_bare(list) then return on_copy(table.remove, list, ...) end
  if select("#", ...) > 0 then charge(rawlen(list) // 4) end
  return relay(pcall(table.remove, list, ...))
end

function tables.sort(list, comparison)
  plain("sort", list, "table", 1)
  local state = {}
  local before = comparison == nil and less or called_back(state, plain("sort", comparison, "function", 2))
  if is_bare(list) then return relay_back(state, pcall(table.sort, list, before)) end
  return on_copy(table.sort, list, before)
end

function tables.unpack(list, first, last)
  plain("unpack", list, "table", 1)
  first, last = plain("unpack", first or 1, "number", 2), plain("unpack", last or #list, "number", 3)
  if not is_bare(list) then return relay(pcall(table.unpack, copy(list, first, last), 1, last - first + 1)) end
  charge((last - first) / 16)
  return relay(pcall(table.unpack, list, first, last))
end

-- From the end where the places overlap.
local function move(from, first, last, at, to)
  if at > first and at <= last and rawequal(from, to) then
    for i = last - first, 0, -1 do to[at + i] = from[first + i] end
  else
    for i = 0, last - first do to[at + i] = from[first + i] end
  end
  return to
end

function tables.move(from, first, last, at, to)
  plain("move", from, "table", 1)
  plain("move", first, "number", 2)
  plain("move", last, "number", 3)
  plain("move", at, "number", 4)
  to = to == nil and from or plain("move", to, "table", 5)
  if not (is_bare(from) and is_bare(to)) then return move(from, first, last, at, to) end
  charge(math.max(0, (last - first) // 1))
  return relay(pcall(table.move, from, first, last, at, to))
end

-- ------------------------------------------------------------------ numbers and text

local numbers = {}
for name, value in pairs(math) do numbers[name] = value end
numbers.max, numbers.min = weighed(math.max), weighed(math.min)
numbers.randomseed = function() end -- the generator is the host's, too

local texts = {}
for name, value in pairs(utf8) do texts[name] = value end
for _, name in ipairs { "char", "len", "offset", "codepoint" } do texts[name] = weighed(utf8[name]) end

---@type table<string, table>
M.libraries = { string = strings, table = tables, math = numbers, utf8 = texts }

return M
