---Runs what a stranger wrote: with nothing around it but numbers, strings and tables, and not for ever.
---
---    local chunk, message = sandbox.load(text, "@poll.lua")
---    local ok, value = sandbox.call(chunk)
---
---What is contained: files, programs, modules, bytecode, endless loops. What is not: a single call of a string function
---that takes memory or time without end, such as a pattern made for it.
local M = {}

-- Instructions of the virtual machine for one call: some tenths of a second.
local BUDGET = 20000000
local STEP = 100000

local ALLOWED = {
  assert = true, error = true, ipairs = true, next = true, pairs = true, select = true, tonumber = true, tostring = true,
  type = true, rawequal = true, rawlen = true,
  math = { randomseed = false }, table = {}, utf8 = {},
  -- rep and format can fill the memory in one call, dump gives bytecode.
  string = { rep = false, dump = false },
}

local function copy(source, except)
  local result = {}
  for name, value in pairs(source) do
    if except[name] ~= false then result[name] = value end
  end
  return result
end

-- Repeats a string as string.rep does, but not beyond what a config can need.
local function limited_rep(text, count, separator)
  if (#text + #(separator or "")) * count > 1000000 then error("string.rep: too long", 2) end
  return string.rep(text, count, separator)
end

---@return table environment  a new one
function M.environment()
  local environment = { _VERSION = _VERSION }
  for name, kind in pairs(ALLOWED) do environment[name] = kind == true and _G[name] or copy(_G[name], kind) end
  environment.string.rep = limited_rep
  environment.os = { time = os.time, date = os.date, clock = os.clock }
  return environment
end

local METHODS = copy(string, { dump = false, rep = false })
METHODS.rep = limited_rep

---@param text string
---@param name string  chunk name, "@file" for files
---@return function? chunk
---@return string? message  with the line
function M.load(text, name)
  text = text:gsub("^\xEF\xBB\xBF", ""):gsub("^#[^\n]*", "")
  return load(text, name, "t", M.environment())
end

-- The methods of strings are shared by all of the program: they are ours again when the call is over.
local function restore(saved_index, hook, mask, count)
  debug.sethook(hook, mask, count)
  getmetatable("").__index = saved_index
end

local function finish(saved_index, hook, mask, count, ...)
  restore(saved_index, hook, mask, count)
  return ...
end

---Calls a function of a stranger. It must not wait.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...  results, or the error
function M.call(fn, ...)
  local hook, mask, count = debug.gethook()
  local saved_index = getmetatable("").__index
  local used = 0
  getmetatable("").__index = METHODS
  debug.sethook(function()
    used = used + STEP
    if used > BUDGET then error("it takes too long", 2) end
  end, "", STEP)
  return finish(saved_index, hook, mask, count, pcall(fn, ...))
end

return M
