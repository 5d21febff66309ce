local core = require "mbus.core"
local runtime = require "mbus.runtime"
local server = require "mbus.simulator.server"
local simulator = require "mbus.simulator"

local LATE = 0.05 -- seconds that a busy machine may take

local function new_sim()
  return assert(simulator.new { baudrate = 9600, meters = { { address = 5, delay = 0.03,
    telegrams = { { data = "78 56 34 12 24 40 01 07 55 00 00 00 0D 13 30" .. (" 55"):rep(48) } } } } })
end

local NKE, REQUEST = core.short(0x40, 5), core.short(0x7B, 5)
local ANSWER = core.long(0x08, 5, 0x72, core.unhex("7856341224400107550000000D1330" .. ("55"):rep(48)))

-- When each byte of an answer of n bytes is complete, counted from the writing of a request of 5.
local function due(n) return (5 + n) * 11 / 9600 + 0.03 end

local function assert_on_time(arrivals, expected)
  local received = 0
  for _, arrival in ipairs(arrivals) do
    received = received + #arrival.bytes
    local early = due(received) - arrival.time
    assert.is_true(early <= 0, ("byte %d came %.2f ms early"):format(received, early * 1000))
    assert.is_true(early > -LATE, ("byte %d came %.2f ms late"):format(received, -early * 1000))
  end
  assert.equal(#expected, received)
end

-- Collects what `poll` gives until it has n bytes or the seconds are over.
local function collect(poll, n, seconds)
  local start, arrivals, count = runtime.now(), {}, 0
  while count < n and runtime.now() < start + seconds do
    local bytes = poll()
    if bytes ~= "" then
      arrivals[#arrivals + 1] = { bytes = bytes, time = runtime.now() - start }
      count = count + #bytes
    end
    runtime.sleep(0.0005)
  end
  local all = {}
  for i, arrival in ipairs(arrivals) do all[i] = arrival.bytes end
  return table.concat(all), arrivals
end

describe("a served simulator", function()
  describe("on a pseudo-terminal", function()
    local serial = require "mbus.serial"
    local served, port
    local folder

    before_each(function()
      local pipe = assert(io.popen("mktemp -d"))
      folder = pipe:read("l")
      pipe:close()
    end)

    after_each(function()
      if port then port:close() end
      if served then served:close() end
      port, served = nil, nil
      runtime.run()
      os.execute("rm -rf '" .. folder .. "'")
    end)

    local function ask(request, n)
      assert(port:write(request))
      return collect(function() return (assert(port:read(4096))) end, n, 1)
    end

    it("gives every byte when the line would, not early and not late #timed", function()
      served = assert(server.pty(new_sim()))
      port = assert(serial.open(served.path, { baudrate = 9600 }))
      local bytes, arrivals = ask(REQUEST, #ANSWER)
      assert.equal(core.hex(ANSWER), core.hex(bytes))
      assert_on_time(arrivals, ANSWER)
      assert.is_true(#arrivals > 10, "bytes come as they are complete, not all at the end")
    end)

    it("goes on when a client closes it and another opens it", function()
      served = assert(server.pty(new_sim()))
      for _ = 1, 3 do
        port = assert(serial.open(served.path))
        assert.equal("\xE5", (ask(NKE, 1)))
        port:close()
        runtime.sleep(0.02)
      end
    end)

    it("is reached by a link, which goes when it closes", function()
      local link = folder .. "/bus"
      served = assert(server.pty(new_sim(), { link = link }))
      port = assert(serial.open(link))
      assert.equal("\xE5", (ask(NKE, 1)))
      served:close()
      served:close()
      assert.is_nil(runtime.luv().fs_lstat(link))
    end)

    it("replaces a link that an earlier run left, and nothing else", function()
      local uv, link, file = runtime.luv(), folder .. "/bus", folder .. "/file"
      assert(uv.fs_symlink("/dev/pts/nothing", link))
      served = assert(server.pty(new_sim(), { link = link }))
      assert.equal(served.path, uv.fs_readlink(link))
      local handle = assert(io.open(file, "w"))
      handle:write("precious")
      handle:close()
      for _, taken in ipairs { file, folder } do
        local other, err = server.pty(new_sim(), { link = taken })
        assert.is_nil(other)
        assert.equal("busy", err.kind)
        assert.equal(taken .. ": exists and is not a symbolic link", tostring(err))
      end
      assert.equal("precious", assert(io.open(file)):read("a"))
      local other, err = server.pty(new_sim(), { link = folder .. "/nowhere/bus" })
      assert.is_nil(other)
      assert.same({ "not_found", folder .. "/nowhere/bus: no such file or directory" }, { err.kind, tostring(err) })
    end)

    it("leaves a link alone that is not its own any more", function()
      local uv, link = runtime.luv(), folder .. "/bus"
      served = assert(server.pty(new_sim(), { link = link }))
      uv.fs_unlink(link)
      uv.fs_symlink("/dev/null", link)
      served:close()
      assert.equal("/dev/null", uv.fs_readlink(link))
    end)
  end)

  describe("on a TCP port", function()
    local served, clients

    before_each(function()
      served, clients = assert(server.tcp(new_sim())), {}
    end)

    after_each(function()
      for _, client in ipairs(clients) do runtime.close(client.handle) end
      served:close()
      runtime.run()
    end)

    -- A plain socket that keeps what comes with its time.
    local function connect()
      local client = { arrivals = {}, handle = runtime.luv().new_tcp() }
      clients[#clients + 1] = client
      runtime.await(function(resume) client.handle:connect("127.0.0.1", served.port, resume) end)
      client.handle:read_start(function(_, bytes)
        if bytes then
          client.arrivals[#client.arrivals + 1] = { bytes = bytes, time = runtime.now() - (client.asked or 0) }
        else
          client.ended = true
        end
      end)
      return client
    end

    local function ask(client, request, seconds)
      client.arrivals, client.asked = {}, runtime.now()
      client.handle:write(request)
      runtime.sleep(seconds)
      local all = {}
      for i, arrival in ipairs(client.arrivals) do all[i] = arrival.bytes end
      return table.concat(all)
    end

    it("gives every byte when the line would, not early and not late #timed", function()
      local client = connect()
      assert.equal(core.hex(ANSWER), core.hex(ask(client, REQUEST, due(#ANSWER) + LATE)))
      assert_on_time(client.arrivals, ANSWER)
      assert.is_true(#client.arrivals > 10)
    end)

    it("takes bytes in pieces", function()
      local client = connect()
      assert.equal("", ask(client, NKE:sub(1, 2), 0.005))
      assert.equal("\xE5", ask(client, NKE:sub(3), 0.1))
    end)

    it("closes a second client at once and goes on with the first", function()
      local first, second = connect(), connect()
      runtime.sleep(0.02)
      assert.is_true(second.ended)
      assert.is_nil(first.ended)
      assert.equal("\xE5", ask(first, NKE, 0.1))
      assert.equal(1, served.clients)
    end)

    it("serves one client after another, also one that left without waiting", function()
      for _ = 1, 3 do
        local client = connect()
        assert.equal("\xE5", ask(client, NKE, 0.1))
        client.handle:write(REQUEST)
        runtime.sleep(0.005)
        runtime.close(client.handle)
        runtime.sleep(0.12)
      end
      assert.equal(3, served.clients)
    end)

    it("loses what a client writes beyond ten seconds of the line", function()
      local client = connect()
      for _ = 1, 3 do ask(client, ("\0"):rep(20000), 0.02) end
      local backlog = served.simulator:backlog(runtime.now())
      assert.is_true(backlog <= 10 and backlog > 9, backlog)
    end)

    it("says that a port is in use, and that a host is unknown", function()
      local other, err = server.tcp(new_sim(), { port = served.port })
      assert.is_nil(other)
      assert.same({ "busy", ("127.0.0.1:%d: address already in use"):format(served.port) }, { err.kind, tostring(err) })
      other, err = server.tcp(new_sim(), { host = "no such host" })
      assert.is_nil(other)
      assert.equal("unknown_host", err.kind)
    end)

    it("stops, with a client connected, and leaves nothing in the loop", function()
      local client = connect()
      served:close()
      served:close()
      runtime.sleep(0.02)
      assert.is_true(client.ended)
      runtime.close(client.handle)
      runtime.run()
      assert.is_false(runtime.luv().loop_alive())
    end)
  end)
end)
