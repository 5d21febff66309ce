---A place for Lua that others wrote, configs and free-client scripts: Lua 5.4 without debug, os, coroutine, io, package,
---collectgarbage, dofile and require, with limits on instructions, processor time and memory.
---
---    local box = sandbox.new { instructions = 1000000, print = print }
---    local chunk, message = box:load(text, "script.lua")
---    local ok, result = box:run(chunk, ...)
---
---Nothing of the host is reachable from inside: libraries are copies, metatables are those that the script has set itself,
---and the methods of strings are the script's own `string` while it runs. mbus.limits holds the limits; what is left to do
---here are the functions of C that would run for long without an instruction or a byte.
local limits = require "mbus.limits"
local pattern = require "mbus.sandbox.pattern"

-- No methods of strings in what scripts call: while they run those are their own.
local charge = limits.charge
local find, format = string.find, string.format

local M = {}

local INSTRUCTIONS, SECONDS, MEMORY = 5000000, 2, 8 << 20
local STEEP = 3e7 -- steps of a pattern, a part of a second
local SCANNED = 64 -- bytes that C looks at in the time of one instruction

---@class mbus.Sandbox
---@field env table       globals of the script
---@field limits table    instructions, seconds, memory
---@field finalizers boolean
local Sandbox = {}
Sandbox.__index = Sandbox

local methods = debug.getmetatable("")

-- ------------------------------------------------------------------ base

local function plain(name, value, wanted, position)
  if type(value) == wanted or wanted == "string" and type(value) == "number" then return value end
  local got = value == nil and "no value" or type(value)
  error(format("bad argument #%d to '%s' (%s expected, got %s)", position, name, wanted, got), 3)
end

local own = setmetatable({}, { __mode = "k" }) -- metatables of scripts: all others are none of their business

local base = {}
for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawlen", "rawset", "select",
  "tostring", "type" } do
  base[name] = _G[name]
end

-- These go through a text that they do not copy.
local function charged(fn)
  return function(text, ...)
    if type(text) == "string" then charge(#text // SCANNED) end
    return fn(text, ...)
  end
end

base.tonumber = charged(tonumber)

function base.getmetatable(value)
  local metatable = type(value) == "table" and debug.getmetatable(value)
  if not metatable or not own[metatable] then return nil end
  return getmetatable(value)
end

function base.setmetatable(value, metatable)
  plain("setmetatable", value, "table", 1)
  if metatable ~= nil then plain("setmetatable", metatable, "table", 2) end
  -- A finalizer runs whenever the collector likes, where no limit holds.
  if metatable and rawget(metatable, "__gc") ~= nil then error("__gc is not allowed here", 2) end
  if debug.getmetatable(value) and not own[debug.getmetatable(value)] then error("cannot change a protected metatable", 2) end
  setmetatable(value, metatable)
  if metatable then own[metatable] = true end
  return value
end

-- A message handler of C's xpcall would run where the hook does not reach.
function base.xpcall(fn, handler, ...)
  local results = table.pack(pcall(fn, ...))
  if results[1] then return table.unpack(results, 1, results.n) end
  return false, handler(results[2])
end

local function pieces(read)
  local parts = {}
  repeat
    local part = read()
    parts[#parts + 1] = part ~= nil and plain("load", part, "string", 1) or nil
  until part == nil or part == ""
  return table.concat(parts)
end

-- What belongs to one box.
local function add_base(box, env)
  env._G, env._VERSION = env, _VERSION
  function env.load(chunk, name, mode, ...)
    local environment = env
    if select("#", ...) > 0 then environment = (...) end
    if mode ~= nil and not find(tostring(mode), "t", 1, true) then
      return nil, format("attempt to load a text chunk (mode is '%s')", tostring(mode))
    end
    if type(chunk) == "function" then chunk = pieces(chunk) end
    chunk = tostring(plain("load", chunk, "string", 1))
    charge(#chunk)
    return load(chunk, name == nil and "=(load)" or name, "t", environment)
  end
  function env.print(...)
    local parts = table.pack(...)
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    box.host(box.print, table.concat(parts, "\t"))
  end
end

-- ------------------------------------------------------------------ strings

local strings = {}
for name, fn in pairs(string) do strings[name] = fn end
strings.dump = nil

-- string.rep counts to `count` even where nothing is repeated.
function strings.rep(text, count, separator)
  plain("rep", text, "string", 1)
  if #tostring(text) + #tostring(separator or "") == 0 then return "" end
  return string.rep(text, count, separator)
end

local function guard(text, wanted, everywhere)
  local cost = pattern.cost(text, wanted, everywhere)
  if not cost then error("malformed pattern", 3) end
  if cost > STEEP then error("this pattern takes too long on a text of this length", 3) end
  charge(cost // 16)
end

for _, name in ipairs { "find", "match", "gmatch", "gsub" } do
  local fn = string[name]
  strings[name] = function(text, wanted, third, fourth, ...)
    text, wanted = tostring(plain(name, text, "string", 1)), tostring(plain(name, wanted, "string", 2))
    if name == "find" and fourth then
      charge(#text * (#wanted + 1) // 1024)
    else
      guard(text, wanted, name == "gmatch")
    end
    return fn(text, wanted, third, fourth, ...)
  end
end

for _, name in ipairs { "unpack", "packsize", "format" } do strings[name] = charged(string[name]) end

-- ------------------------------------------------------------------ tables

-- Loops of C over a table run as long as its length says, and a metamethod can say anything.
local function honest(name, value)
  plain(name, value, "table", 1)
  local metatable = debug.getmetatable(value)
  if metatable and rawget(metatable, "__len") ~= nil then error(name .. ": not for a table with __len", 3) end
  return value
end

local tables = { pack = table.pack, concat = table.concat }

function tables.insert(list, ...)
  honest("insert", list)
  if select("#", ...) > 1 then charge(rawlen(list) // 4) end
  return table.insert(list, ...)
end

function tables.remove(list, ...)
  honest("remove", list)
  if select("#", ...) > 0 then charge(rawlen(list) // 4) end
  return table.remove(list, ...)
end

-- Long strings take their time to compare: there is a look between any two if the comparison is Lua.
local less = load("local a, b = ... return a < b", "=sort")

function tables.sort(list, comparison)
  honest("sort", list)
  return table.sort(list, comparison == nil and less or comparison)
end

function tables.unpack(list, first, last)
  local from, to = first or 1, last or type(list) == "table" and rawlen(list)
  if type(from) == "number" and type(to) == "number" then charge((to - from) / 16) end
  return table.unpack(list, first, last)
end

function tables.move(from, first, last, at, to)
  charge(math.max(0, (last - first) // 1))
  return table.move(from, first, last, at, to)
end

-- ------------------------------------------------------------------ numbers and text

local numbers = {}
for name, value in pairs(math) do numbers[name] = value end
numbers.randomseed = function() end -- the generator is the host's, too

local texts = {}
for name, value in pairs(utf8) do texts[name] = value end
for _, name in ipairs { "len", "offset", "codepoint" } do texts[name] = charged(utf8[name]) end

local LIBRARIES = { string = strings, table = tables, math = numbers, utf8 = texts }

local function environment(box)
  local env = {}
  for name, fn in pairs(base) do env[name] = fn end
  add_base(box, env)
  for library, content in pairs(LIBRARIES) do
    env[library] = {}
    for name, value in pairs(content) do env[library][name] = value end
  end
  return env
end

-- ------------------------------------------------------------------ what a script holds from call to call

local function size_of(value, push)
  local kind = type(value)
  if kind == "string" then return #value + 24 end
  if kind == "table" then
    local size = 56
    for key, item in next, value do
      size = size + 40
      push(key)
      push(item)
    end
    push(debug.getmetatable(value))
    return size
  end
  local size, i = 40, 1
  while true do
    local name, upvalue = debug.getupvalue(value, i)
    if not name then return size end
    push(upvalue)
    size, i = size + 40, i + 1
  end
end

-- Bytes that can be reached from these roots, without what is ours.
local function measure(box, roots)
  local seen, waiting, total = {}, {}, 0
  local function push(value)
    local kind = type(value)
    if (kind == "table" or kind == "function" or kind == "string") and not seen[value] and not box.ours[value] then
      seen[value] = true
      waiting[#waiting + 1] = value
    end
  end
  for _, root in ipairs(roots) do push(root) end
  while #waiting > 0 do total = total + size_of(table.remove(waiting), push) end
  return total
end

local function note_ours(box)
  box.ours = setmetatable({}, { __mode = "k" })
  for _, value in pairs(box.env) do
    if type(value) == "function" then box.ours[value] = true end
    if type(value) == "table" and value ~= box.env then
      for _, item in pairs(value) do
        if type(item) == "function" then box.ours[item] = true end
      end
    end
  end
end

-- ------------------------------------------------------------------ running

local function exceeded(box, what)
  local most = box.limits
  if what == "instructions" then
    return format("it takes too long: more than %.14g instructions in one call: endless loop?", most.instructions)
  end
  if what == "seconds" then return format("it takes too long: more than %g s of processor time in one call", most.seconds) end
  return format("what it makes gets too long: more than %d KiB of memory", most.memory // 1024)
end

local HERE = debug.getinfo(1, "S").short_src:match("^(.-)[^/\\]*$")

-- Errors of a script may be anything; what it made itself is not asked for a text.
local function text_of(err)
  local metatable = type(err) == "table" and debug.getmetatable(err)
  if type(err) == "string" or type(err) == "number" or metatable and not own[metatable] then return tostring(err) end
  return ("an error that is no text, but a %s"):format(type(err))
end

local function judge(box, ok, ...)
  if ok then return true, ... end
  local err, what = ...
  if err == "not enough memory" then err, what = "", "memory" end -- of a buffer in C
  if not what then return false, text_of(err) end
  return false, (err:find(HERE, 1, true) and "" or err) .. exceeded(box, what)
end

-- `index`: the methods of strings as they were before.
local function finish(box, index, before, collects, ok, ...)
  methods.__index, box.index = box.index, index
  box.grown = box.grown + math.max(0, collectgarbage("count") * 1024 - before)
  if collects then collectgarbage("restart") end
  if not ok then error(..., 0) end
  return judge(box, ...)
end

---Calls a function of the script. It cannot yield.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...  results, or the error as text
function Sandbox:run(fn, ...)
  local most, index = self.limits, self.index
  -- Finalizers of the host would meet the methods of the script.
  local collects = not self.finalizers and collectgarbage("isrunning")
  if collects then collectgarbage("stop") end
  local before = collectgarbage("count") * 1024
  self.index, methods.__index = methods.__index, rawget(self.env, "string")
  return finish(self, index, before, collects, pcall(limits.call, most.instructions, most.seconds, most.memory, fn, ...))
end

---Whether the script keeps more than it may, call after call.
---@param ... any  what it can reach besides its globals
---@return string? reason
function Sandbox:hoards(...)
  if self.grown <= self.limits.memory then return nil end
  self.grown = measure(self, { self.env, ... })
  if self.grown > self.limits.memory then return exceeded(self, "memory") end
end

---Adds something to what the script sees. Functions run as the host's, outside of the limits.
---@param name string
---@param value any
function Sandbox:provide(name, value)
  local function wrapped(fn)
    local inner = function(...) return self.host(fn, ...) end
    self.ours[inner] = true
    return inner
  end
  if type(value) == "table" then
    local copy = {}
    for key, item in pairs(value) do copy[key] = type(item) == "function" and wrapped(item) or item end
    value = copy
  elseif type(value) == "function" then
    value = wrapped(value)
  end
  self.env[name] = value
end

---@param text string  source; no bytecode
---@param name string  for messages
---@return function? chunk
---@return string? message  with the line
function Sandbox:load(text, name)
  text = text:gsub("^\xEF\xBB\xBF", ""):gsub("^#[^\n]*", "")
  local ok, chunk, message = self:run(load, text, "=" .. name, "t", self.env)
  if not ok then return nil, format("%s: %s", name, chunk) end
  return chunk, message
end

-- Is called last by everything between it and the script, so that level 2 is the line of the script.
local function return_to_script(box, ...)
  methods.__index = rawget(box.env, "string") -- raw: _G may have got a metatable
  if not (...) then error((select(2, ...)), 2) end
  return select(2, ...)
end

---@param options? table  instructions, seconds (of the processor), memory (bytes), print = fun(text);
---  finalizers = true: the collector may run in there, for those who are trusted not to lay hands on the methods of strings
---@return mbus.Sandbox
function M.new(options)
  options = options or {}
  local box = setmetatable({
    limits = { instructions = options.instructions or INSTRUCTIONS, seconds = options.seconds or SECONDS,
      memory = math.tointeger(options.memory or MEMORY) },
    print = options.print or function() end, finalizers = options.finalizers or false, grown = 0,
  }, Sandbox)
  -- Code of the host runs with the methods that strings have everywhere else.
  box.host = function(fn, ...)
    methods.__index = box.index
    return return_to_script(box, limits.outside(fn, ...))
  end
  box.env = environment(box)
  note_ours(box)
  return box
end

return M
