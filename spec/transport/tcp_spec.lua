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

local function echo(client, bytes) client:write("<" .. bytes .. ">") end

describe("mbus.transport.tcp", function()
  local there

  before_each(function() there = gateway(echo) end)

  after_each(function()
    there.stop()
    runtime.run()
  end)

  it("has the properties of a transport", function()
    local line <close> = assert(transport.open(there.url))
    assert.same({ there.url, 0.3, 0.5, 2400 }, { line.name, line.margin, line.gap, line.baudrate })
    local other <close> = assert(transport.open(there.url .. "?margin=1&baudrate=300", { margin = 3, gap = 2 }))
    assert.same({ 1, 2, 300 }, { other.margin, other.gap, other.baudrate })
  end)

  it("carries bytes, blocking and in coroutines", function()
    local line <close> = assert(transport.open(there.url))
    local function exchange()
      assert.is_true(line:write "\x00hello\xff")
      return line:read(1)
    end
    assert.equal("<\x00hello\xff>", exchange())
    local answers = {}
    for number = 1, 5 do
      runtime.spawn(function()
        local own <close> = assert(transport.open(there.url))
        assert(own:write(tostring(number)))
        answers[number] = own:read(1)
      end)
    end
    assert.same({}, answers)
    while #answers < 5 do runtime.sleep(0.001) end
    assert.same({ "<1>", "<2>", "<3>", "<4>", "<5>" }, answers)
  end)

  it("returns nothing when nothing comes, no earlier than asked", function()
    local line <close> = assert(transport.open(there.url))
    local start = runtime.now()
    assert.equal("", line:read(0.02))
    assert.is_true(runtime.now() - start >= 0.02)
    assert.equal("", line:read(0))
  end)

  it("throws away what came unasked", function()
    local line <close> = assert(transport.open(there.url))
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
    local line <close> = assert(transport.open(there.url))
    there.server:unref()
    runtime.sleep(0.01)
    there.clients[1]:unref()
    local start = runtime.now()
    runtime.run()
    assert.is_true(runtime.now() - start < 1)
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("passes on large answers although nobody reads for a while", function()
    local line <close> = assert(transport.open(there.url))
    line:write "x"
    assert.equal("<x>", line:read(1))
    local sent = ("0123456789abcdef"):rep(65536)
    there.clients[1]:write(sent)
    runtime.sleep(0.02)
    assert.is_true(line.size < 400000)
    local got = {}
    repeat
      local bytes = assert(line:read(1))
      got[#got + 1] = bytes
    until bytes == "" or #table.concat(got) >= #sent
    assert.equal(sent, table.concat(got))
  end)

  it("passes on more than the system takes at once", function()
    local count = 0
    there.stop()
    there = gateway(function(client, bytes)
      count = count + #bytes
      if count == 16 * 1024 * 1024 then client:write "all" end
    end)
    local line <close> = assert(transport.open(there.url))
    assert.is_true(line:write(("x"):rep(16 * 1024 * 1024)))
    assert.equal("all", line:read(5))
  end)

  it("gives up on a gateway that takes nothing", function()
    there.stop()
    there = gateway(function(client) client:read_stop() end)
    local line <close> = assert(transport.open(there.url, { connect_timeout = 0.1 }))
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
    local line <close> = assert(transport.open(there.url))
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
    local line <close> = assert(transport.open(there.url))
    line:write "x"
    line:read(1)
    runtime.after(0.01, there.reset)
    local bytes, err = line:read(60)
    assert.is_nil(bytes)
    assert.same({ "closed", "ECONNRESET" }, { err.kind, err.code })
  end)

  for _, how in ipairs { "hang_up", "reset" } do
    it("connects once more for the write after a " .. how, function()
      local line <close> = assert(transport.open(there.url))
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

  it("says so when the gateway does not come back, and works when it does", function()
    local line <close> = assert(transport.open(there.url))
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
    local line, err = transport.open(there.url)
    assert.is_nil(line)
    assert.same({ "refused", "ECONNREFUSED", there.url }, { err.kind, err.code, err.bus })
    assert.matches(there.url .. ": connection refused", tostring(err), 1, true)
  end)

  it("reports an unknown host", function()
    local line, err = transport.open "tcp://no-such-host.invalid:10001"
    assert.is_nil(line)
    assert.equal("unknown_host", err.kind)
    assert.matches("tcp://no-such-host.invalid:10001: unknown host", tostring(err), 1, true)
  end)

  it("gives up connecting after its time", function()
    -- A listener whose queue is full answers nothing to further connections.
    local uv = runtime.luv()
    local deaf, waiting = uv.new_tcp(), {}
    deaf:bind("127.0.0.1", 0)
    deaf:listen(0, function() end)
    local port = deaf:getsockname().port
    for number = 1, 4 do
      waiting[number] = uv.new_tcp()
      waiting[number]:connect("127.0.0.1", port, function() end)
      runtime.sleep(0.005)
    end
    local start = runtime.now()
    local line, err = transport.open("tcp://127.0.0.1:" .. port, { connect_timeout = 0.05 })
    for _, socket in ipairs(waiting) do socket:close() end
    deaf:close()
    assert.is_nil(line)
    assert.equal("timeout", err.kind)
    assert.matches("no connection within 0.05 s", tostring(err), 1, true)
    assert.is_true(runtime.now() - start < 1)
  end)

  it("resolves names", function()
    local line <close> = assert(transport.open("tcp://localhost:" .. there.port))
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("wakes a reader when it is closed, and stays closed", function()
    local line = assert(transport.open(there.url))
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
      uv.walk(function(handle) if not handle:is_closing() then count = count + 1 end end)
      return count
    end
    there.stop()
    runtime.run()
    local before = handles()
    there = gateway(echo)
    local line = assert(transport.open(there.url))
    line:write "x"
    line:read(1)
    coroutine.close(runtime.spawn(function() line:read(60) end))
    coroutine.close(runtime.spawn(function() transport.open(there.url) end))
    line:close()
    there.stop()
    transport.open(there.url)
    runtime.run()
    assert.equal(before, handles())
  end)
end)
