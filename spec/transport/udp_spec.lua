local core = require "mbus.core"
local network = require "mbus.transport.network"
local runtime = require "mbus.runtime"
local transport = require "mbus.transport"

-- A gateway on the loopback: `serve(put, bytes)` is called with each datagram.
local function gateway(serve, host, port)
  local uv = runtime.luv()
  local self = { datagrams = {}, socket = uv.new_udp() }
  assert(self.socket:bind(host or "127.0.0.1", port or 0))
  self.port = self.socket:getsockname().port
  self.url = "udp://127.0.0.1:" .. self.port
  self.socket:recv_start(function(_, bytes, from)
    if not bytes or not from then return end
    self.put = function(answer)
      if not self.socket:is_closing() then self.socket:try_send(answer, from.ip, from.port) end
    end
    self.datagrams[#self.datagrams + 1], self.client = bytes, from
    serve(self.put, bytes)
  end)
  function self.stop()
    if not self.socket:is_closing() then self.socket:close() end
  end
  return self
end

local function echo(put, bytes) put("<" .. bytes .. ">") end

local FRAME = core.long(0x08, 5, 0x72, "abcdefgh")
local OTHER = core.long(0x08, 6, 0x72, "abcdefgh")

describe("mbus.transport.udp", function()
  local there

  after_each(function()
    if there then there.stop() end
    runtime.run()
  end)

  local function all(line)
    local parts = {}
    repeat
      local bytes = assert(line:read(0.03))
      parts[#parts + 1] = bytes
    until bytes == ""
    return table.concat(parts)
  end

  it("sends a frame as one datagram, blocking and in coroutines", function()
    there = gateway(echo)
    local line <close> = assert(transport.open(there.url))
    assert.equal(there.url, line.name)
    local function exchange()
      assert.is_true(line:write(FRAME))
      assert.equal("<" .. FRAME .. ">", line:read(1))
      return true
    end
    exchange()
    local done
    runtime.spawn(function() done = exchange() end)
    local deadline = runtime.now() + 5
    while not done and runtime.now() < deadline do runtime.sleep(0.005) end
    assert.is_true(done)
    assert.same({ FRAME, FRAME }, there.datagrams)
  end)

  it("puts together what comes in several datagrams, and keeps several frames in one", function()
    there = gateway(function(put)
      for part in FRAME:gmatch "..?.?" do put(part) end
      put(OTHER .. "\xE5" .. FRAME)
    end)
    local line <close> = assert(transport.open(there.url))
    line:write "x"
    assert.equal(FRAME .. OTHER .. "\xE5" .. FRAME, all(line))
  end)

  it("shows who only listens all that is sent, also what is sent again", function()
    there = gateway(function(put)
      for _ = 1, 5 do
        put(FRAME)
        put(core.ACK)
      end
    end)
    local line <close> = assert(transport.open(there.url))
    line.socket:try_send("?", nil, nil) -- without a request of ours
    local got, deadline = "", runtime.now() + 2
    while #got < 5 * (#FRAME + 1) and runtime.now() < deadline do got = got .. assert(line:read(0.1)) end
    assert.equal((FRAME .. core.ACK):rep(5), got)
  end)

  it("drops the copies of data that a network makes, but no acknowledgement, which may be that of another meter", function()
    there = gateway(function(put)
      for _ = 1, 3 do put(FRAME) end
      put(OTHER)
      put(FRAME)
      put "\xE5"
      put "\xE5"
      for _ = 1, 2 do put "\0\0\0\0" end              -- no frame: parts of one may be alike
    end)
    local line <close> = assert(transport.open(there.url))
    for _ = 1, 2 do                                   -- the same answer to the next request is none
      line:write "x"
      assert.equal(FRAME .. OTHER .. "\xE5\xE5" .. ("\0"):rep(8), all(line))
    end
  end)

  it("drops what comes late", function()
    there = gateway(function() end)
    local line <close> = assert(transport.open(there.url))
    line:write "x"
    runtime.sleep(0.01)
    there.put(FRAME)
    runtime.sleep(0.01)
    assert.equal(FRAME, line:drain())
    there.put(OTHER)
    line:write "y"
    assert.equal("", line:read(0.02))
  end)

  it("returns nothing when nothing comes, no earlier than asked", function()
    there = gateway(function() end)
    local line <close> = assert(transport.open(there.url))
    local start = runtime.now()
    line:write "x"
    assert.equal("", line:read(0.02))
    assert.is_true(runtime.now() - start >= 0.02)
    assert.equal("", line:read(0))
  end)

  it("listens to its gateway alone", function()
    there = gateway(echo)
    local line <close> = assert(transport.open(there.url))
    local own = line.socket:getsockname()
    local stranger = runtime.luv().new_udp()
    line:write "x"
    stranger:try_send("intruder", "127.0.0.1", own.port)
    assert.equal("<x>", all(line))
    stranger:close()
  end)

  it("says that nobody is there, and goes on when somebody is", function()
    there = gateway(echo)
    local port = there.port
    local line <close> = assert(transport.open(there.url))
    there.stop()
    runtime.sleep(0.01)
    assert.is_true(line:write "x")
    local bytes, err = line:read(1)
    assert.is_nil(bytes)
    assert.equal("refused", err.kind)
    local uv = runtime.luv()
    local back = uv.new_udp()
    assert(back:bind("127.0.0.1", port))
    back:recv_start(function(_, got, from)
      if got and from then back:try_send("<" .. got .. ">", from.ip, from.port) end
    end)
    for _ = 1, 2 do
      assert.is_true(line:write "y")
      assert.equal("<y>", line:read(1))
    end
    back:close()
  end)

  it("keeps its buffer when it is flooded", function()
    there = gateway(function(put)
      for i = 1, 200 do put(("%04d"):format(i):rep(250)) end
    end)
    local line <close> = assert(transport.open(there.url))
    line:write "x"
    local total = 0
    while true do
      local bytes, err = line:read(0.2)
      if not bytes then assert.equal("noise", err.kind) end
      if not bytes or bytes == "" then break end
      total = total + #bytes
    end
    assert.is_true(total <= 70000, total)
  end)

  it("knows hosts by name, and says that one is unknown", function()
    there = gateway(echo)
    local line <close> = assert(transport.open("udp://localhost:" .. there.port))
    assert.is_true(line:write "x")
    local none, err = transport.open "udp://no-such-host.invalid:10001"
    assert.is_nil(none)
    assert.equal("unknown_host", err.kind)
  end)

  describe("looks for the way again", function()
    local uv = runtime.luv()
    local new_udp <const>, resolve <const> = uv.new_udp, network.resolve
    local faults, lookups, addresses

    -- Sockets that fail as `faults` says: what a function of theirs returns.
    local Faulty = { __index = function(self, name)
      return function(_, ...)
        if faults[name] then return nil, faults[name] .. ": as told", faults[name] end
        return self.socket[name](self.socket, ...)
      end
    end }

    before_each(function()
      faults, lookups, addresses = {}, 0, { { addr = "127.0.0.1" } }
      uv.new_udp = function() return setmetatable({ socket = new_udp() }, Faulty) end
      network.resolve = function()
        lookups = lookups + 1
        if addresses.code then return nil, addresses.code end
        return addresses
      end
      there = gateway(echo)
    end)

    after_each(function() uv.new_udp, network.resolve = new_udp, resolve end)

    local function open()
      local line = assert(transport.open("udp://gateway.example:" .. there.port, { connect_timeout = 0.3 }))
      line.backoff.first = 0.02
      return line
    end

    local function assert_works(line)
      assert.is_true(line:write "x")
      assert.equal("<x>", line:read(1))
    end

    local function ask_in_vain(line, count)
      for _ = 1, count do
        assert.is_true(line:write "x")
        assert.equal("", line:read(0.002))
      end
    end

    it("after an error of a request, which it says", function()
      local line <close> = open()
      for _, code in ipairs { "EINVAL", "EADDRNOTAVAIL", "ENETUNREACH", "EHOSTUNREACH" } do
        local socket = line.socket
        faults.try_send = code
        local ok, err = line:write "x"
        assert.is_nil(ok)
        assert.same({ code, line.name }, { err.code, err.bus })
        assert.equal(err, select(2, line:read(1)))
        assert.equal("", line:drain())
        assert.is_true(socket:is_closing())
        faults.try_send = nil
        assert_works(line)
      end
      assert.equal(5, lookups)
    end)

    it("but not after a refusal", function()
      local line <close> = open()
      local socket = line.socket
      faults.try_send = "ECONNREFUSED"
      assert.equal("refused", select(2, line:write "x").kind)
      faults.try_send = nil
      assert_works(line)
      assert.equal(socket, line.socket)
    end)

    it("after an error that the network tells of, also to who waits", function()
      local heard
      uv.new_udp = function()
        local socket = setmetatable({ socket = new_udp() }, Faulty)
        socket.recv_start = function(self, callback)
          heard = callback
          return self.socket:recv_start(callback)
        end
        return socket
      end
      local line <close> = open()
      local socket = line.socket
      line:write "x"
      line:read(1)
      runtime.after(0.01, function() heard "EHOSTUNREACH" end)
      local start = runtime.now()
      assert.equal("unknown_host", select(2, line:read(5)).kind)
      assert.is_true(runtime.now() - start < 1)
      assert.is_true(socket:is_closing())
      assert_works(line)
    end)

    it("and waits a little where there is none", function()
      local line <close> = open()
      faults.try_send, faults.connect = "ENETUNREACH", "ENETUNREACH"
      assert.equal("ENETUNREACH", select(2, line:write "x").code)
      faults.try_send = nil
      runtime.after(0.05, function() faults.connect = nil end)
      assert_works(line)
    end)

    it("and says so where there is none for long", function()
      local line <close> = open()
      line.backoff.limit = 0.05
      faults.try_send, faults.connect = "EINVAL", "ENETUNREACH"
      line:write "x"
      local start, attempts = runtime.now(), lookups
      repeat
        local ok, err = line:write "x"
        assert.is_nil(ok)
        assert.same({ "unknown_host", "ENETUNREACH" }, { err.kind, err.code })
      until runtime.now() - start > 0.4
      assert.is_true(lookups - attempts <= 30, lookups - attempts)
      faults = {}
      runtime.sleep(0.1)
      assert_works(line)
    end)

    it("and stays closed when it is closed meanwhile", function()
      local line = open()
      faults.try_send, faults.connect = "EINVAL", "EINVAL"
      line:write "x"
      local err
      local waiter = runtime.spawn(function() err = select(2, line:write "x") end)
      line:close()
      runtime.sleep(0.01)
      assert.equal("dead", coroutine.status(waiter))
      assert.equal("closed", err.kind)
    end)

    it("and makes no socket for who has closed it meanwhile", function()
      local line = open()
      network.resolve = function()
        line:close()
        return addresses
      end
      faults.try_send = "EINVAL"
      line:write "x"
      assert.equal("closed", select(2, line:write "x").kind)
      assert.is_nil(line.socket)
    end)

    it("when the name has a new address", function()
      local silent = gateway(function() end, "127.0.0.2", there.port)
      finally(silent.stop)
      addresses = { { addr = "127.0.0.2" } }
      local line <close> = open()
      addresses = { { addr = "127.0.0.1" } }
      ask_in_vain(line, 3)
      assert_works(line)
    end)

    it("when its own address is another", function()
      there.stop()
      there = gateway(function(put, bytes) if there.client.ip == "127.0.0.3" then echo(put, bytes) end end)
      local line <close> = open()
      uv.new_udp = function()
        local socket = new_udp()
        socket:bind("127.0.0.3", 0)
        return socket
      end
      ask_in_vain(line, 3)
      assert_works(line)
    end)

    it("and keeps its socket when it is the same", function()
      there.stop()
      there = gateway(function() end)
      local line <close> = open()
      local socket = line.socket
      ask_in_vain(line, 4)
      addresses = { { addr = "127.0.0.2" }, { addr = "127.0.0.1" } } -- as name servers do
      ask_in_vain(line, 3)
      assert.equal(socket, line.socket)
      assert.equal(3, lookups)
    end)

    it("seldom where no name server answers, and goes on meanwhile", function()
      there.stop()
      there = gateway(function() end)
      local line <close> = open()
      line.backoff.first = 30
      addresses = { code = "EAI_AGAIN" }
      ask_in_vain(line, 10)
      assert.equal(2, lookups)
      assert.equal(10, #there.datagrams)
      there.stop()
      there = gateway(echo, nil, there.port)
      assert_works(line)
    end)
  end)

  it("wakes a reader when it is closed, and stays closed", function()
    there = gateway(echo)
    local line = assert(transport.open(there.url))
    local err
    runtime.spawn(function() err = select(2, line:read(60)) end)
    line:close()
    line:close()
    assert.equal("closed", err.kind)
    for _, call in ipairs { "write", "read", "drain" } do
      assert.equal("closed", select(2, line[call](line, call == "write" and "x" or 0)).kind, call)
    end
  end)
end)
