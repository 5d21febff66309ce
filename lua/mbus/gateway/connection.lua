---One way to a bus: opens it, reads and writes meters, counts, keeps a log. Whose turn it is, is decided in line.lua.
local Address = require "mbus.address"
local Error = require "mbus.error"
local Binding = require "mbus.gateway.binding"
local Log = require "mbus.gateway.log"
local Statistics = require "mbus.gateway.statistics"
local read = require "mbus.procedure.read"
local request = require "mbus.request"
local shared = require "mbus.transport.shared"

local M = {}

---@class mbus.gateway.Connection
---@field name string
---@field title? string
---@field settings table
---@field bindings mbus.gateway.Binding[]
---@field log mbus.gateway.Log
---@field statistics mbus.gateway.Statistics
---@field error? string       the last one
---@field error_time? number  seconds since 1970
---@field stopped boolean     by whoever uses the gateway, or by its settings
---@field is_too_large? boolean  it was stopped because it reached its memory limit
local Connection = {}
Connection.__index = Connection

---@param settings table  checked
---@param gateway table   clock, open(settings, options), tell_log(connection, level, text, time)
---@return mbus.gateway.Connection
function M.new(settings, gateway)
  local self = setmetatable({ name = settings.name, title = settings.title, settings = settings, gateway = gateway,
    clock = gateway.clock, stopped = settings.disabled, failing = 0, bindings = {} }, Connection)
  self.log = Log.new(settings.log_level, self.clock, self)
  self.statistics = Statistics.new(self.clock.now())
  for i, binding in ipairs(settings.bindings) do self.bindings[i] = Binding.new(binding, self) end
  return self
end

---@return boolean
function Connection:is_running() return not self.stopped end

---Takes note of an error. The same one again and again takes one line of the log.
---@param err mbus.Error|string
---@param level? string
function Connection:complain(err, level)
  local text = tostring(err)
  self.error_time = self.clock.time()
  if text ~= self.error then self.log:add(level or "error", text) end
  self.error = text
end

-- ------------------------------------------------------------------ opening

-- Times of the config are milliseconds, those of a bus seconds.
local function transport_options(settings)
  return {
    baudrate = settings.baudrate, parity = settings.parity, databits = settings.data_bits, stopbits = settings.stop_bits,
    rts = settings.rts, dtr = settings.dtr, margin = settings.options.margin, gap = settings.options.gap,
    delay_ratio = settings.line_delay_ratio,
  }
end

local function options_of_bus(self, transport)
  local settings, options = self.settings, {}
  local ratio = settings.line_delay_ratio
  for name, value in pairs(settings.options) do options[name] = value end
  options.baudrate = settings.baudrate
  options.timeout = settings.timeout / 1000 * ratio
  options.gap = (options.gap or transport.gap or 0.1) * ratio
  options.retries = settings.attempts - 1
  local line = shared.common(transport).line -- which knows its speed
  options.trace = function(direction, bytes, time)
    self.statistics:line(direction, bytes, time, line.baudrate or 2400)
    if self.log.depth >= 4 then
      self.log:add("debug", ("%s (%03d) %s"):format(direction, #bytes, require("mbus.core").hex(bytes)))
    end
  end
  return options
end

-- Opening leaves garbage, and hundreds of lines open one after another: without a whole collection whenever memory has
-- grown by so much, the process would keep the size of that garbage for ever.
local GROWTH, kept = 1.2, 0.0

local function tidy()
  if collectgarbage "count" < GROWTH * kept then return end
  collectgarbage()
  kept = collectgarbage "count"
end

---Opens the bus, if it is not open.
---@return boolean? ok
---@return mbus.Error? err  also while it is not yet time to try again
function Connection:open()
  if self.stopped then return nil, Error.new("closed", "the connection is stopped", { bus = self.name }) end
  if self.bus then return true end
  local now = self.clock.now()
  if self.retry_at and now < self.retry_at then return nil, self.open_error end
  local transport, err = self.gateway.open(self.settings, transport_options(self.settings))
  if transport and self.stopped then
    transport:close()
    transport, err = nil, Error.new("closed", "the connection is stopped", { bus = self.name })
  end
  if not transport then
    self.retry_at, self.open_error = self.clock.now() + self.settings.reconnect_interval / 1000, err
    self.statistics:failed(err.kind)
    self:complain(err)
    return nil, err
  end
  if self.clock.adopt and transport.simulator then self.clock.adopt(transport) end
  self.retry_at = nil
  self.bus = require("mbus.bus").new(transport, options_of_bus(self, transport))
  if not self.was_open then tidy() end
  self.was_open = true
  self.log:add("info", "open: " .. transport.name)
  return true
end

---Whoever waits for an answer gets `closed`. May be called twice.
function Connection:close()
  local bus = self.bus
  if not bus then return end
  self.bus, self.link = nil, nil
  bus:close()
  self.log:add("info", "closed")
end

local ANSWER = 341 + 261 * 11 -- bits that the latest and longest answer may go on for, and 50 ms

-- May a frame be sent without talking into an answer?
local function is_free(self, bus)
  local sent = self.statistics.sent
  return not sent or bus.now() > sent + ANSWER / (bus.transport.baudrate or 2400) + 0.05
end

---Closes the bus while somebody still waits for an answer, and deselects whoever is selected if the line is free for that.
function Connection:abandon()
  local bus = self.bus
  if not bus then return end
  if bus.state.deselected or not is_free(self, bus) then return self:close() end
  self.clock.spawn(function()
    bus.transport:write(request.snd_nke(Address.SELECTED))
    self:close()
  end)
end

-- ------------------------------------------------------------------ requests

local LOST = { closed = true, io = true, refused = true, unknown_host = true, not_found = true, permission = true, busy = true }

---Is the way to the bus gone, rather than a meter silent?
---@param err mbus.Error
---@return boolean
function M.is_lost(err) return LOST[err.kind] or err.kind == "timeout" and err.code ~= nil end

local function note(self, err)
  self.statistics:failed(err.kind)
  self:complain(err, M.is_lost(err) and "error" or "warning")
  if M.is_lost(err) then
    self:close()
    self.failing = self.failing + 1
  end
end

-- A procedure that can be hurried.
local function read_for(link, address, connection, retries)
  connection.link = link
  link.settings.retries = retries or link.settings.retries
  return read.run(link, address)
end

---@param address mbus.Address
---@param retries? integer  instead of `attempts`
---@return mbus.Readout? readout
---@return mbus.Error? err
function Connection:read(address, retries)
  self.statistics.polls = self.statistics.polls + 1
  self.statistics:begin()
  local readout, err = self.bus:run(read_for, address, self, retries)
  self.link = nil
  if not readout then note(self, err) end
  return readout, err
end

---@param address mbus.Address
---@param record string  bytes
---@return boolean? ok
---@return mbus.Error? err
function Connection:write(address, record)
  -- APDU: CI field and data.
  if 1 + #record > self.settings.max_package_length then
    return nil, Error.new("limit", ("a record of %d bytes is longer than max_package_length allows"):format(#record),
      { bus = self.name, address = address.text })
  end
  self.statistics.writes = self.statistics.writes + 1
  self.statistics:begin()
  local ok, err = self.bus:write(address.text, { record })
  if not ok then note(self, err) end
  return ok, err
end

---The request under way comes to its end as soon as it can: no repetitions, and no more patience than the standard asks.
function Connection:hurry()
  local link = self.link
  if not link then return end
  local settings = link.settings
  link.aborted = true
  settings.retries = 0
  settings.timeout = math.min(settings.timeout, 341 / settings.baudrate + 0.05 + (self.bus.transport.margin or 0.1))
end

---Forgets errors, counters and log.
function Connection:clear()
  self.error, self.error_time = nil, nil
  self.statistics:clear(self.clock.now())
  self.log:clear()
end

return M
