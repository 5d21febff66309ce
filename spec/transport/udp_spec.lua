local core = require "mbus.core"
local runtime = require "mbus.runtime"
local transport = require "mbus.transport"

-- A gateway on the loopback: `serve(put, bytes)` is called with each datagram.
local function gateway(serve)
  local uv = runtime.luv()
  local self = { datagrams = {}, socket = uv.new_udp() }
  self.socket:bind("127.0.0.1", 0)
  self.port = self.socket:getsockname().port
  self.url = "udp://127.0.0.1:" .. self.port
  self.socket:recv_start(function(_, bytes, from)
    if not bytes or not from then return end
    self.put = function(answer)
      if not self.socket:is_closing() then self.socket:try_send(answer, from.ip, from.port) end
    end
    self.datagrams[#self.datagrams + 1] = bytes
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

  it("drops the copies that a network makes", function()
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
      assert.equal(FRAME .. OTHER .. "\xE5" .. ("\0"):rep(8), all(line))
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
