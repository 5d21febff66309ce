---A place for scripts of strangers: Lua 5.4 without debug, os, coroutine, io, package, collectgarbage, dofile and require,
---with limits on instructions, processor time and memory.
---
---    local box = sandbox.new { instructions = 1000000, print = print }
---    local chunk, message = box:load(text, "script.lua")
---    local ok, result = box:run(chunk, ...)
---
---Nothing of the host is reachable from inside: libraries are copies, metatables are those that the script has set itself,
---and the methods of strings are the script's own `string` while it runs. What remains: memory is looked at after every few
---instructions, so that one expression that joins many long strings can go beyond the limit before it is stopped.
local pattern = require "mbus.freeclient.pattern"

-- No methods of strings in what scripts call: while they run those are their own.
local find, format, gmatch, gsub = string.find, string.format, string.gmatch, string.gsub

local M = {}

local STEP = 8            -- instructions between two looks: memory can double in three
local LOOKS = 32          -- looks between two at the clock
local INSTRUCTIONS, SECONDS, MEMORY = 5000000, 2, 8 << 20
local STEEP = 3e7         -- steps of a pattern, a part of a second

---@class mbus.freeclient.Sandbox
---@field env table    globals of the script
---@field limits table  instructions, seconds, memory
---@field stopped? string  which limit the last run broke
local Sandbox = {}
Sandbox.__index = Sandbox

-- Thrown through everything that would catch it.
local function stop(box, reason)
  box.stopped = box.stopped or reason
  error(box.stopped, 0)
end

local function charge(box, instructions)
  box.used = box.used + instructions
  if box.used > box.limits.instructions then
    stop(box, format("more than %d instructions in one call: endless loop?", box.limits.instructions))
  end
end

local function room(box) return box.limits.memory - (collectgarbage("count") * 1024 - box.base) end

local function too_large(box)
  return format("more than %d KiB of memory", box.limits.memory // 1024)
end

local methods = debug.getmetatable("")

-- Finalizers of the host run in here, and must not meet the methods of the script.
local function collect(box)
  local index = methods.__index
  methods.__index = box.index
  collectgarbage()
  methods.__index = index
end

-- Before one call of C makes something large.
local function reserve(box, bytes)
  if bytes <= room(box) then return end
  collect(box)
  if bytes > room(box) then stop(box, too_large(box)) end
end

-- ------------------------------------------------------------------ base

local function plain(name, value, wanted, position)
  if type(value) == wanted or wanted == "string" and type(value) == "number" then return value end
  local got = value == nil and "no value" or type(value)
  error(format("bad argument #%d to '%s' (%s expected, got %s)", position, name, wanted, got), 3)
end

local function caught(box, ...)
  if box.stopped then error(box.stopped, 0) end
  return ...
end

local function base_library(box, env)
  local own = setmetatable({}, { __mode = "k" }) -- metatables of the script: all others are none of its business
  for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "rawequal", "rawget", "rawlen", "rawset", "select",
    "tonumber", "tostring", "type" } do
    env[name] = _G[name]
  end
  env._G, env._VERSION = env, _VERSION
  function env.getmetatable(value)
    local metatable = type(value) == "table" and debug.getmetatable(value)
    if not metatable or not own[metatable] then return nil end
    return getmetatable(value)
  end
  function env.setmetatable(value, metatable)
    plain("setmetatable", value, "table", 1)
    if metatable ~= nil then plain("setmetatable", metatable, "table", 2) end
    -- A finalizer runs whenever the collector likes, where no limit holds.
    if metatable and rawget(metatable, "__gc") ~= nil then error("__gc is not allowed here", 2) end
    if debug.getmetatable(value) and not own[debug.getmetatable(value)] then error("cannot change a protected metatable", 2) end
    setmetatable(value, metatable)
    if metatable then own[metatable] = true end
    return value
  end
  function env.pcall(...) return caught(box, pcall(...)) end
  -- A message handler of C's xpcall would run where the limits do not reach.
  function env.xpcall(fn, handler, ...)
    local results = table.pack(caught(box, pcall(fn, ...)))
    if results[1] then return table.unpack(results, 1, results.n) end
    return false, handler(results[2])
  end
  function env.load(chunk, name, mode, ...)
    local environment = env
    if select("#", ...) > 0 then environment = (...) end
    if mode ~= nil and not find(tostring(mode), "t", 1, true) then
      return nil, format("attempt to load a text chunk (mode is '%s')", tostring(mode))
    end
    if type(chunk) == "function" then
      local parts, read = {}, chunk
      repeat
        local part = read()
        parts[#parts + 1] = part ~= nil and plain("load", part, "string", 1) or nil
      until part == nil or part == ""
      chunk = table.concat(parts)
    end
    chunk = tostring(plain("load", chunk, "string", 1))
    charge(box, #chunk)
    return load(chunk, name == nil and "=(load)" or name, "t", environment)
  end
  function env.print(...)
    local parts = table.pack(...)
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    box.host(box.print, table.concat(parts, "\t"))
  end
end

-- ------------------------------------------------------------------ strings

local function guard(box, text, wanted, everywhere)
  local cost = pattern.cost(text, wanted, everywhere)
  if not cost then error("malformed pattern", 3) end
  if cost > STEEP then error("this pattern takes too long on a text of this length", 3) end
  charge(box, cost // 16)
end

-- What a string of gsub can become, at most.
local function replaced_size(text, replacement)
  local _, references = gsub(replacement, "%%%d", "")
  return (#text + 1) * (#replacement + 20 * references) + references * #text
end

-- Counts what a table or a function gives to gsub.
local function counted(box, replacement)
  local size = 0
  return function(...)
    local value
    if type(replacement) == "table" then value = replacement[(...)] else value = replacement(...) end
    if type(value) == "string" then
      size = size + #value
      reserve(box, size)
    end
    return value
  end
end

local function string_library(box, env)
  local library = {}
  for name, fn in pairs(string) do library[name] = fn end
  library.dump = nil
  function library.rep(text, count, separator)
    text, count = plain("rep", text, "string", 1), math.tointeger(count) or plain("rep", count, "number", 2)
    local size = #tostring(text) + #tostring(separator or "")
    if size == 0 then return "" end -- string.rep counts to `count` even so
    reserve(box, size * (count + 0.0))
    return string.rep(text, count, separator)
  end
  for _, name in ipairs { "find", "match", "gmatch" } do
    local fn = string[name]
    library[name] = function(text, wanted, init, literal)
      text, wanted = tostring(plain(name, text, "string", 1)), tostring(plain(name, wanted, "string", 2))
      if name == "find" and literal then
        charge(box, #text * (#wanted + 1) // 1024)
      else
        guard(box, text, wanted, name == "gmatch")
      end
      return fn(text, wanted, init, literal)
    end
  end
  function library.gsub(text, wanted, replacement, count)
    text, wanted = tostring(plain("gsub", text, "string", 1)), tostring(plain("gsub", wanted, "string", 2))
    guard(box, text, wanted)
    if type(replacement) == "table" or type(replacement) == "function" then
      return string.gsub(text, wanted, counted(box, replacement), count)
    end
    reserve(box, replaced_size(text, tostring(plain("gsub", replacement, "string", 3))))
    return string.gsub(text, wanted, replacement, count)
  end
  function library.format(text, ...)
    local values, size = table.pack(...), 0
    for i = 1, values.n do
      if type(values[i]) == "table" then values[i] = tostring(values[i]) end
      if type(values[i]) == "string" then size = size + #values[i] end
    end
    reserve(box, 4 * size + 120 * #tostring(plain("format", text, "string", 1)))
    return string.format(text, table.unpack(values, 1, values.n))
  end
  function library.pack(layout, ...)
    local size = 0
    for digits in gmatch(tostring(plain("pack", layout, "string", 1)), "c(%d+)") do size = size + tonumber(digits) end
    reserve(box, size)
    return string.pack(layout, ...)
  end
  env.string = library
end

-- ------------------------------------------------------------------ tables

-- Loops of C over a table run as long as its length says, and a metamethod can say anything.
local function honest(name, value)
  plain(name, value, "table", 1)
  local metatable = debug.getmetatable(value)
  if metatable and rawget(metatable, "__len") ~= nil then error(name .. ": not for a table with __len", 3) end
  return value
end

local function table_library(box, env)
  local library = { pack = table.pack }
  function library.insert(list, ...)
    honest("insert", list)
    if select("#", ...) > 1 then charge(box, rawlen(list) // 4) end
    return table.insert(list, ...)
  end
  function library.remove(list, ...)
    honest("remove", list)
    if select("#", ...) > 0 then charge(box, rawlen(list) // 4) end
    return table.remove(list, ...)
  end
  function library.sort(list, ...)
    charge(box, rawlen(honest("sort", list)) * 4)
    return table.sort(list, ...)
  end
  function library.unpack(list, ...)
    if type(list) == "table" then honest("unpack", list) end
    return table.unpack(list, ...)
  end
  function library.move(from, first, last, at, to)
    charge(box, math.max(0, (last - first) // 1))
    return table.move(from, first, last, at, to)
  end
  function library.concat(list, separator, first, last)
    honest("concat", list)
    first, last = first or 1, last or rawlen(list)
    local size = 0
    for i = first, last do
      local item = list[i]
      if type(item) ~= "string" and type(item) ~= "number" then break end -- which table.concat refuses
      size = size + #tostring(item) + #tostring(separator or "")
    end
    reserve(box, size)
    return table.concat(list, separator, first, last)
  end
  env.table = library
end

local function other_libraries(env)
  for _, name in ipairs { "math", "utf8" } do
    env[name] = {}
    for key, value in pairs(_G[name]) do env[name][key] = value end
  end
  env.math.randomseed = function() end -- the generator is the host's, too
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

local function note_ours(box, env)
  box.ours = setmetatable({}, { __mode = "k" })
  for _, value in pairs(env) do
    if type(value) == "function" then box.ours[value] = true end
    if type(value) == "table" and value ~= env then
      for _, item in pairs(value) do
        if type(item) == "function" then box.ours[item] = true end
      end
    end
  end
end

-- ------------------------------------------------------------------ running

local function watch(box, thread)
  local looks = 0
  debug.sethook(thread, function()
    -- Once a limit is broken every single instruction fails, whoever catches what.
    if box.stopped then stop(box) end
    charge(box, STEP)
    if room(box) < 0 then reserve(box, 0) end
    looks = looks + 1
    if looks % LOOKS == 0 and os.clock() > box.deadline then
      stop(box, format("more than %g s of processor time in one call", box.limits.seconds))
    end
  end, "", STEP)
end

-- Errors of a script may be anything; a text is what can be shown without asking it.
local function text_of(err)
  if type(err) == "string" or type(err) == "number" then return tostring(err) end
  return ("an error that is no text, but a %s"):format(type(err))
end

local function judge(box, ok, ...)
  if box.stopped then return false, box.stopped end
  if ok ~= true then return false, text_of((...)) end
  return true, ...
end

---Calls a function of the script.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...  results, or the error as text
function Sandbox:run(fn, ...)
  if self.inside then error("the script runs already", 2) end
  local collects = collectgarbage("isrunning")
  self.inside, self.used, self.stopped, self.index = true, 0.0, nil, methods.__index
  self.deadline = os.clock() + self.limits.seconds
  -- A thread of its own has a hook of its own, so that we never meet it. The call is protected in there, since a hook that
  -- fails leaves a dead thread in which no hook would watch over what closes variables.
  local thread = coroutine.create(pcall)
  watch(self, thread)
  collectgarbage("stop") -- see `collect`
  self.base = collectgarbage("count") * 1024
  methods.__index = rawget(self.env, "string")
  local results = table.pack(coroutine.resume(thread, fn, ...))
  methods.__index, self.inside = self.index, false
  self.grown = self.grown + math.max(0, self.limits.memory - room(self))
  if collects then collectgarbage("restart") end
  return judge(self, table.unpack(results, 2, results.n))
end

---Whether the script keeps more than it may, call after call.
---@param ... any  what it can reach besides its globals
---@return string? reason
function Sandbox:hoards(...)
  if self.grown <= self.limits.memory then return nil end
  self.grown = measure(self, { self.env, ... })
  if self.grown > self.limits.memory then return too_large(self) end
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
  return load(text, "=" .. name, "t", self.env)
end

-- Is called last by everything between it and the script, so that level 2 is the line of the script.
local function return_to_script(box, ...)
  methods.__index = rawget(box.env, "string") -- raw: _G may have got a metatable
  if box.stopped then error(box.stopped, 0) end
  if not (...) then error((select(2, ...)), 2) end
  return select(2, ...)
end

---@param options? table  instructions, seconds (of the processor), memory (bytes), print = fun(text)
---@return mbus.freeclient.Sandbox
function M.new(options)
  options = options or {}
  local box = setmetatable({
    limits = { instructions = options.instructions or INSTRUCTIONS, seconds = options.seconds or SECONDS,
      memory = options.memory or MEMORY },
    print = options.print or function() end,
    env = {}, used = 0.0, base = 0, grown = 0, deadline = 0,
  }, Sandbox)
  -- Code of the host runs with the methods that strings have everywhere else.
  box.host = function(fn, ...)
    methods.__index = box.index
    return return_to_script(box, pcall(fn, ...))
  end
  base_library(box, box.env)
  string_library(box, box.env)
  table_library(box, box.env)
  other_libraries(box.env)
  note_ours(box, box.env)
  return box
end

return M
