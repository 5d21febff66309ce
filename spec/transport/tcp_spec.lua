local runtime = require "mbus.runtime"
local transport = require "mbus.transport"

-- A gateway on the loopback. `serve(client, bytes)` is called with whatever comes.
local function gateway(serve, port)
  local uv = runtime.luv()
  local self = { clients = {}, server = uv.new_tcp() }
  assert(self.server:bind("127.0.0.1", port or 0))
  assert(self.server:listen(8, function()
    local client = uv.new_tcp()
    self.server:accept(client)
    self.clients[#self.clients + 1] = client
    client:read_start(function(_, bytes)
      if bytes then
        serve(client, bytes)
      elseif not client:is_closing() then
        client:close()
      end
    end)
  end))
  self.port = self.server:getsockname().port
  self.url = "tcp://127.0.0.1:" .. self.port
  function self.hang_up()
    for _, client in ipairs(self.clients) do
      if not client:is_closing() then client:close() end
    end
  end
  function self.reset()
    for _, client in ipairs(self.clients) do client:close_reset() end
  end
  function self.stop()
    self.hang_up()
    if not self.server:is_closing() then self.server:close() end
  end
  return self
end

-- Nothing greets here, and pauses are short.
local function open(url, options)
  local all = { banner = 0, backoff = 0.01, backoff_limit = 0.1 }
  for name, value in pairs(options or {}) do all[name] = value end
  return transport.open(url, all)
end

local function echo(client, bytes) client:write("<" .. bytes .. ">") end

describe("mbus.transport.tcp", function()
  local there

  before_each(function() there = gateway(echo) end)

  after_each(function()
    there.stop()
    runtime.run()
  end)

  it("has the properties of a transport", function()
    local line <close> = assert(open(there.url))
    assert.same({ there.url, 0.5, 2400 }, { line.name, line.gap, line.baudrate })
    -- 0.3 s, and a full frame's airtime until it is known that the gateway does not wait for whole answers
    assert.near(0.3 + 261 * 11 / 2400, line.margin, 1e-9)
    assert.near(261 * 11 / 2400, line.held, 1e-9)
    local other <close> = assert(open(there.url .. "?margin=1&baudrate=300", { margin = 3, gap = 2 }))
    assert.same({ 1, 2, 300 }, { other.margin, other.gap, other.baudrate })
  end)

  it("carries bytes, blocking and in coroutines", function()
    local line <close> = assert(open(there.url))
    local function exchange()
      assert.is_true(line:write "\x00hello\xff")
      return line:read(1)
    end
    assert.equal("<\x00hello\xff>", exchange())
    local answers = {}
    for number = 1, 5 do
      runtime.spawn(function()
        local own <close> = assert(open(there.url))
        assert(own:write(tostring(number)))
        answers[number] = own:read(1)
      end)
    end
    assert.same({}, answers)
    while #answers < 5 do runtime.sleep(0.001) end
    assert.same({ "<1>", "<2>", "<3>", "<4>", "<5>" }, answers)
  end)

  it("returns nothing when nothing comes, no earlier than asked", function()
    local line <close> = assert(open(there.url))
    local start = runtime.now()
    assert.equal("", line:read(0.02))
    assert.is_true(runtime.now() - start >= 0.02)
    assert.equal("", line:read(0))
  end)

  it("throws away what came unasked", function()
    local line <close> = assert(open(there.url))
    assert.equal("", line:drain())
    line:write "x"
    runtime.sleep(0.02)
    there.clients[1]:write "late"
    runtime.sleep(0.02)
    assert.equal("<x>late", line:drain())
    there.clients[1]:write "later"
    assert.equal("later", line:drain())
    assert.equal("", line:read(0))
  end)

  it("keeps no loop running while it is idle", function()
    local line <close> = assert(open(there.url))
    there.server:unref()
    runtime.sleep(0.01)
    there.clients[1]:unref()
    local start = runtime.now()
    runtime.run()
    assert.is_true(runtime.now() - start < 1)
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("ends a flood, which no serial line can be, within a fixed buffer", function()
    there.stop()
    there = gateway(function(client)
      for _ = 1, 16 do client:write(("0123456789abcdef"):rep(4096)) end
    end)
    local line <close> = assert(open(there.url))
    line:write "x"
    local bytes, err, most
    local start = runtime.now()
    repeat
      most = math.max(most or 0, line.size)
      bytes, err = line:read(1)
    until not bytes
    assert.is_true(most <= 2 * 65536)
    assert.equal("noise", err.kind)
    assert.matches("no M-Bus gateway", err.message, 1, true)
    assert.is_true(runtime.now() - start < 2)
  end)

  it("passes on more than the system takes at once", function()
    local count = 0
    there.stop()
    there = gateway(function(client, bytes)
      count = count + #bytes
      if count == 16 * 1024 * 1024 then client:write "all" end
    end)
    local line <close> = assert(open(there.url))
    assert.is_true(line:write(("x"):rep(16 * 1024 * 1024)))
    assert.equal("all", line:read(5))
  end)

  it("gives up on a gateway that takes nothing", function()
    there.stop()
    there = gateway(function(client) client:read_stop() end)
    local line <close> = assert(open(there.url, { connect_timeout = 0.1 }))
    line:write "x"
    runtime.sleep(0.01)
    local ok, err = line:write(("x"):rep(32 * 1024 * 1024))
    assert.is_nil(ok)
    assert.same({ "closed", "ETIMEDOUT" }, { err.kind, err.code })
    assert.equal(err, select(2, line:read(1)))
    assert.is_true(line:write "x")          -- over a new connection
  end)

  it("gives what came before the connection ended, then closed", function()
    there.stop()
    there = gateway(function(client)
      client:write("last words", function() client:close() end)
    end)
    local line <close> = assert(open(there.url))
    line:write "x"
    runtime.sleep(0.02)
    assert.equal("last words", line:read(1))
    for _ = 1, 2 do
      local bytes, err = line:read(1)
      assert.is_nil(bytes)
      assert.same({ "closed", "EOF" }, { err.kind, err.code })
      assert.equal(there.url .. ": the other side closed the connection", tostring(err))
    end
  end)

  it("tells a reset from a hang-up, and wakes the reader", function()
    local line <close> = assert(open(there.url))
    line:write "x"
    line:read(1)
    runtime.after(0.01, there.reset)
    local bytes, err = line:read(60)
    assert.is_nil(bytes)
    assert.same({ "closed", "ECONNRESET" }, { err.kind, err.code })
  end)

  for _, how in ipairs { "hang_up", "reset" } do
    it("connects once more for the write after a " .. how, function()
      local line <close> = assert(open(there.url))
      line:write "x"
      line:read(1)
      there[how]()
      assert.equal("", line:drain())
      assert.is_true(line:write "again")
      assert.equal("<again>", line:read(1))
      there[how]()
      assert.is_truthy(line.socket)         -- the other side has closed, and we have not looked yet
      assert.is_true(line:write "third")
      assert.equal("<third>", line:read(1))
      assert.equal(3, #there.clients)
    end)
  end

  it("throws a greeting away", function()
    there.stop()
    there = gateway(echo)
    local greeted = there.server
    greeted:listen(8, function()
      local client = runtime.luv().new_tcp()
      greeted:accept(client)
      there.clients[#there.clients + 1] = client
      client:write "Welcome to the gateway\r\n"
      runtime.after(0.03, function() client:write "Ready\r\n" end)
      client:read_start(function(_, bytes) if bytes then client:write("<" .. bytes .. ">") end end)
    end)
    local line <close> = assert(transport.open(there.url, { banner = 0.1 }))
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("says that somebody else uses the gateway, and what it says", function()
    there.stop()
    for _, text in ipairs { "", "Port already in use\r\n" } do
      there = gateway(echo)
      local rude = there.server
      rude:listen(8, function()
        local client = runtime.luv().new_tcp()
        rude:accept(client)
        client:write(text, function() client:close() end)
      end)
      local line, err = transport.open(there.url, { banner = 2 })
      there.stop()
      assert.is_nil(line)
      assert.equal("busy", err.kind)
      assert.equal(text ~= "", err.message:find('(it says "Port already in use")', 1, true) ~= nil)
    end
  end)

  -- A line with the meters x, y and z, of which those in `alive` answer; a connection that is deaf brings nothing.
  local alive, deaf
  local function bus(options)
    there.stop()
    alive, deaf = { x = true }, {}
    there = gateway(function(client, bytes)
      if alive[bytes] and not deaf[client] then client:write("<" .. bytes .. ">") end
    end)
    return assert(open(there.url, options))
  end

  local function deafen() deaf[there.clients[#there.clients]] = true end

  local function ask(line, meter)
    assert.is_true(line:write(meter))
    return line:read(alive[meter] and not deaf[there.clients[#there.clients]] and 1 or 0.01)
  end

  -- As if there had been nothing to ask for as long as the probe.
  local function pause(line) line.asked = line.asked - line.probe end

  it("makes a new connection when a gateway that had answered does not any more", function()
    local line <close> = bus { probe = 0.3 }
    assert.equal("<x>", ask(line, "x"))
    deafen()
    for _ = 1, 3 do assert.equal("", ask(line, "x")) end
    assert.equal(1, #there.clients)
    assert.equal("", line:read(0.3))
    assert.is_true(line:write "x")
    assert.equal("<x>", line:read(1))
    assert.equal(2, #there.clients)
  end)

  it("makes one sooner after a pause, in which the network may have forgotten the connection", function()
    local line <close> = bus { probe = 0.2 }
    for round = 1, 3 do
      assert.equal("<x>", ask(line, "x"))
      deafen()
      runtime.sleep(0.21)
      for _ = 1, 2 do assert.equal("", ask(line, "x")) end
      assert.equal(round, #there.clients)
      assert.is_true(line:write "x")
      assert.equal("<x>", line:read(1))
      assert.equal(round + 1, #there.clients)
    end
  end)

  it("notices it with one request a round, too", function()
    local line <close> = bus()
    assert.equal("<x>", ask(line, "x"))
    deafen()
    for _ = 1, 2 do
      pause(line)
      assert.equal("", ask(line, "x"))
    end
    pause(line)
    assert.is_true(line:write "x")
    assert.equal("<x>", line:read(1))
  end)

  it("does not take a pause for silence", function()
    local line <close> = bus { probe = 0.2 }
    for _ = 1, 3 do
      assert.equal("<x>", ask(line, "x"))
      for _ = 1, 3 do assert.equal("", ask(line, "y")) end
      runtime.sleep(0.21)
    end
    assert.equal(1, #there.clients)
  end)

  it("does not take listening for silence", function()
    local line <close> = bus { probe = 0.05 }
    assert.equal("<x>", ask(line, "x"))
    assert.equal("", line:read(0.06))
    assert.equal("<x>", ask(line, "x"))
    assert.equal(1, #there.clients)
  end)

  it("does not try again what has changed nothing: one meter is dead, whichever", function()
    for _, order in ipairs { { "y", "x", "z" }, { "x", "y", "z" }, { "x", "z", "y" } } do
      for _, tries in ipairs { 1, 3 } do
        local line <close> = bus()
        alive.z = true
        for _ = 1, 5 do
          for _, meter in ipairs(order) do
            for _ = 1, alive[meter] and 1 or tries do ask(line, meter) end
          end
          pause(line)
        end
        assert.is_true(#there.clients <= 2, #there.clients)
      end
    end
  end)

  it("does not try it again and again where silence is long in each round", function()
    local line <close> = bus()
    for _ = 1, 5 do
      assert.equal("<x>", ask(line, "x"))
      ask(line, "y")
      line.silence = line.silence + 15
      ask(line, "y")
    end
    assert.equal(2, #there.clients)
  end)

  it("is as alert as before when what was asked in vain is answered", function()
    local line <close> = bus()
    for _ = 1, 2 do
      pause(line)
      for _ = 1, 3 do ask(line, "y") end
      assert.equal("<x>", ask(line, "x"))
    end
    assert.equal(2, #there.clients)
    alive.y = true
    assert.equal("<y>", ask(line, "y"))
    alive.y = nil
    for clients = 3, 4 do
      pause(line)
      for _ = 1, 3 do ask(line, "y") end
      assert.equal(clients, #there.clients)
      assert.equal("<x>", ask(line, "x"))
      line.doubted = line.doubted - 86401   -- a day later, too
    end
  end)

  it("tries that ever more seldom where nobody has anything to say", function()
    for _, seconds in ipairs { 0, 0.025 } do
      local line <close> = bus { probe = 0.02 }
      local start = runtime.now()
      repeat
        ask(line, "y")
        runtime.sleep(seconds)
      until runtime.now() - start > 0.4
      assert.is_true(#there.clients >= 2 and #there.clients <= 5, #there.clients)
    end
    local patient <close> = bus { probe = 0 }
    for _ = 1, 5 do ask(patient, "y") end
    assert.equal(1, #there.clients)
  end)

  it("waits within a request for a gateway that is away for a moment", function()
    local line <close> = assert(open(there.url))
    line:write "x"
    line:read(1)
    there.stop()
    assert.equal("closed", select(2, line:read(1)).kind)
    runtime.after(0.1, function() there = gateway(echo, there.port) end)
    assert.is_true(line:write "back")
    assert.equal("<back>", line:read(1))
  end)

  it("does not storm a gateway that accepts and hangs up", function()
    there.stop()
    local count = 0
    there = gateway(echo)
    local server = there.server
    server:listen(8, function()
      local client = runtime.luv().new_tcp()
      server:accept(client)
      count = count + 1
      runtime.after(0.005, function() client:close() end)
    end)
    local line <close> = assert(open(there.url, { backoff = 0.05, backoff_limit = 0.2, connect_timeout = 0.5 }))
    local start = runtime.now()
    repeat
      if line:write "x" then line:read(0.05) end
    until runtime.now() - start > 0.5
    assert.is_true(count >= 2 and count <= 8, count)
  end)

  it("has the system ask whether the gateway lives", function()
    local tuner = require "mbus.socket"
    local line <close> = assert(open(there.url, { keepalive = 7, keepalive_interval = 3, keepalive_count = 2 }))
    assert.is_boolean(tuner.tune(line.socket:fileno(), 7, 3, 2, 5))
    assert.is_boolean(tuner.tune(line.socket:fileno(), 0, 1, 1, 0))
    assert.is_false(tuner.tune(-1, 7, 3, 2, 5))
    assert.has_error(function() tuner.tune(1, -1, 3, 2, 5) end)
    local without <close> = assert(open(there.url, { keepalive = 0 }))
    without:write "x"
    assert.equal("<x>", without:read(1))
  end)

  it("says so when the gateway does not come back, and works when it does", function()
    local line <close> = assert(open(there.url, { connect_timeout = 1 }))
    line:write "x"
    line:read(1)
    there.stop()
    local bytes, err = line:read(1)
    assert.is_nil(bytes)
    assert.equal("closed", err.kind)
    local ok
    ok, err = line:write "x"
    assert.is_nil(ok)
    assert.equal("refused", err.kind)
    assert.equal("refused", select(2, line:read(1)).kind)
    there = gateway(echo, there.port)
    assert.is_true(line:write "back")
    assert.equal("<back>", line:read(1))
  end)

  it("reports a refused connection", function()
    there.stop()
    local line, err = open(there.url)
    assert.is_nil(line)
    assert.same({ "refused", "ECONNREFUSED", there.url }, { err.kind, err.code, err.bus })
    assert.matches(there.url .. ": connection refused", tostring(err), 1, true)
  end)

  it("does not take itself for a gateway", function()
    -- TCP connects a socket to itself when the port that it got by chance is the one that it calls.
    there.stop()
    local uv = runtime.luv()
    local new_tcp <const> = uv.new_tcp
    uv.new_tcp = function()
      local socket = new_tcp()
      socket:bind("127.0.0.1", there.port)
      return socket
    end
    local line, err = open(there.url)
    uv.new_tcp = new_tcp
    assert.is_nil(line)
    assert.same({ "refused", "ECONNREFUSED" }, { err.kind, err.code })
  end)

  it("reports an unknown host", function()
    local line, err = transport.open "tcp://no-such-host.invalid:10001"
    assert.is_nil(line)
    assert.equal("unknown_host", err.kind)
    assert.matches("tcp://no-such-host.invalid:10001: unknown host", tostring(err), 1, true)
  end)

  -- A listener whose queue is full answers nothing to further connections.
  local function silent(host, port)
    local uv = runtime.luv()
    local sockets = { uv.new_tcp() }
    sockets[1]:bind(host, port)
    sockets[1]:listen(0, function() end)
    port = sockets[1]:getsockname().port
    for number = 2, 5 do
      sockets[number] = uv.new_tcp()
      sockets[number]:connect(host, port, function() end)
      runtime.sleep(0.005)
    end
    return port, function()
      for _, socket in ipairs(sockets) do socket:close() end
    end
  end

  it("gives up connecting after its time", function()
    local port, stop = silent("127.0.0.1", 0)
    local start = runtime.now()
    local line, err = transport.open("tcp://127.0.0.1:" .. port, { connect_timeout = 0.05 })
    stop()
    assert.is_nil(line)
    assert.equal("timeout", err.kind)
    assert.matches("no connection within 0.05 s", tostring(err), 1, true)
    assert.is_true(runtime.now() - start < 1)
  end)

  it("reaches a host whose first address is silent", function()
    local network = require "mbus.transport.network"
    local resolve = network.resolve
    local _, stop = silent("127.0.0.2", there.port)
    network.resolve = function() return { { addr = "127.0.0.2" }, { addr = "127.0.0.1" } } end
    finally(function()
      network.resolve = resolve
      stop()
    end)
    local line <close> = assert(open("tcp://gateway.example:" .. there.port, { connect_timeout = 0.5 }))
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("keeps the scope of an address", function()
    local network = require "mbus.transport.network"
    assert.same({ { addr = "fe80::1%eth0" } }, network.resolve("fe80::1%eth0", "stream", runtime.now() + 1))
  end)

  it("resolves names", function()
    local line <close> = assert(open("tcp://localhost:" .. there.port))
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("speaks IPv6", function()
    local uv = runtime.luv()
    local server = uv.new_tcp()
    finally(function() runtime.close(server) end)
    if not server:bind("::1", 0) or not server:listen(1, function()
      local client = uv.new_tcp()
      server:accept(client)
      client:read_start(function(_, bytes)
        if bytes then client:write("<" .. bytes .. ">") else client:close() end
      end)
    end) then
      pending "skipped: no IPv6 here"
      return
    end
    local line <close> = assert(open("tcp://[::1]:" .. server:getsockname().port))
    assert.matches("^tcp://%[::1%]:%d+$", line.name)
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("wakes a reader when it is closed, and stays closed", function()
    local line = assert(open(there.url))
    local bytes, err
    runtime.spawn(function() bytes, err = line:read(60) end)
    line:close()
    line:close()
    assert.is_nil(bytes)
    assert.equal("closed", err.kind)
    for _, call in ipairs { "write", "read", "drain" } do
      bytes, err = line[call](line, call == "write" and "x" or 0)
      assert.is_nil(bytes)
      assert.same({ "closed", "the connection is closed" }, { err.kind, err.message }, call)
    end
  end)

  it("leaves no handles behind, whatever happened", function()
    local uv = runtime.luv()
    local function handles()
      local count = 0
      uv.walk(function(handle) if handle:is_active() then count = count + 1 end end)
      return count
    end
    there.stop()
    runtime.run()
    local before = handles()
    there = gateway(echo)
    local line = assert(open(there.url))
    line:write "x"
    line:read(1)
    coroutine.close(runtime.spawn(function() line:read(60) end))
    coroutine.close(runtime.spawn(function() open(there.url) end))
    local greeted = runtime.spawn(function() transport.open(there.url, { banner = 60 }) end)
    runtime.sleep(0.05)
    coroutine.close(greeted)
    line:close()
    there.stop()
    open(there.url)
    runtime.run()
    assert.equal(before, handles())
  end)
end)
