---Bytes over TCP, as a transparent gateway carries them. A connection that is lost gives `closed`; the next write connects
---once more, with growing pauses while that fails. Whatever the gateway sends in the first moment is thrown away: some
---greet with a text.
---
---A gateway that has hung up without a word is noticed in three ways: the system gets no acknowledgement for what was
---sent (`connect_timeout`) or for its questions (`keepalive`), or requests go unanswered although there were answers
---before (`probe`).
local Backoff = require "mbus.transport.backoff"
local Error = require "mbus.error"
local Path = require "mbus.transport.path"
local network = require "mbus.transport.network"
local runtime = require "mbus.runtime"

local M = {}

local SAID = 64         -- characters of a greeting that are kept for messages
local PATIENCE = 120    -- seconds that `probe` grows to at most
local ENOUGH = 2        -- requests without an answer after a pause: one may have been lost, or one that nobody answers
local DAY = 86400

---@class mbus.TcpTransport : mbus.Transport
---@field held number  seconds of `margin` that an answer of one byte does not need: what gateways hold back
local Tcp = {}
Tcp.__index = Tcp
Tcp.__close = function(self) self:close() end

-- What nobody has set, in seconds or counts: kept once, for all connections.
local SETTINGS = { "gap", "connect_timeout", "keepalive", "keepalive_interval", "keepalive_count", "probe", "banner" }
Tcp.gap, Tcp.connect_timeout, Tcp.probe, Tcp.banner = 0.5, 5, 10, 0.2
Tcp.keepalive, Tcp.keepalive_interval, Tcp.keepalive_count = 30, 10, 3
Tcp.closed, Tcp.alive, Tcp.greeting = false, false, false

function Tcp:connect_error(code)
  if code ~= "ETIMEDOUT" then return network.error(self.name, code) end
  return Error.new("timeout", ("no connection within %g s"):format(self.connect_timeout), { bus = self.name, code = code })
end

-- --- connecting

-- Where nobody listens on this computer, the port that a socket gets by chance may be the one that it calls: then TCP
-- connects it to itself, and who should listen there never can again.
local function is_itself(socket)
  local here, there = socket:getsockname(), socket:getpeername()
  return here and there and here.port == there.port and here.ip == there.ip
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
  if not code and is_itself(socket) then code = "ECONNREFUSED" end
  if not code then return socket end
  runtime.close(socket)
  return nil, code
end

function Tcp:dial_any(deadline)
  local addresses, code = network.resolve(self.host, "stream", deadline)
  if not addresses then return nil, code end
  local socket
  for i, address in ipairs(addresses) do
    local start = runtime.now()
    -- One that is silent leaves the others their share of the time.
    socket, code = dial(address.addr, self.port, start + (deadline - start) / (#addresses - i + 1))
    if socket then
      self.path:connected(runtime.now() - start)
      return socket
    end
  end
  return nil, code or "EAI_NODATA"
end

-- libuv's own keepalive is all there is where mbus.socket was not built.
function Tcp:tune(socket)
  socket:nodelay(true)
  local idle = self.keepalive
  socket:keepalive(idle > 0, math.max(1, idle))
  local there, tuner = pcall(require, "mbus.socket")
  local fd = there and socket:fileno()
  if fd then tuner.tune(fd, idle, self.keepalive_interval, self.keepalive_count, self.connect_timeout) end
end

-- Whoever waits for a connection may be ended (a coroutine that is closed): then there is none.
function Tcp:abandon()
  if self.greeting then self:disconnect(Error.new("closed", "given up while connecting", { bus = self.name })) end
  self.greeting = false
end

---Once; the first time, and again through `ensure`.
function Tcp:connect(deadline)
  local socket, code = self:dial_any(deadline)
  if self.closed then     -- meanwhile, by somebody else
    if socket then runtime.close(socket) end
    return nil, self.lost
  end
  if not socket then
    self.lost = self:connect_error(code)
    return nil, self.lost
  end
  self:tune(socket)
  socket:unref()        -- an idle connection keeps no loop running; whoever waits has a timer
  self.socket, self.lost, self.received, self.size = socket, nil, {}, 0
  self.flooded, self.alive, self.greeting = network.meter(), false, true
  self.silence, self.unheard, self.asked = 0, nil, runtime.now()
  self:listen()
  local _ <close> = setmetatable({}, { __close = function() self:abandon() end })
  local ok, err = self:greet(deadline)
  if not (ok or self.closed) then self:disconnect(err) end
  self.greeting = false
  if ok then return true end
  return nil, self.lost
end

-- What comes before we have asked for anything is no answer. A gateway that serves somebody else may end the connection
-- with a word or without.
function Tcp:greet()
  self:linger(runtime.now() + self.banner)
  local said = self:take()
  if self.socket or self.closed then return self.socket ~= nil, self.lost end
  return nil, self:turned_away(said)
end

---Why the connection ended so early.
function Tcp:turned_away(said)
  if self.lost.code ~= "EOF" and self.lost.code ~= "ECONNRESET" then return self.lost end
  said = said:gsub("[^ -~]+", " "):sub(1, SAID):match "^ *(.-) *$"
  return Error.new("busy", "the gateway ends the connection at once: somebody else uses it"
    .. (said ~= "" and (' (it says "%s")'):format(said) or ""), { bus = self.name, code = self.lost.code })
end

function Tcp:ensure()
  if self.socket then return true end
  return self.backoff:persist(self.connect_timeout, function(deadline) return self:connect(deadline) end,
    function(seconds)
      self:linger(runtime.now() + seconds, true)
      if self.closed then return nil, self.lost end
      return true
    end)
end

-- --- receiving

function Tcp:listen()
  local socket = self.socket
  socket:read_start(function(err, bytes)
    if socket ~= self.socket then return end
    if not bytes then return self:disconnect(network.error(self.name, err or "EOF")) end
    local now = runtime.now()
    if self.flooded(#bytes, now) then return self:disconnect(network.flood(self.name)) end
    self:accept(bytes, now)
    self.news:wake()
  end)
end

---What came out of the socket.
function Tcp:accept(bytes, now)
  self.received[#self.received + 1] = bytes
  self.size = self.size + #bytes
  if self.greeting then return end
  self.path:received(#bytes, now)
  self.silence, self.unheard, self.alive = 0, nil, true
  if self.path.request == self.futile then self.futile, self.patience = nil, nil end
  self.backoff:worked()
end

---The connection is over. One that never brought a byte counts as an attempt that failed.
function Tcp:disconnect(err)
  if self.socket then
    runtime.close(self.socket)
    if not (self.alive or self.greeting) then self.backoff:failed(err, runtime.now()) end
  end
  self.socket, self.lost = nil, err
  self:wake()
end

---Ends a wait early: `read` returns without bytes.
function Tcp:wake() self.news:wake() end

-- Returns when something has come, when time is up, or when the connection has ended.
function Tcp:wait(seconds) self.news:wait(runtime.now() + seconds) end

-- Lets time pass; whatever comes, waits. With `unconnected` the end of the connection does not end it.
function Tcp:linger(deadline, unconnected)
  while not self.closed and (self.socket or unconnected) and runtime.now() < deadline do
    self:wait(deadline - runtime.now())
  end
end

function Tcp:take()
  if self.size == 0 then return "" end
  local received = self.received
  local bytes = received[2] and table.concat(received) or received[1]
  for i = #received, 1, -1 do received[i] = nil end
  self.size = 0
  return bytes
end

-- --- sending

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

-- The other side may have gone without a word: while answers are awaited, or in a pause, after which two requests tell. A
-- meter that is silent looks the same. So each new connection makes us more patient, and a pause no longer counts, until
-- what was asked in vain is answered, or for a day.
function Tcp:doubt()
  if not self.socket or self.probe == 0 then return end
  if self.futile and runtime.now() - self.doubted > DAY then self.futile, self.patience = nil, nil end
  local patience = self.patience or self.probe
  local lost_in_pause = not self.futile and (self.unheard or 0) >= ENOUGH
  if self.silence < patience and not lost_in_pause then return end
  self.patience = math.max(patience, math.min(PATIENCE, patience * 2))
  self.futile, self.doubted = self.path.request, runtime.now()
  self.alive = true -- it connects: no reason to wait before the next attempt
  self:disconnect(Error.new("closed", ("no byte came for %.1f s: connection given up"):format(self.silence), { bus = self.name }))
end

-- A request has gone out.
function Tcp:expect(bytes)
  local now = runtime.now()
  self.path:sent(bytes, now)
  if now - self.asked >= self.probe then self.unheard = self.unheard or 0 end
  if self.unheard then self.unheard = self.unheard + 1 end
  self.asked = now
end

-- Margin and the part of it that is held back follow what was measured, unless the user has said it.
function Tcp:learn()
  if not self.fixed then self.margin, self.held = self.path:margin() end
end

---What goes over the connection for a frame.
function Tcp.wrap(_, bytes) return bytes end

---@param bytes string
---@return boolean? ok, mbus.Error? err  refused unknown_host timeout closed busy
function Tcp:write(bytes)
  if self.socket then runtime.poll() end        -- has the connection ended since the last answer?
  if self.closed then return nil, self.lost end
  self:doubt()
  local ok, err = self:ensure()
  if not ok then return nil, err end
  local code = self:send(self:wrap(bytes))
  if code then
    if not self.closed then self:disconnect(network.error(self.name, code)) end
    return nil, self.lost
  end
  self:expect(bytes)
  self:learn()
  return true
end

---@param seconds number   how long to wait for the first byte; 0 only looks
---@param deadline? number  the same on the clock of `runtime.now`, where it is known
---@return string? bytes   "" when nothing came
---@return mbus.Error? err closed noise
function Tcp:read(seconds, deadline)
  local start = deadline and deadline - seconds or runtime.now()
  if self.size == 0 and self.socket then
    if seconds > 0 then self.news:wait(deadline or start + seconds) else runtime.poll() end
  end
  if self.closed then return nil, self.lost end
  if self.size > 0 then return self:take() end
  if not self.socket then return nil, self.lost end
  if self.path.open then self.silence = self.silence + runtime.now() - start end
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

-- --- opening

---@param class table      Tcp or what is built on it
---@param parsed mbus.Url
---@param options table    checked by mbus.transport
function M.new(class, parsed, options)
  local baudrate = options.baudrate or 2400
  local self = setmetatable({
    name = network.name(parsed.scheme, parsed.host, parsed.port),
    host = parsed.host,
    port = parsed.port,
    baudrate = baudrate,
    path = Path.new(baudrate), margin = options.margin, held = 0,
    backoff = Backoff.new(options.backoff, options.backoff_limit),
    received = {}, size = 0, news = runtime.event(),
  }, class)
  for _, setting in ipairs(SETTINGS) do self[setting] = options[setting] end
  if options.delay_ratio and options.delay_ratio ~= 1 then self.connect_timeout = self.connect_timeout * options.delay_ratio end
  self.fixed = options.margin and true or nil
  self:learn()
  return self
end

---Connects for the first time.
function M.start(self)
  local ok, err = self:connect(runtime.now() + self.connect_timeout)
  if not ok then
    self:close()
    return nil, err
  end
  return self
end

---@param parsed mbus.Url
---@param options table  checked by mbus.transport
---@return mbus.TcpTransport? transport
---@return mbus.Error? err  refused unknown_host timeout busy io
function M.open(parsed, options) return M.start(M.new(Tcp, parsed, options)) end

M.Tcp = Tcp

return M
