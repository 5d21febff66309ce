---Bytes over UDP: a request is one datagram, and so is a frame of the answer, although several datagrams are put together
---and several frames in one are taken apart like in any stream. There is no connection to lose: a gateway that is gone is
---silent, or its host refuses.
---
---What waits when a request is sent is late and thrown away. A whole frame that comes twice after one request is a copy
---that the network made.
local Error = require "mbus.error"
local Path = require "mbus.transport.path"
local core = require "mbus.core"
local network = require "mbus.transport.network"
local runtime = require "mbus.runtime"

local M = {}

local KNOWN = 32                -- frames of one request that are compared

---@class mbus.UdpTransport : mbus.Transport
local Udp = {}
Udp.__index = Udp
Udp.__close = function(self) self:close() end

function Udp:open_socket(address)
  local socket = runtime.luv().new_udp()
  -- Connected: the system passes on what comes from the gateway and from nobody else, and tells of refusals.
  local ok, _, code = socket:connect(address, self.port)
  if not ok then
    runtime.close(socket)
    return nil, network.error(self.name, code)
  end
  socket:unref()
  self.socket = socket
  socket:recv_start(function(err, bytes)
    if socket ~= self.socket then return end
    if err then self.lost = network.error(self.name, err:match "^[%u_]+" or err) end
    if bytes and bytes ~= "" then self:accept(bytes) end
    self:wake()
  end)
  return true
end

function Udp:connect()
  local addresses, code = network.resolve(self.host, "dgram", runtime.now() + self.connect_timeout)
  if self.closed then return nil, self.lost end
  if not addresses then
    if code == "ETIMEDOUT" then code = "EAI_AGAIN" end
    return nil, network.error(self.name, code)
  end
  local ok, err
  for _, address in ipairs(addresses) do
    ok, err = self:open_socket(address.addr)
    if ok then return true end
  end
  return nil, err or network.error(self.name, "EAI_NODATA")
end

function Udp:is_copy(bytes)
  if not self.known or not core.frame(bytes) then return false end
  for _, known in ipairs(self.known) do
    if known == bytes then return true end
  end
  if #self.known < KNOWN then table.insert(self.known, bytes) end
  return false
end

function Udp:accept(bytes)
  local now = runtime.now()
  if self.flooded(#bytes, now) then
    self.lost = network.flood(self.name)
  elseif not self:is_copy(bytes) then
    self.received[#self.received + 1] = bytes
    self.path:received(#bytes, now)
  end
end

---Ends a wait early: `read` returns without bytes.
function Udp:wake()
  if self.interrupt then self.interrupt() end
end

function Udp:wait(seconds)
  if self.interrupt then error("two callers wait on one socket", 3) end
  runtime.await(function(resume)
    local cancel = runtime.after(seconds, resume)
    self.interrupt = resume
    return function()
      cancel()
      self.interrupt = nil
    end
  end)
end

function Udp:take()
  local bytes = table.concat(self.received)
  self.received = {}
  return bytes
end

---@param bytes string
---@return boolean? ok, mbus.Error? err
function Udp:write(bytes)
  runtime.poll()
  if self.closed then return nil, self.lost end
  self:take()
  self.known, self.lost = {}, nil
  local count, message, code = self.socket:try_send(bytes, nil, nil)
  -- The refusal of an earlier datagram: this one has not been sent.
  if not count and code == "ECONNREFUSED" then count, message, code = self.socket:try_send(bytes, nil, nil) end
  if not count then return nil, network.error(self.name, code or message) end
  self.path:sent(bytes, runtime.now())
  if not self.fixed then self.margin, self.held = self.path:margin() end
  return true
end

---@param seconds number   how long to wait for the first byte; 0 only looks
---@return string? bytes   "" when nothing came
---@return mbus.Error? err refused noise closed
function Udp:read(seconds)
  local deadline = runtime.now() + seconds
  if #self.received == 0 and not self.lost then
    if seconds > 0 then self:wait(deadline - runtime.now()) else runtime.poll() end
  end
  if self.closed then return nil, self.lost end
  if #self.received > 0 then return self:take() end
  if self.lost then return nil, self.lost end
  return ""
end

---@return string? bytes  what came unasked, thrown away
---@return mbus.Error? err
function Udp:drain()
  runtime.poll()
  if self.closed then return nil, self.lost end
  self.known = nil              -- no request is open: what comes again was sent again
  return self:take()
end

---May be called twice. Who waits in a read gets `closed`.
function Udp:close()
  if self.closed then return end
  self.closed = true
  self.lost = Error.new("closed", "the bus is closed", { bus = self.name })
  if self.socket then runtime.close(self.socket) end
  self.socket = nil
  self:wake()
end

---@param parsed mbus.Url
---@param options table  checked by mbus.transport
---@return mbus.UdpTransport? transport
---@return mbus.Error? err  unknown_host io
function M.open(parsed, options)
  local baudrate = options.baudrate or 2400
  local self = setmetatable({
    name = network.name("udp", parsed.host, parsed.port),
    host = parsed.host,
    port = parsed.port,
    gap = options.gap or 0.5,
    baudrate = baudrate,
    path = Path.new(baudrate), fixed = options.margin ~= nil, margin = options.margin, held = 0,
    connect_timeout = (options.connect_timeout or 5) * (options.delay_ratio or 1),
    flooded = network.meter(),
    received = {},
    closed = false,
  }, Udp)
  if not self.fixed then self.margin, self.held = self.path:margin() end
  local ok, err = self:connect()
  if not ok then
    self:close()
    return nil, err
  end
  return self
end

return M
