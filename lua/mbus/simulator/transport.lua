---A transport to a simulated bus in this process: `sim:` and `sim:house` for the built-in house, `sim:FILE` for a description.
---
---The clock is virtual: reading and sleeping move it forward at once, so that a timeout costs no time. With `?clock=real` it
---is the computer's clock, and everything takes as long as on a real bus.
local Error = require "mbus.error"
local simulator = require "mbus.simulator"

local EPSILON = 1e-9 -- seconds: a byte that is complete at the deadline is in time

---@class mbus.simulator.Transport
---@field name string       "sim:house"
---@field margin number     0: nothing is between master and line
---@field gap number        seconds of silence that end an unfinished frame: 33 bits
---@field baudrate number
---@field simulator mbus.simulator.Simulator
local Transport = {}
Transport.__index = Transport

-- A clock that stands until somebody waits.
local function virtual_clock()
  local time = 0.0
  return { now = function() return time end, wait = function(_, to) time = math.max(time, to) end }
end

local function real_clock()
  local runtime = require "mbus.runtime"
  local function wait(_, to)
    local seconds = to - runtime.now()
    while seconds > 0 do
      runtime.sleep(seconds)
      seconds = to - runtime.now()
    end
  end
  return { now = runtime.now, wait = wait }
end

---@param sim mbus.simulator.Simulator
---@param options? table  clock: "virtual" (default) or "real"
---@return mbus.simulator.Transport
function Transport.new(sim, options)
  local clock = options and options.clock == "real" and real_clock() or virtual_clock()
  return setmetatable({ name = "sim:" .. sim.name, margin = 0, gap = 33 / sim.baudrate, baudrate = sim.baudrate,
    simulator = sim, clock = clock }, Transport)
end

local ALLOWED = { clock = { virtual = true, real = true } }

-- A file may be called anything, so what stands behind the last "?" is taken for options only if it looks like some.
local function split(text)
  local path, query = text:match("^(.*)%?([%w_]+=[^?]*)$")
  return path or text, query or ""
end

local function parse_options(query)
  local options = {}
  for name, value in query:gmatch("([^=&]+)=([^&]*)") do
    local allowed = ALLOWED[name]
    if not allowed then return nil, Error.new("invalid", ("unknown option %q (sim has: clock)"):format(name)) end
    if not allowed[value] then
      return nil, Error.new("invalid", ("bad %s %q (allowed: real, virtual)"):format(name, value))
    end
    options[name] = value
  end
  return options
end

local function override(self, options)
  if options.baudrate then self:set_baudrate(options.baudrate) end
  self.margin = options.margin or self.margin
  self.gap = options.gap or self.gap
  return self
end

---@param parsed table    {scheme="sim", path=} of mbus.transport.parse; the path is "house" (also nil) or a file, and
---                       "?clock=real" may follow
---@param options? table  baudrate of the master (default the bus's), margin, gap
---@return mbus.simulator.Transport? transport
---@return mbus.Error? err  kinds "invalid", "not_found", "permission", "io"
function Transport.open(parsed, options)
  local path, query = split(parsed.path or "")
  local chosen, err = parse_options(query)
  if not chosen then return nil, err end
  local sim
  sim, err = simulator.new(path)
  if not sim then return nil, err end
  return override(Transport.new(sim, chosen), options or {})
end

local function closed(self) return nil, Error.new("closed", "the bus is closed", { bus = self.name }) end

---@param bytes string
---@return boolean? ok
---@return mbus.Error? err  kind "closed"
function Transport:write(bytes)
  if self.is_closed then return closed(self) end
  self.simulator:receive(bytes, self.clock.now())
  return true
end

---@param seconds number    at most; 0 only looks
---@return string? bytes    as soon as there is one, "" if none came
---@return integer|mbus.Error line_errors
function Transport:read(seconds)
  if self.is_closed then return closed(self) end
  local sim, clock = self.simulator, self.clock
  local deadline = clock.now() + seconds
  while true do
    local bytes, errors = sim:take(clock.now())
    if bytes ~= "" then return bytes, errors end
    local next = sim:next()
    if not next or next > deadline + EPSILON then break end
    clock:wait(next)
  end
  clock:wait(deadline)
  return "", 0
end

---@return string? bytes  what had come unasked and is thrown away
---@return mbus.Error? err
function Transport:drain()
  if self.is_closed then return closed(self) end
  return (self.simulator:take(self.clock.now()))
end

---@return number seconds  on the clock of this bus
function Transport:now() return self.clock.now() end

---@param seconds number
function Transport:sleep(seconds) self.clock:wait(self.clock.now() + seconds) end

---@param baudrate number
---@return boolean? ok
function Transport:set_baudrate(baudrate)
  self.simulator:set_baudrate(baudrate)
  self.baudrate, self.gap = baudrate, 33 / baudrate
  return true
end

---Idempotent.
function Transport:close() self.is_closed = true end

return Transport
