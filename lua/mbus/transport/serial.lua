---Bytes over a serial port or a pseudo-terminal. An adapter that was pulled out gives `closed`; the next write opens it
---anew when it is back, with growing pauses between the attempts.
local Backoff = require "mbus.transport.backoff"
local Error = require "mbus.error"
local runtime = require "mbus.runtime"
local serial = require "mbus.serial"

local M = {}

local STUCK = 5         -- seconds without a byte taken after which a port is given up
local TICK = 0.002      -- seconds between looks, where there is no descriptor to wait for
local CHUNK = 4096

---@class mbus.SerialTransport : mbus.Transport
local Serial = {}
Serial.__index = Serial
Serial.__close = function(self) self:close() end

-- The bus is a field of its own, so its name leaves the text.
local function wrap(name, message, kind)
  local prefix = name .. ": "
  if message:sub(1, #prefix) == prefix then message = message:sub(#prefix + 1) end
  return Error.new(kind, message, { bus = name })
end

local function level(value)
  if value == "leave" then return nil end
  return value
end

function Serial:connect()
  local settings = self.settings
  settings.baudrate = self.baudrate
  local path, err = self.locate()
  if not path then return nil, err end
  local port, message, kind = serial.open(path, settings)
  if not port then return nil, wrap(self.name, message, kind) end
  local fd = port:fd()
  if fd then
    local poll, why = runtime.luv().new_poll(fd)
    if not poll then
      port:close()
      return nil, wrap(self.name, why, "io")
    end
    self.poll = poll
  end
  self.port, self.lost = port, nil
  return true
end

function Serial:ensure()
  if self.port then return true end
  return self.backoff:persist(self.connect_timeout, function()
    if self.closed then return nil, self.lost end
    local ok, err = self:connect()
    if ok then self.backoff:worked() else self.lost = err end
    return ok, err
  end, function(seconds)
    self:rest(seconds)
    if self.closed then return nil, self.lost end
    return true
  end)
end

function Serial:disconnect(err)
  if self.poll then runtime.close(self.poll) end
  if self.port then self.port:close() end
  self.poll, self.port, self.lost = nil, nil, err
  self:wake()
end

---Ends a wait early: `read` returns without bytes.
function Serial:wake()
  if not self.interrupt then return end
  self.woken = true
  self.interrupt()
end

function Serial:fail(message, kind)
  local err = wrap(self.name, message, kind)
  self:disconnect(err)
  return nil, err
end

-- Lets time pass while the port is gone; ends when the transport is closed.
function Serial:rest(seconds)
  local deadline = runtime.now() + seconds
  while not self.closed and runtime.now() < deadline do
    runtime.await(function(resume)
      local cancel = runtime.after(deadline - runtime.now(), resume)
      self.interrupt = resume
      return function()
        cancel()
        self.interrupt = nil
      end
    end)
  end
end

-- Returns when the port is ready, when time is up, or when it is closed meanwhile.
function Serial:wait(events, seconds)
  if self.interrupt then error("two callers wait on one port", 3) end
  if not self.poll then return runtime.sleep(math.min(seconds, TICK)) end
  runtime.await(function(resume)
    local cancel = runtime.after(seconds, resume)
    self.interrupt = resume
    self.poll:start(events, function() resume() end)
    return function()
      cancel()
      if self.poll then self.poll:stop() end
      self.interrupt = nil
    end
  end)
end

---@param bytes string
---@return boolean? ok, mbus.Error? err
function Serial:write(bytes)
  if self.closed then return nil, self.lost end
  local ok, err = self:ensure()
  if not ok then return nil, err end
  local deadline = runtime.now() + STUCK
  while true do
    local count, message, kind = self.port:write(bytes)
    if not count then return self:fail(message, kind) end
    if count == #bytes then return true end
    local now = runtime.now()
    if count > 0 then deadline = now + STUCK end
    if now >= deadline then return self:fail(("the port takes no more bytes (%d s)"):format(STUCK), "io") end
    bytes = bytes:sub(count + 1)
    self:wait("w", deadline - now)
    if not self.port then return nil, self.lost end
  end
end

---@param seconds number   how long to wait for the first byte; 0 only looks
---@return string? bytes   "" when nothing came
---@return integer|mbus.Error|nil line_errors  characters with a parity or framing error, and breaks
function Serial:read(seconds)
  local deadline
  self.woken = false
  while self.port do
    local bytes, errors, kind = self.port:read(CHUNK)
    if not bytes then return self:fail(errors, kind) end
    if bytes ~= "" or seconds <= 0 or self.woken then return bytes, errors end
    local now = runtime.now()
    deadline = deadline or now + seconds
    if now >= deadline then return "", 0 end
    self:wait("r", deadline - now)
  end
  return nil, self.lost
end

---@return string? bytes  what came unasked, thrown away; "" also on a lost port, which the next write opens again
---@return mbus.Error? err
function Serial:drain()
  if self.closed then return nil, self.lost end
  local parts = {}
  for _ = 1, 64 do      -- something that never stops talking is left for the reader to find
    local bytes = self.port and self:read(0)
    if not bytes or bytes == "" then break end
    parts[#parts + 1] = bytes
  end
  return table.concat(parts)
end

---@param baudrate integer
---@return boolean? ok, mbus.Error? err
function Serial:set_baudrate(baudrate)
  if self.port then
    local ok, message, kind = self.port:set_baudrate(baudrate)
    if not ok then
      self.port:set_baudrate(self.baudrate)     -- it may have failed half-way; a lost port is noticed when it is used
      return nil, wrap(self.name, message, kind)
    end
  elseif self.closed then
    return nil, self.lost
  end
  self.baudrate = baudrate
  return true
end

---May be called twice. Who waits in a read gets `closed`.
function Serial:close()
  if self.closed then return end
  self.closed = true
  self:disconnect(Error.new("closed", "the port is closed", { bus = self.name }))
end

---@param parsed mbus.Url
---@param options table  checked by mbus.transport
---@param locate? fun(): string?, mbus.Error?  finds the port each time that it is opened; it is the path if absent
---@return mbus.SerialTransport? transport
---@return mbus.Error? err  not_found permission busy io invalid unsupported
function M.open(parsed, options, locate)
  local self = setmetatable({
    name = parsed.path,
    locate = locate or function() return parsed.path end,
    margin = options.margin or 0.1,     -- USB adapters and the scheduler
    gap = options.gap or 0.1,
    baudrate = options.baudrate or 2400,
    settings = { parity = options.parity, databits = options.databits, stopbits = options.stopbits,
      rts = level(options.rts), dtr = level(options.dtr), rs485 = options.rs485 },
    connect_timeout = (options.connect_timeout or 5) * (options.delay_ratio or 1),
    backoff = Backoff.new(options.backoff, options.backoff_limit or 10),
    closed = false,
  }, Serial)
  local ok, err = self:connect()
  if not ok then return nil, err end
  return self
end

return M
