---Bytes over UDP: a request is one datagram, and so is a frame of the answer, although several datagrams are put together
---and several frames in one are taken apart like in any stream. There is no connection to lose: a gateway that is gone is
---silent, or its host refuses.
---
---The socket is bound to one way: from an own address to one of the gateway's. After an error of the network, the next
---request makes a new one; after some requests without an answer it looks whether the way is another by now.
---
---What waits when a request is sent is late and thrown away. A long frame that comes twice after one request is a copy
---that the network made; a second acknowledgement may be that of another meter.
local Backoff = require "mbus.transport.backoff"
local Error = require "mbus.error"
local Path = require "mbus.transport.path"
local core = require "mbus.core"
local network = require "mbus.transport.network"
local runtime = require "mbus.runtime"

local M = {}

local KNOWN = 32                -- frames of one request that are compared
local FEW = 3                   -- requests without an answer, after which the way is looked for again

---@class mbus.UdpTransport : mbus.Transport
local Udp = {}
Udp.__index = Udp
Udp.__close = function(self) self:close() end

-- --- the way to the gateway

-- Connected: the system passes on what comes from the gateway and from nobody else, and tells of refusals.
local function dial(address, port)
  local socket = runtime.luv().new_udp()
  local ok, _, code = socket:connect(address, port)
  if ok then return socket end
  runtime.close(socket)
  return nil, code
end

-- Both ends of a socket.
local function way(socket)
  local here, there = socket:getsockname(), socket:getpeername()
  return here and there and here.ip .. " " .. there.ip
end

-- Of a name with several addresses, the one in use comes first as long as it is among them.
local function prefer(addresses, used)
  for i, address in ipairs(addresses) do
    if address.addr == used then table.insert(addresses, 1, table.remove(addresses, i)) end
  end
end

-- A socket that goes the same way brings nothing new: some gateways know their client by its port.
function Udp:use(socket, address)
  if self.socket and way(self.socket) == way(socket) then return runtime.close(socket) end
  self:disconnect()
  socket:unref()
  self.socket, self.address = socket, address
  socket:recv_start(function(err, bytes)
    if socket ~= self.socket then return end
    if err then self:fail(err:match "^[%u_]+" or err) end
    if bytes and bytes ~= "" then self:accept(bytes) end
    self:wake()
  end)
end

function Udp:connect(deadline)
  self.unanswered = 0
  local addresses, code = network.resolve(self.host, "dgram", deadline)
  if self.closed then return nil, self.lost end
  if code == "ETIMEDOUT" then code = "EAI_AGAIN" end
  addresses = addresses or {}
  prefer(addresses, self.address)
  for _, address in ipairs(addresses) do
    local socket
    socket, code = dial(address.addr, self.port)
    if socket then
      self:use(socket, address.addr)
      return true
    end
  end
  self.lost = network.error(self.name, code or "EAI_NODATA")
  return nil, self.lost
end

-- Silence may mean that the way has changed. A name server that does not answer holds up few requests.
function Udp:look_again()
  local now = runtime.now()
  if self.unanswered < FEW or now < self.backoff.due then return end
  local ok, err = self:connect(now + self.connect_timeout)
  if not (ok or self.closed) then self.backoff:failed(err, runtime.now()) end
end

function Udp:ensure()
  if self.socket then self:look_again() end
  if self.socket then return true end
  if self.closed then return nil, self.lost end
  return self.backoff:persist(self.connect_timeout, function(deadline) return self:connect(deadline) end,
    function(seconds)
      if not self.closed then self:wait(seconds) end
      if self.closed then return nil, self.lost end
      return true
    end)
end

function Udp:disconnect()
  if self.socket then runtime.close(self.socket) end
  self.socket = nil
end

-- Nobody listens there: the socket is good. Any other error means that it is not.
function Udp:fail(code)
  self.lost = network.error(self.name, code)
  if code ~= "ECONNREFUSED" then self:disconnect() end
end

-- --- receiving and sending

function Udp:is_copy(bytes)
  if not self.known or bytes == core.ACK or not core.frame(bytes) then return false end
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
    self.unanswered = 0
    self.backoff:worked()
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
---@return boolean? ok, mbus.Error? err  refused unknown_host closed io
function Udp:write(bytes)
  runtime.poll()
  if self.closed then return nil, self.lost end
  local ok, err = self:ensure()
  if not ok then return nil, err end
  self:take()
  self.known, self.lost = {}, nil
  local count, message, code = self.socket:try_send(bytes, nil, nil)
  -- The refusal of an earlier datagram: this one has not been sent.
  if not count and code == "ECONNREFUSED" then count, message, code = self.socket:try_send(bytes, nil, nil) end
  if not count then
    self:fail(code or message)
    return nil, self.lost
  end
  self.unanswered = self.unanswered + 1
  self.path:sent(bytes, runtime.now())
  if not self.fixed then self.margin, self.held = self.path:margin() end
  return true
end

---@param seconds number   how long to wait for the first byte; 0 only looks
---@return string? bytes   "" when nothing came
---@return mbus.Error? err  refused unknown_host noise closed io
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
  self:disconnect()
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
    backoff = Backoff.new(options.backoff, options.backoff_limit), unanswered = 0,
    flooded = network.meter(),
    received = {},
    closed = false,
  }, Udp)
  if not self.fixed then self.margin, self.held = self.path:margin() end
  local ok, err = self:connect(runtime.now() + self.connect_timeout)
  if not ok then
    self:close()
    return nil, err
  end
  return self
end

return M
