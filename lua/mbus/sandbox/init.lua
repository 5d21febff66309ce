---A place for Lua that others wrote, configs and free-client scripts: Lua 5.4 without debug, os, coroutine, io, package,
---collectgarbage, dofile and require, with limits on instructions, processor time and memory.
---
---    local box = sandbox.new { instructions = 1000000, print = print }
---    local chunk, message = box:load(text, "script.lua")
---    local ok, result = box:run(chunk, ...)
---
---Nothing of the host is reachable from inside: libraries are copies, metatables are those that the script has set itself,
---and the methods of strings are the script's own `string` while it runs. mbus.limits holds the limits, and
---mbus.sandbox.library what C must not do for long. A metatable is copied when it is set: what it gets later has no effect.
local limits = require "mbus.limits"
local library = require "mbus.sandbox.library"

-- No methods of strings in what scripts call: while they run those are their own.
local charge, plain = limits.charge, library.plain
local find, format, sub = string.find, string.format, string.sub

local M = {}

local INSTRUCTIONS, SECONDS, MEMORY = 5000000, 2, 8 << 20

---@class mbus.Sandbox
---@field env table       globals of the script
---@field limits table    instructions, seconds, memory
---@field finalizers boolean
local Sandbox = {}
Sandbox.__index = Sandbox

local methods = debug.getmetatable("")

-- ------------------------------------------------------------------ base

local base = { tonumber = library.tonumber }
for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawlen", "rawset", "select",
  "tostring", "type" } do
  base[name] = _G[name]
end

-- What a metatable may say. Not __gc: a finalizer runs whenever the collector likes, where no limit holds.
local EVENTS = { "__add", "__band", "__bnot", "__bor", "__bxor", "__call", "__close", "__concat", "__div", "__eq", "__idiv",
  "__index", "__le", "__len", "__lt", "__metatable", "__mod", "__mode", "__mul", "__name", "__newindex", "__pairs", "__pow",
  "__shl", "__shr", "__sub", "__tostring", "__unm" }

local MINE = {} -- in a copy: what it was copied from

local function copy_of(metatable)
  if rawget(metatable, "__gc") ~= nil then error("__gc is not allowed here", 3) end
  local result = { [MINE] = metatable }
  for _, event in ipairs(EVENTS) do result[event] = rawget(metatable, event) end
  -- Each turn of what is called puts all its arguments one further.
  if result.__call ~= nil and type(result.__call) ~= "function" then error("__call is a function here", 3) end
  -- A chain from weak key to weak key takes the collector the square of its length.
  if result.__mode ~= nil and not find(tostring(result.__mode), "v", 1, true) then error("__mode is v or kv here", 3) end
  return result
end

-- All other metatables are none of a script's business.
local function is_own(metatable) return metatable ~= nil and rawget(metatable, MINE) ~= nil end

function base.getmetatable(value)
  local metatable = type(value) == "table" and debug.getmetatable(value) or nil
  if not is_own(metatable) then return nil end
  if metatable.__metatable ~= nil then return metatable.__metatable end
  return metatable[MINE]
end

function base.setmetatable(value, metatable)
  plain("setmetatable", value, "table", 1)
  if metatable ~= nil then plain("setmetatable", metatable, "table", 2) end
  local before = debug.getmetatable(value)
  if before and not (is_own(before) and before.__metatable == nil) then error("cannot change a protected metatable", 2) end
  return setmetatable(value, metatable and copy_of(metatable))
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

local PIECE = 128 -- bytes

-- Source for the compiler, in pieces: some of what can be written takes it the square of the length, and nobody looks meanwhile.
local function reader(text)
  local at = 1 - PIECE
  return function()
    at = at + PIECE
    charge(PIECE)
    return sub(text, at, at + PIECE - 1)
  end
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
    return load(reader(chunk), name == nil and "=(load)" or name, "t", environment)
  end
  function env.print(...)
    local parts = table.pack(...)
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    box.host(box.print, table.concat(parts, "\t"))
  end
end

local function environment(box)
  local env = {}
  for name, fn in pairs(base) do env[name] = fn end
  add_base(box, env)
  for name, content in pairs(library.libraries) do
    env[name] = {}
    for key, value in pairs(content) do env[name][key] = value end
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
  if what == "table" then
    return format("a table or the stack gets too long: more than %d KiB of memory: endless recursion?", most.memory // 1024 // 16)
  end
  return format("what it makes gets too long: more than %d KiB of memory", most.memory // 1024)
end

local HERE = debug.getinfo(1, "S").short_src:match("^(.-)[^/\\]*$")

-- Errors of a script may be anything; what it made itself is not asked for a text.
local function text_of(err)
  local metatable = type(err) == "table" and debug.getmetatable(err)
  if type(err) == "string" or type(err) == "number" or metatable and not is_own(metatable) then return tostring(err) end
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
  local ok, chunk, message = self:run(load, reader(text), "=" .. name, "t", self.env)
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
