---What stands between a master and a simulated bus in the specs of the transports: gateways that fail as real ones do, a
---UDP gateway, and the real servers ser2net and socat. All on the loopback, with the simulator's real timing behind them.
local runtime = require "mbus.runtime"
local server = require "mbus.simulator.server"
local simulator = require "mbus.simulator"

local M = {}

local HOST = "127.0.0.1"

---@param baudrate? integer
---@return table sim  the built-in house
function M.house(baudrate)
  local description = assert(simulator.load "house")
  description.baudrate = baudrate or 2400
  return assert(simulator.new(description))
end

-- Values of one meter as a text.
local function values(readout)
  local parts = {}
  for _, record in readout:records() do parts[#parts + 1] = ("%s=%s"):format(record.quantity, tostring(record.value)) end
  return table.concat(parts, " ")
end

---@param wanted? (integer|string)[]  all eleven if absent, by identification number, since two share a primary address
---@return (integer|string)[] addresses
---@return table<integer|string, string> truth  what each has to say
function M.truth(wanted)
  local sim = M.house()
  local addresses, truth = wanted or {}, {}
  for i, meter in ipairs(wanted and {} or sim.meters) do addresses[i] = meter.id .. "FFFFFFFF" end
  local bus <close> = assert(require("mbus").open(sim))
  for _, address in ipairs(addresses) do truth[address] = values(assert(bus:read(address))) end
  return addresses, truth
end

---Reads all meters once.
---@return table  good, wrong (counts), errors (count by kind), longest (seconds of one request), seconds, good_at (times at
--- which a meter was read)
function M.read_all(bus, addresses, truth)
  local result = { good = 0, wrong = 0, errors = {}, longest = 0, good_at = {} }
  local start = runtime.now()
  for _, address in ipairs(addresses) do
    local began = runtime.now()
    local readout, err = bus:read(address)
    result.longest = math.max(result.longest, runtime.now() - began)
    if not readout then
      result.errors[err.kind] = (result.errors[err.kind] or 0) + 1
    elseif values(readout) == truth[address] then
      result.good = result.good + 1
      result.good_at[result.good] = runtime.now()
    else
      result.wrong = result.wrong + 1
    end
  end
  result.seconds = runtime.now() - start
  return result
end

-- --- a gateway with faults

local function close(handle)
  if handle and not handle:is_closing() then runtime.close(handle) end
end

local Gateway = {}
Gateway.__index = Gateway

-- What the gateway does with the bytes of the line: each takes (self, connection, bytes).
local deliver = {}

local function put(connection, bytes)
  if not connection.client:is_closing() then connection.client:write(bytes) end
end

function deliver.at_once(_, connection, bytes) put(connection, bytes) end

-- One byte a packet, each a little later than the one before.
function deliver.drip(_, connection, bytes)
  connection.queue = (connection.queue or "") .. bytes
  if connection.dripping then return end
  connection.dripping = true
  local function next_byte()
    if connection.queue == "" then
      connection.dripping = false
      return
    end
    put(connection, connection.queue:sub(1, 1))
    connection.queue = connection.queue:sub(2)
    runtime.after(0.001, next_byte)
  end
  next_byte()
end

function deliver.late(self, connection, bytes)
  runtime.after(self.latency, function() put(connection, bytes) end)
end

-- Whole answers: what came until the line is silent.
function deliver.whole(self, connection, bytes)
  connection.queue = (connection.queue or "") .. bytes
  if connection.cancel then connection.cancel() end
  connection.cancel = runtime.after(self.packing, function()
    local all = connection.queue
    connection.queue, connection.cancel = "", nil
    connection.answers = (connection.answers or 0) + 1
    if self.glue and connection.answers % self.glue == 0 then
      connection.held = all               -- goes out with the next one
      return
    end
    put(connection, (connection.held or "") .. all)
    connection.held = nil
  end)
end

local function hang_up(self, connection)
  close(connection.client)
  close(connection.upstream)
  self.connections[connection] = nil
end

-- What goes wrong, once, after so many bytes of the line: each takes (self, connection).
local fail = {}

fail.closes = hang_up

function fail.resets(self, connection)
  if not connection.client:is_closing() then connection.client:close_reset() end
  hang_up(self, connection)
end

function fail.hangs(_, connection) connection.deaf = true end

function fail.refuses(self, connection)
  self:stop_listening()
  hang_up(self, connection)
  runtime.after(self.away, function() if not self.closed then self:listen() end end)
end

local function from_line(self, connection, bytes)
  if connection.deaf then return end
  self.count = self.count + #bytes
  if self.fault and self.count >= self.after and not self.failed then
    self.failed = runtime.now()
    return fail[self.fault](self, connection)
  end
  deliver[self.delivery](self, connection, bytes)
end

local function accept(self)
  local uv = runtime.luv()
  local connection = { client = uv.new_tcp(), upstream = uv.new_tcp() }
  self.listener:accept(connection.client)
  if self.exclusive and next(self.connections) then
    close(connection.client)
    close(connection.upstream)
    return
  end
  self.connections[connection] = true
  self.accepted = self.accepted + 1
  connection.client:nodelay(true)
  if self.greeting then connection.client:write(self.greeting) end
  local function chatter()
    if connection.client:is_closing() then return end
    put(connection, "\x68")
    runtime.after(self.chatter, chatter)
  end
  if self.chatter then chatter() end
  connection.upstream:connect(HOST, self.upstream, function(err)
    if err or connection.upstream:is_closing() then return hang_up(self, connection) end
    connection.upstream:nodelay(true)
    connection.upstream:read_start(function(_, bytes)
      if not bytes then return hang_up(self, connection) end
      from_line(self, connection, bytes)
    end)
  end)
  connection.client:read_start(function(_, bytes)
    if not bytes then return hang_up(self, connection) end
    if not connection.deaf and not connection.upstream:is_closing() then connection.upstream:write(bytes) end
  end)
end

function Gateway:listen()
  self.listener = runtime.luv().new_tcp()
  assert(self.listener:bind(HOST, self.port or 0))
  assert(self.listener:listen(8, function() accept(self) end))
  self.port = self.listener:getsockname().port
end

function Gateway:stop_listening() close(self.listener) end

function Gateway:close()
  if self.closed then return end
  self.closed = true
  self:stop_listening()
  for connection in pairs(self.connections) do hang_up(self, connection) end
  self.served:close()
end
Gateway.__close = Gateway.close

---@param sim table
---@param options? table  fault: "closes" "resets" "hangs" "refuses" (once, after `after` bytes of the line, `away` seconds),
--- delivery: "at_once" "drip" "late" (`latency` seconds) "whole" (`packing` seconds; every `glue`-th answer with the next),
--- exclusive: a second client is sent away, greeting: text, chatter: seconds between bytes that mean nothing
function M.tcp(sim, options)
  local self = setmetatable({ delivery = "at_once", after = 200, away = 10, latency = 0.3, packing = 0.03, count = 0,
    accepted = 0, connections = {} }, Gateway)
  for name, value in pairs(options or {}) do self[name] = value end
  self.served = assert(server.tcp(sim))
  self.upstream = self.served.port
  self:listen()
  self.url = ("tcp://%s:%d"):format(HOST, self.port)
  return self
end

-- --- a UDP gateway

---@param sim table
---@param options? table  copies: how often each datagram is sent; late: seconds that the first answer is late
function M.udp(sim, options)
  options = options or {}
  local uv = runtime.luv()
  local self = { served = assert(server.tcp(sim)), datagrams = 0 }
  local socket, upstream = uv.new_udp(), uv.new_tcp()
  local peer, queue, cancel
  local function send(bytes)
    if socket:is_closing() then return end
    for _ = 1, options.copies or 1 do socket:try_send(bytes, peer.ip, peer.port) end
  end
  socket:bind(HOST, 0)
  self.url = ("udp://%s:%d"):format(HOST, socket:getsockname().port)
  upstream:connect(HOST, self.served.port, function()
    upstream:nodelay(true)
    upstream:read_start(function(_, bytes)
      queue = (queue or "") .. (bytes or "")
      if cancel then cancel() end
      cancel = runtime.after(0.02, function()
        local all = queue
        queue, cancel = nil, nil
        local late = options.late
        options.late = nil
        if late then runtime.after(late, function() send(all) end) else send(all) end
      end)
    end)
  end)
  socket:recv_start(function(_, bytes, from)
    if not bytes or not from then return end
    peer, self.datagrams = from, self.datagrams + 1
    upstream:write(bytes)
  end)
  function self.close()
    close(socket)
    close(upstream)
    self.served:close()
  end
  return setmetatable(self, { __close = self.close })
end

-- --- real servers

---@return string? path
function M.find(program)
  for _, folder in ipairs { "/usr/sbin/", "/usr/bin/", "/usr/local/sbin/", "/usr/local/bin/" } do
    if runtime.luv().fs_access(folder .. program, "X") then return folder .. program end
  end
end

local function free_port()
  local socket = runtime.luv().new_tcp()
  socket:bind(HOST, 0)
  local port = socket:getsockname().port
  close(socket)
  runtime.sleep(0)
  return port
end

-- Looks without connecting: these servers have room for one client.
local function is_listening(port)
  local wanted = (":%04X 00000000:0000 0A"):format(port)
  for _, name in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
    local file <close> = io.open(name)
    local text = file and file:read "a" or ""
    if text:find(wanted, 1, true) or text:find((":%04X %s:0000 0A"):format(port, ("0"):rep(32)), 1, true) then return true end
  end
  return false
end

-- `timeout` ends what a killed spec leaves behind.
local function start(program, arguments, port)
  local uv = runtime.luv()
  local ended = false
  local process
  local all = { "-k", "1", "400", program, table.unpack(arguments) }
  process = assert(uv.spawn("timeout", { args = all, stdio = { nil, nil, nil } }, function()
    ended = true
    close(process)
  end))
  local deadline = runtime.now() + 10
  while not ended and not is_listening(port) do
    assert(runtime.now() < deadline, program .. " does not listen")
    runtime.sleep(0.01)
  end
  assert(not ended, program .. " has ended")
  return function()
    if not ended then process:kill "sigterm" end
    while not ended do runtime.sleep(0.005) end
  end
end

local function with_server(sim, launch)
  local served = assert(server.pty(sim))
  local port = free_port()
  local stop, cleanup = launch(served.path, port)
  local self = { port = port, path = served.path }
  function self.close()
    stop()
    served:close()
    if cleanup then cleanup() end
  end
  return setmetatable(self, { __close = self.close })
end

---@param sim table
---@param mode "raw"|"rfc2217"|"telnet"
function M.ser2net(sim, mode)
  local accepter = { raw = "tcp", rfc2217 = "telnet(rfc2217),tcp", telnet = "telnet,tcp" }
  return with_server(sim, function(path, port)
    local name = os.tmpname()
    local file <close> = assert(io.open(name, "w"))
    file:write(("%%YAML 1.1\n---\nconnection: &mbus\n  accepter: %s,%s,%d\n  enable: on\n"):format(accepter[mode], HOST, port),
      ("  connector: serialdev,%s,%de81,local\n  options:\n    chardelay: false\n"):format(path, sim.baudrate))
    file:close()
    local stop = start(M.find "ser2net", { "-n", "-u", "-c", name }, port)
    return stop, function() os.remove(name) end
  end)
end

---@param sim table
function M.socat(sim)
  return with_server(sim, function(path, port)
    return start(M.find "socat", { ("TCP-LISTEN:%d,bind=%s,reuseaddr,fork"):format(port, HOST),
      ("FILE:%s,b%d,cs8,raw,echo=0"):format(path, sim.baudrate) }, port)
  end)
end

return M
