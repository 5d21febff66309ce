local transport = require "mbus.transport"

local function refused(url, ...)
  local parsed, err = transport.parse(url)
  assert.is_nil(parsed, url)
  assert.equal("invalid", err.kind)
  for _, part in ipairs { ... } do assert.matches(part, tostring(err), 1, true) end
end

describe("mbus.transport", function()
  it("takes plain ports for serial", function()
    for _, path in ipairs { "/dev/ttyUSB0", "COM3", "com12", "./x", "../pts", "links/meter",
      "/dev/serial/by-id/usb-FTDI_a:b-if00", "/tmp/100%25" } do
      assert.same({ scheme = "serial", path = path, options = {} }, transport.parse(path))
    end
    assert.same({ scheme = "serial", path = "COM10", options = {} }, transport.parse [[\\.\COM10]])
    assert.same({ scheme = "serial", path = "/dev/ttyS1", options = { baudrate = 300 } },
      transport.parse "/dev/ttyS1?baudrate=300")
  end)

  it("reads the settings of a serial URL", function()
    assert.same({ scheme = "serial", path = "/dev/ttyUSB0",
      options = { baudrate = 9600, parity = "none", databits = 8, stopbits = 2, rts = false, dtr = "leave",
        margin = 0.25, gap = 1 } },
      transport.parse "serial:///dev/ttyUSB0?baudrate=9600&parity=none&databits=8&stopbits=2&rts=off&dtr=leave&margin=0.25&gap=1")
    assert.same({ scheme = "serial", path = "COM3", options = { rts = true } }, transport.parse "SERIAL://COM3?rts=on")
    assert.same({ scheme = "serial", path = "/dev/a b", options = {} }, transport.parse "serial:///dev/a%20b")
  end)

  it("reads TCP URLs", function()
    assert.same({ scheme = "tcp", host = "10.0.0.5", port = 10001, options = {} }, transport.parse "tcp://10.0.0.5:10001")
    assert.same({ scheme = "tcp", host = "gate-way.local", port = 1, options = { gap = 2, connect_timeout = 1 } },
      transport.parse "tcp://gate-way.local:1/?gap=2&connect_timeout=1")
    assert.same({ scheme = "tcp", host = "::1", port = 502, options = {} }, transport.parse "tcp://[::1]:502")
    assert.same({ scheme = "tcp", host = "fe80::1%eth0", port = 65535, options = {} },
      transport.parse "tcp://[fe80::1%eth0]:65535")
  end)

  it("reads the URLs of simulated and hand-driven buses", function()
    assert.same({ scheme = "sim", options = {} }, transport.parse "sim:")
    assert.same({ scheme = "sim", path = "/etc/a?b.lua", options = {} }, transport.parse "sim:/etc/a?b.lua")
    assert.same({ scheme = "manual", options = {} }, transport.parse "manual:")
  end)

  it("says which part of a URL is wrong, and what is allowed", function()
    refused("", "names no bus", "tcp://HOST:PORT")
    refused("ttyUSB0", "ttyUSB0", "/dev/ttyUSB0")
    refused("http://host:80", "http", "serial://")
    refused("gateway:10001", "gateway", "tcp://")
    refused("tcp:gateway:10001", "//")
    refused("tcp://gateway", "no port number")
    refused("tcp://gateway:", "no port number")
    refused("tcp://gateway:0", '"0"', "1 to 65535")
    refused("tcp://gateway:65536", '"65536"')
    refused("tcp://gateway:1e3", '"1e3"')
    refused("tcp://gateway:10001/path", "10001/path")
    refused("tcp://:10001", "host")
    refused("tcp://::1:502", "host")
    refused("tcp://fe80::1:502", "brackets")
    refused("tcp://[gateway]:502", "host")
    refused("serial://", "no port named")
    refused("serial:///dev/tty%00", "control characters")
    refused("manual:5", "manual:")
    refused("tcp://h:1?retries=3", '"retries"', "baudrate, connect_timeout, gap, margin")
    refused("tcp://h:1?gap", '"gap"', "name=value")
    refused("/dev/ttyS0?baudrate=2401", '"2401"', "300, 600, 1200, 2400, 4800, 9600, 19200, 38400")
    refused("/dev/ttyS0?parity=mark", '"mark"', "even, odd, none")
    refused("/dev/ttyS0?databits=9", '"9"', "7, 8")
    refused("/dev/ttyS0?stopbits=", '""', "1, 2")
    refused("/dev/ttyS0?rts=yes", '"yes"', "on, off, leave")
    for _, number in ipairs { "x", "-1", "nan", "1e999", "" } do refused("/dev/ttyS0?margin=" .. number, "margin", "seconds") end
    assert.has_error(function() transport.parse(5) end, "a URL expected, got number")
  end)

  it("checks the table of options as it checks the URL", function()
    for name, value in pairs { baudrate = 2401, parity = true, rts = 1, margin = "soon", gap = {}, stopbits = 1.5 } do
      local opened, err = transport.open("/dev/null", { [name] = value })
      assert.is_nil(opened)
      assert.equal("invalid", err.kind)
      assert.matches("bad " .. name, tostring(err), 1, true)
    end
    assert.has_error(function() transport.open("/dev/null", 5) end, "options: a table expected, got number")
  end)

  it("opens nothing for a bus that is driven by hand", function()
    local opened, err = transport.open "manual:"
    assert.is_nil(opened)
    assert.equal("invalid", err.kind)
  end)
end)
