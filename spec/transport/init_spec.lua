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

  it("reads UDP and RFC 2217 URLs", function()
    assert.same({ scheme = "udp", host = "::1", port = 502, options = { baudrate = 300 } },
      transport.parse "udp://[::1]:502?baudrate=300")
    assert.same({ scheme = "rfc2217", host = "server", port = 2002,
      options = { parity = "odd", databits = 7, stopbits = 2, rts = false, dtr = true, negotiation_timeout = 1.5, probe = 0 } },
      transport.parse "rfc2217://server:2002?parity=odd&databits=7&stopbits=2&rts=off&dtr=on&negotiation_timeout=1.5&probe=0")
  end)

  it("reads the URLs of USB adapters", function()
    assert.same({ scheme = "usb", path = "usb://1a86:55d5?serial=BC045EABCD&n=2", vid = 0x1a86, pid = 0x55d5,
      options = { serial = "BC045EABCD", n = 2, rs485 = "on" } },
      transport.parse "usb://1A86:55D5?n=2&serial=BC045EABCD&rs485=on")
    assert.same({ scheme = "usb", path = "usb://0403:6001", vid = 0x0403, pid = 0x6001, options = {} },
      transport.parse "usb://403:6001")
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
    refused("tcp://h:1?retries=3", '"retries"', "backoff, backoff_limit, banner, baudrate, connect_timeout, gap, keepalive, "
      .. "keepalive_count, keepalive_interval, margin, probe")
    refused("tcp://h:1?parity=even", '"parity"')
    refused("udp://h:1?probe=3", '"probe"', "baudrate, connect_timeout, gap, margin")
    refused("udp://h", "no port number", "udp://host:10001")
    refused("rfc2217:h:1", "// is missing")
    refused("rfc2217://h:0", '"0"', "1 to 65535")
    refused("rfc2217://h:1?baudrate=1", '"1"', "300, 600")
    refused("usb://1a86", '"1a86"', "usb://1a86:55d5")
    refused("usb://12345:1", '"12345:1"')
    refused("usb://1a86:55d5?n=-1", '"-1"', "0 to 999")
    refused("usb://1a86:55d5?serial=", "serial")
    refused("tcp://h:1?connect_timeout=0", "above 0")
    refused("tcp://h:1?keepalive=1.5", '"1.5"', "whole number")
    refused("/dev/ttyS0?rs485=yes", '"yes"', "on, inverted, off, leave")
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
    for name, value in pairs { baudrate = 2401, parity = true, rts = 1, margin = "soon", gap = {}, stopbits = 1.5,
      rs485 = true, connect_timeout = 0, backoff = -1 } do
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
