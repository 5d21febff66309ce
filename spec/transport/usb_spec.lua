local runtime = require "mbus.runtime"
local serial = require "mbus.serial"
local transport = require "mbus.transport"
local usb = require "mbus.transport.usb"

local function quad(port, name)
  return { name = name, kind = "usb", vid = 0x1a86, pid = 0x55d5, serial = "BC045EABCD", manufacturer = "wch.cn",
    product = "USB Quad_Serial", location = "1-2:1." .. port }
end

local function adapter(name, number, location)
  return { name = name, kind = "usb", vid = 0x0403, pid = 0x6001, serial = number, manufacturer = "FTDI",
    product = "FT232R USB UART", location = location }
end

describe("mbus.transport.usb", function()
  local really, there

  before_each(function()
    really = serial.ports
    there = { quad(10, "/dev/ttyACM1"), quad(2, "/dev/ttyACM10"), quad(0, "/dev/ttyACM3"), adapter("/dev/ttyUSB0", "A50285BI", "1-3:1.0"),
      { name = "/dev/ttyS0", kind = "native", description = "ttyS0" } }
    serial.ports = function()
      local list = {}
      for i, port in ipairs(there) do
        list[i] = {}
        for name, value in pairs(port) do list[i][name] = value end
      end
      return list
    end
  end)

  after_each(function() serial.ports = really end)

  local function find(url)
    local parsed = assert(transport.parse(url))
    return usb.find(parsed.path, { vid = parsed.vid, pid = parsed.pid, serial = parsed.options.serial, n = parsed.options.n })
  end

  it("lists ports in the order of their interfaces, with a URL for each that leads back to it", function()
    local names = {}
    for i, port in ipairs(assert(usb.list())) do
      names[i] = port.name
      if port.url then assert.equal(port.name, find(port.url)) end
    end
    assert.same({ "/dev/ttyACM3", "/dev/ttyACM10", "/dev/ttyACM1", "/dev/ttyUSB0", "/dev/ttyS0" }, names)
    assert.equal("usb://1a86:55d5?serial=BC045EABCD&n=1", usb.list()[2].url)
    assert.equal("usb://0403:6001?serial=A50285BI", usb.list()[4].url)
    assert.is_nil(usb.list()[5].url)
  end)

  it("names a port by adapter, serial number and position", function()
    assert.equal("/dev/ttyACM1", find "usb://1A86:55d5?serial=BC045EABCD&n=2")
    assert.equal("/dev/ttyACM3", find "usb://1a86:55d5?n=0")
    assert.equal("/dev/ttyUSB0", find "usb://403:6001")
  end)

  local function fails(url, kind, ...)
    local path, err = find(url)
    assert.is_nil(path)
    assert.equal(kind, err.kind)
    for _, part in ipairs { ... } do assert.matches(part, tostring(err), 1, true) end
  end

  it("lists what is there when nothing or too much matches", function()
    fails("usb://1a86:55d5", "invalid", "usb://1a86:55d5: 3 ports match", "n=", "/dev/ttyACM3", "/dev/ttyACM10", "n=2")
    fails("usb://1a86:55d5?n=3", "not_found", "no port n=3", "3 match", "/dev/ttyACM1")
    fails("usb://0403:6002", "not_found", "no such port; there are:", "/dev/ttyUSB0 = usb://0403:6001?serial=A50285BI (FTDI FT232R USB UART)")
    fails("usb://0403:6001?serial=X", "not_found", "/dev/ttyUSB0")
    there[#there + 1] = adapter("/dev/ttyUSB1", "A5028XXX", "1-4:1.0")
    fails("usb://0403:6001", "invalid", "2 ports match", "serial=A50285BI", "serial=A5028XXX")
    there = { there[5] }
    fails("usb://0403:6001", "not_found", "no USB serial port is there")
  end)

  it("shows nothing unprintable that a device says of itself", function()
    there = { adapter("/dev/ttyUSB0", "A\x1b[31m\xff", "1-3:1.0"), adapter("/dev/ttyUSB1", "Ü", "1-4:1.0") }
    local ports = usb.list()
    assert.same({ "A?[31m?", "Ü" }, { ports[1].serial, ports[2].serial })
    assert.same({ "usb://0403:6001?n=0", "usb://0403:6001?n=1" }, { ports[1].url, ports[2].url })
  end)

  it("gives a URL that leads back to a port among others of its kind that have a serial number, or a strange one", function()
    there = { adapter("/dev/ttyUSB0", "B1", "1-1:1.0"), adapter("/dev/ttyUSB1", nil, "1-2:1.0"),
      adapter("/dev/ttyUSB2", "A & 7%=?", "1-3:1.0"), adapter("/dev/ttyUSB3", nil, "1-4:1.0") }
    for _, port in ipairs(usb.list()) do assert.equal(port.name, find(port.url)) end
    there = { there[1], there[2] }
    for _, port in ipairs(usb.list()) do assert.equal(port.name, find(port.url)) end
  end)

  it("keeps the order of ports that share an interface, however the system lists them", function()
    local names = {}
    for i = 1, 12 do names[i] = "/dev/ttyUSB" .. i end
    for shift = 0, 11 do
      there = {}
      for i = 1, 12 do there[i] = adapter(names[(i * 5 + shift) % 12 + 1], "X", "1-1:1.0") end
      local listed = {}
      for i, port in ipairs(usb.list()) do listed[i] = port.name end
      assert.same(names, listed)
    end
  end)

  it("passes on that ports cannot be listed", function()
    serial.ports = function() return nil, "the ports cannot be listed: no", "io" end
    local path, err = find "usb://1a86:55d5"
    assert.is_nil(path)
    assert.same({ "io", "usb://1a86:55d5" }, { err.kind, err.bus })
  end)

  it("finds the port anew each time that it is opened", function()
    local first, path = assert(serial.pty())
    there = { adapter(path, "A50285BI", "1-3:1.0") }
    local line <close> = assert(transport.open("usb://0403:6001", { backoff = 0.01, connect_timeout = 0.5 }))
    assert.equal("usb://0403:6001", line.name)
    first:close()
    assert.equal("closed", select(2, line:read(1)).kind)
    there = {}
    local second <close>, other = assert(serial.pty())
    runtime.after(0.05, function() there = { adapter(other, "A50285BI", "1-3:1.0") } end)
    assert.is_true(line:write "x")
    assert.equal("x", second:read())
  end)

  it("is open for `mbus.transport.open` alone when it is there", function()
    local line, err = transport.open "usb://0403:6002"
    assert.is_nil(line)
    assert.equal("not_found", err.kind)
  end)
end)
