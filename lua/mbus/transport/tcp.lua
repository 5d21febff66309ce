---Bytes over TCP, as a transparent gateway carries them. A connection that the gateway ended gives `closed`; the next
---write connects once more.
local Error = require "mbus.error"
local runtime = require "mbus.runtime"

local M = {}

local KEEPALIVE = 30            -- seconds of silence before the system asks whether the gateway still lives
local FULL = 65536              -- bytes that wait unread before we stop listening

---@class mbus.TcpTransport : mbus.Transport
local Tcp = {}
Tcp.__index = Tcp
Tcp.__close = function(self) self:close() end

-- What libuv says, for people: kind and text.
local REASONS = {
  ECONNREFUSED = { "refused", "connection refused: nobody listens at that port, or somebody else uses the gateway" },
  EHOSTUNREACH = { "unknown_host", "the host cannot be reached" },
  ENETUNREACH = { "unknown_host", "the host cannot be reached: no network" },
  EHOSTDOWN = { "unknown_host", "the host cannot be reached" },
  EAI_NONAME = { "unknown_host", "unknown host" },
  EAI_NODATA = { "unknown_host", "unknown host: the name has no address" },
  EAI_AGAIN = { "unknown_host", "unknown host: no name server answers" },
  EOF = { "closed", "the other side closed the connection" },
  ECONNRESET = { "closed", "the other side reset the connection" },
  ECONNABORTED = { "closed", "the connection was aborted" },
  EPIPE = { "closed", "the other side closed the connection" },
  ENOTCONN = { "closed", "the connection is closed" },
  ETIMEDOUT = { "closed", "the other side takes nothing any more: connection lost" },
}

function Tcp:error(code, kind, message)
  local reason = REASONS[code] or { code:find "^EAI_" and "unknown_host" or "io", "network failure" }
  return Error.new(kind or reason[1], message or reason[2], { bus = self.name, code = code })
end

function Tcp:connect_error(code)
  if code ~= "ETIMEDOUT" then return self:error(code) end
  return self:error(code, "timeout", ("no connection within %g s"):format(self.connect_timeout))
end

-- Addresses of the host, or nil and libuv's name of the error.
function Tcp:resolve(deadline)
  local code, list = runtime.await(function(resume)
    local uv = runtime.luv()
    local done = false
    local cancel = runtime.after(deadline - runtime.now(), function() resume "ETIMEDOUT" end)
    local request, _, name = uv.getaddrinfo(self.host, nil, { socktype = "stream" }, function(err, addresses)
      done = true
      resume(err, addresses)
    end)
    if not request then resume(name) end
    return function()
      cancel()
      if request and not done then uv.cancel(request) end
    end
  end)
  if code then return nil, code end
  return list
end

-- A connected socket, or nil and libuv's name of the error.
local function dial(address, port, deadline)
  local socket = runtime.luv().new_tcp()
  local code = runtime.await(function(resume)
    local cancel = runtime.after(deadline - runtime.now(), function() resume "ETIMEDOUT" end)
    local ok, _, name = socket:connect(address, port, function(err) resume(err) end)
    if not ok then resume(name) end
    return function(cancelled)
      cancel()
      if cancelled then runtime.close(socket) end
    end
  end)
  if not code then return socket end
  runtime.close(socket)
  return nil, code
end

function Tcp:dial_any(deadline)
  local addresses, code = self:resolve(deadline)
  if not addresses then return nil, code end
  local socket
  for _, address in ipairs(addresses) do
    socket, code = dial(address.addr, self.port, deadline)
    if socket then return socket end
    if code == "ETIMEDOUT" then break end
  end
  return nil, code or "EAI_NODATA"
end

function Tcp:connect()
  local socket, code = self:dial_any(runtime.now() + self.connect_timeout)
  if self.closed then     -- meanwhile, by somebody else
    if socket then runtime.close(socket) end
    return nil, self.lost
  end
  if not socket then
    local err = self:connect_error(code)
    self.lost = err
    return nil, err
  end
  socket:nodelay(true)
  socket:keepalive(true, KEEPALIVE)
  socket:unref()        -- an idle connection keeps no loop running; whoever waits has a timer
  self.socket, self.lost, self.received, self.size, self.paused = socket, nil, {}, 0, false
  self:listen()
  return true
end

function Tcp:listen()
  local socket = self.socket
  socket:read_start(function(err, bytes)
    if socket ~= self.socket then return end
    if not bytes then return self:disconnect(self:error(err or "EOF")) end
    self.received[#self.received + 1] = bytes
    self.size = self.size + #bytes
    if self.size >= FULL then
      socket:read_stop()
      self.paused = true
    end
    if self.interrupt then self.interrupt() end
  end)
end

function Tcp:disconnect(err)
  if self.socket then runtime.close(self.socket) end
  self.socket, self.lost = nil, err
  if self.interrupt then self.interrupt() end
end

-- Returns when something has come, when time is up, or when the connection has ended.
function Tcp:wait(seconds)
  if self.interrupt then error("two callers wait on one connection", 3) end
  runtime.await(function(resume)
    local cancel = runtime.after(seconds, resume)
    self.interrupt = resume
    return function()
      cancel()
      self.interrupt = nil
    end
  end)
end

function Tcp:take()
  local bytes = table.concat(self.received)
  self.received, self.size = {}, 0
  if self.paused and self.socket then
    self.paused = false
    self:listen()
  end
  return bytes
end

-- Hands a frame to the system in one piece; returns libuv's name of the error, if any.
function Tcp:send(bytes)
  local socket = self.socket
  local count, _, name = socket:try_write(bytes)
  if count == #bytes then return nil end
  if not count and name ~= "EAGAIN" then return name end
  return runtime.await(function(resume)
    local cancel = runtime.after(self.connect_timeout, function() resume "ETIMEDOUT" end)
    socket:write(bytes:sub((count or 0) + 1), function(err) resume(err) end)
    return cancel
  end)
end

---@param bytes string
---@return boolean? ok, mbus.Error? err  refused unknown_host timeout closed
function Tcp:write(bytes)
  if self.socket then runtime.poll() end        -- has the connection ended since the last answer?
  if self.closed then return nil, self.lost end
  if not self.socket then
    local ok, err = self:connect()
    if not ok then return nil, err end
  end
  local code = self:send(bytes)
  if not code then return true end
  if not self.closed then self:disconnect(self:error(code)) end
  return nil, self.lost
end

---@param seconds number   how long to wait for the first byte; 0 only looks
---@return string? bytes   "" when nothing came
---@return mbus.Error? err closed
function Tcp:read(seconds)
  if self.size == 0 and self.socket then
    if seconds > 0 then self:wait(seconds) else runtime.poll() end
  end
  if self.closed then return nil, self.lost end
  if self.size > 0 then return self:take() end
  if not self.socket then return nil, self.lost end
  return ""
end

---@return string? bytes  what came unasked, thrown away; "" also on a lost connection, which the next write opens again
---@return mbus.Error? err
function Tcp:drain()
  if self.socket then runtime.poll() end
  if self.closed then return nil, self.lost end
  return self:take()
end

---May be called twice. Who waits in a read gets `closed`.
function Tcp:close()
  if self.closed then return end
  self.closed = true
  self:disconnect(Error.new("closed", "the connection is closed", { bus = self.name }))
end

---@param parsed mbus.Url
---@param options table  checked by mbus.transport
---@return mbus.TcpTransport? transport
---@return mbus.Error? err  refused unknown_host timeout io
function M.open(parsed, options)
  local self = setmetatable({
    name = ("tcp://%s:%d"):format(parsed.host:find ":" and "[" .. parsed.host .. "]" or parsed.host, parsed.port),
    host = parsed.host,
    port = parsed.port,
    margin = options.margin or 0.3,     -- packing timers of gateways
    gap = options.gap or 0.5,
    baudrate = options.baudrate or 2400,
    connect_timeout = options.connect_timeout or 5,
    received = {}, size = 0,
    closed = false,
  }, Tcp)
  local ok, err = self:connect()
  if not ok then return nil, err end
  return self
end

return M
