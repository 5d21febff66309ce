---Runs configs and the functions in them, in `mbus.sandbox`: a config is trusted, but it may be wrong.
---
---    local chunk, message = sandbox.load(text, "poll.lua")
---    local ok, value = sandbox.call(chunk)
local sandbox = require "mbus.sandbox"

local M = {}

-- For one call: some tenths of a second, and room for a thousand buses.
local LIMITS = { instructions = 20000000, seconds = 10, memory = 256 << 20, finalizers = true }

local box = sandbox.new(LIMITS)

---@param text string
---@param name string  for messages
---@return function? chunk  with globals of its own
---@return string? message  with the line
function M.load(text, name)
  local own = sandbox.new(LIMITS)
  own.env.os = { time = os.time, date = os.date, clock = os.clock }
  return own:load(text, name)
end

---Calls a function of a config. It cannot yield.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...  results, or the error as text
function M.call(fn, ...) return box:run(fn, ...) end

return M
