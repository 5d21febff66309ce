---Runs configs and the functions in them, in `mbus.sandbox`: a config is trusted, but it may be wrong.
---
---    local chunk, message = sandbox.load(text, "poll.lua")
---    local ok, value = sandbox.call(chunk)
local sandbox = require "mbus.sandbox"

local M = {}

-- For one call: some tenths of a second, and room for a thousand buses.
local LIMITS = { instructions = 20000000, seconds = 10, memory = 256 << 20, finalizers = true }

local box = sandbox.new(LIMITS)

local function hidden(run)
  if select(2, run:gsub("%x", "")) > 16 then return "(hidden)" end -- more than any address
end

-- A key that has lost a quote is in what Lua says of it.
local function hide(message) return (message:gsub("%x[%x -]+", hidden):gsub("%x[%x:]+", hidden)) end

local function without_keys(ok, ...)
  if ok then return ok, ... end
  return ok, hide((...))
end

local library = { os = true }
for name in pairs(box.env) do library[name] = true end

---@return table<string, boolean>  names of the globals that every config has
function M.library() return library end

---@param text string
---@param name string  for messages
---@return function? chunk  with globals of its own
---@return string? message  with the line
function M.load(text, name)
  local own = sandbox.new(LIMITS)
  own.env.os = { time = os.time, date = os.date, clock = os.clock }
  return without_keys(own:load(text, name))
end

---Calls a function of a config. It cannot yield.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...  results, or the error as text
function M.call(fn, ...) return without_keys(box:run(fn, ...)) end

return M
