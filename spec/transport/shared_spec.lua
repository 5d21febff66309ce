local mbus = require "mbus"
local gateways = require "spec.transport.gateways"
local runtime = require "mbus.runtime"
local serial = require "mbus.serial"
local shared = require "mbus.transport.shared"

-- What has come, once it is so much.
local function receive(port, count)
  local got, deadline = "", runtime.now() + 5
  while #got < count and runtime.now() < deadline do
    got = got .. assert(port:read())
    runtime.sleep(0.001)
  end
  return got
end

describe("mbus.transport.shared", function()
  local master, path

  before_each(function() master, path = assert(serial.pty()) end)

  after_each(function()
    master:close()
    runtime.run()
  end)

  it("gives a handle on the same port, whatever it is called", function()
    local link = os.tmpname()
    os.remove(link)
    assert(os.execute(("ln -s %s %s"):format(path, link)))
    finally(function() os.remove(link) end)
    local one, two = assert(shared.open(path)), assert(shared.open("serial://" .. link))
    assert.equal(shared.common(one), shared.common(two))
    assert.same({ path, 2400, 0.1 }, { two.name, two.baudrate, two.margin })
    assert.is_true(one:write "1")
    assert.is_true(two:write "2")
    assert.equal("12", receive(master, 2))
    one:close()
    one:close()
    assert.equal("closed", select(2, one:write "x").kind)
    assert.equal("closed", select(2, one:set_baudrate(300)).kind)
    assert.is_true(two:set_baudrate(300))
    assert.equal(300, two.baudrate)
    master:write "answer"
    assert.equal("answer", two:read(1))
    two:close()
    assert(serial.open(path)):close()         -- nobody has it any more
  end)

  it("knows a port by where its name leads now, not where it led once", function()
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
    finally(function() os.execute("rm -r " .. folder) end)
    local a, b = folder .. "/by-id-A", folder .. "/by-id-B"
    local function link(target, name) assert(os.execute(("ln -sfn %s %s"):format(target, name))) end
    link(path, a)
    local one <close> = assert(shared.open(a))
    -- Both adapters are plugged in anew, and get their names the other way round.
    master:close()
    assert.is_nil(one:read(1))
    local master_b, path_b = assert(serial.pty()) -- the system gives the name that is free
    local path_a
    master, path_a = assert(serial.pty())
    link(path_a, a)
    link(path_b, b)
    local two <close> = assert(shared.open(b))
    local again <close> = assert(shared.open(a))
    assert.are_not.equal(shared.common(one), shared.common(two))
    assert.equal(shared.common(one), shared.common(again))
    assert.is_true(two:write "b")
    assert.equal("b", receive(master_b, 1))
    master_b:close()
  end)

  it("tells USB adapters apart by what the options say, too", function()
    local other, other_path = assert(serial.pty())
    local ports = serial.ports
    local function adapter(name, location)
      return { name = name, kind = "usb", vid = 0x1a86, pid = 0x55d5, serial = "X", location = location }
    end
    serial.ports = function() return { adapter(path, "1-1:1.0"), adapter(other_path, "1-1:1.2") } end
    finally(function()
      serial.ports = ports
      other:close()
    end)
    local one <close> = assert(shared.open("usb://1a86:55d5", { n = 0 }))
    local two <close> = assert(shared.open("usb://1a86:55d5", { n = 1 }))
    local same <close> = assert(shared.open "usb://1a86:55d5?n=0")
    assert.are_not.equal(shared.common(one), shared.common(two))
    assert.equal(shared.common(one), shared.common(same))
  end)

  it("does not share with other settings of the line", function()
    local one <close> = assert(shared.open(path, { baudrate = 9600 }))
    local two, err = shared.open(path, { baudrate = 2400 })
    assert.is_nil(two)
    assert.same({ "busy", path }, { err.kind, err.bus })
    assert.matches("open already in this program, with baudrate 9600", tostring(err), 1, true)
    two, err = shared.open(path .. "?parity=none")
    assert.is_nil(two)
    assert.matches("with parity even", tostring(err), 1, true)
    local same <close> = assert(shared.open(path .. "?baudrate=9600&parity=even", { margin = 1 }))
    local whatever <close> = assert(shared.open(path))
    assert.equal(9600, whatever.baudrate)
    assert.equal(shared.common(one), shared.common(same))
  end)

  it("goes by the speed that the line has now", function()
    local one <close> = assert(shared.open(path))
    assert.is_true(one:set_baudrate(9600))    -- as after a switch of the meters
    local two, err = shared.open(path, { baudrate = 2400 })
    assert.is_nil(two)
    assert.matches("with baudrate 9600", tostring(err), 1, true)
    local same <close> = assert(shared.open(path, { baudrate = 9600 }))
    assert.equal(9600, same.baudrate)
  end)

  it("wakes who reads through a handle that is closed, and nobody else", function()
    local one, two = assert(shared.open(path)), assert(shared.open(path))
    local err
    runtime.spawn(function() err = select(2, one:read(60)) end)
    assert.is_nil(err)
    one:close()
    runtime.sleep(0)
    assert.equal("closed", err.kind)
    master:write "x"
    assert.equal("x", two:read(1))
    two:close()
  end)

  it("opens once for those who open at the same time", function()
    local gateway <close> = gateways.tcp(gateways.house(38400))
    local handles = {}
    for i = 1, 3 do runtime.spawn(function() handles[i] = assert(shared.open(gateway.url, { banner = 0.02 })) end) end
    local deadline = runtime.now() + 5
    while #handles < 3 and runtime.now() < deadline do runtime.sleep(0.005) end
    assert.equal(1, gateway.accepted)
    for i = 1, 3 do handles[i]:close() end
  end)

  it("makes a new simulated bus each time, and passes on errors", function()
    local one, two = assert(shared.open "sim:"), assert(shared.open "sim:")
    assert.are_not.equal(shared.common(one), shared.common(two))
    for url, kind in pairs { ["tcp://h"] = "invalid", ["/dev/no_such_port"] = "not_found", [path .. "?n=1"] = "invalid" } do
      local none, err = shared.open(url)
      assert.is_nil(none)
      assert.equal(kind, err.kind)
    end
    assert.equal("invalid", select(2, shared.open(path, { parity = "x" })).kind)
  end)
end)

describe("a bus that is open twice", function()
  local served, url, addresses, truth

  before_each(function()
    addresses, truth = gateways.truth { 10, 12 }
    served = gateways.tcp(gateways.house(38400), { exclusive = true })
    url = served.url .. "?baudrate=38400&banner=0.01"
  end)

  after_each(function() served:close() end)

  it("is shared: requests of both queue in order", function()
    local one <close> = assert(mbus.open(url))
    local two <close> = assert(mbus.open(url))
    local order, results = {}, {}
    for i = 1, 2 do
      for name, bus in pairs { one = one, two = two } do
        runtime.spawn(function()
          results[name .. i] = gateways.read_all(bus, { addresses[i] }, truth)
          order[#order + 1] = name .. i
        end)
      end
    end
    local deadline = runtime.now() + 20
    while #order < 4 and runtime.now() < deadline do runtime.sleep(0.01) end
    for _, name in ipairs { "one1", "one2", "two1", "two2" } do assert.equal(1, results[name].good, name) end
    assert.equal("1", order[1]:sub(-1))
    assert.equal("2", order[4]:sub(-1))
    assert.equal(1, served.accepted)
  end)

  it("fails what is queued with closed when it is closed, and leaves the other alone", function()
    local one = assert(mbus.open(url))
    local two <close> = assert(mbus.open(url))
    local good, errs = nil, {}
    runtime.spawn(function() good = two:read(addresses[1]) end)
    for i = 1, 3 do
      runtime.spawn(function() errs[i] = select(2, one:read(addresses[2])) end)
    end
    runtime.sleep(0.01)
    one:close()
    runtime.sleep(0.01)
    assert.is_nil(good)                       -- it is not waited for
    for i = 1, 3 do assert.equal("closed", errs[i].kind) end
    local deadline = runtime.now() + 10
    while not good and runtime.now() < deadline do runtime.sleep(0.01) end
    assert.is_truthy(good)
    assert.is_truthy(two:read(addresses[2]))
  end)

  it("ends a request under way with closed", function()
    local one = assert(mbus.open(url))
    local two <close> = assert(mbus.open(url))
    local err
    runtime.spawn(function() err = select(2, one:read(addresses[1])) end)
    runtime.sleep(0.005)
    one:close()
    runtime.sleep(0.05)
    assert.equal("closed", err.kind)
    assert.is_truthy(two:read(addresses[2]))
  end)
end)
