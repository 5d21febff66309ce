local helper = require "spec.helper"

-- Runs `mbus ports` on a machine with these ports.
local function ports(list, format)
  local script = ([[
    require("mbus.serial").ports = function() return %s end
    local command = require "argparse"("ports")
    local module = require "mbus.cli.ports"
    module.define(command)
    os.exit(module.run(command:parse { %s }), true)
  ]]):format(list, format and ('"--format", "%s"'):format(format) or "")
  return helper.shell(helper.environment() .. "lua5.4 -e " .. helper.quote(script))
end

local TWO = [[{ { name = "/dev/ttyS0", kind = "native", description = "ttyS0" },
  { name = "/dev/ttyUSB0", kind = "usb", vid = 0x0403, pid = 0x6001, serial = "A50285BI", manufacturer = "FTDI",
    product = "FT232R \"UART\"", location = "1-3:1.0" } }]]

describe("mbus ports", function()
  it("lists ports with all their names", function()
    local code, out, err = ports(TWO)
    assert.same({ 0, "" }, { code, err })
    assert.equal([[
/dev/ttyUSB0  FTDI FT232R "UART"
    0403:6001  serial number A50285BI
    usb://0403:6001?serial=A50285BI
/dev/ttyS0  ttyS0
]], out)
  end)

  it("lists them as JSON", function()
    local dkjson = require "dkjson"
    local code, out = ports(TWO, "json")
    assert.equal(0, code)
    local usb = { name = "/dev/ttyUSB0", kind = "usb", vid = "0403", pid = "6001", serial = "A50285BI", manufacturer = "FTDI",
      product = 'FT232R "UART"', location = "1-3:1.0", url = "usb://0403:6001?serial=A50285BI" }
    local native = { name = "/dev/ttyS0", kind = "native", description = "ttyS0" }
    local list = dkjson.decode(out)
    assert.same({ usb, native }, { list[1], list[2] })
    code, out = ports(TWO, "jsonl")
    assert.equal(0, code)
    local lines = {}
    for line in out:gmatch "[^\n]+" do lines[#lines + 1] = dkjson.decode(line) end
    assert.same({ usb, native }, { lines[1], lines[2] })
  end)

  it("says that there is none", function()
    assert.same({ 1, "", "mbus: no serial port is there\n" }, { ports "{}" })
    assert.same({ 1, "[]\n", "mbus: no serial port is there\n" }, { ports("{}", "json") })
    local code, out, err = ports "nil, 'the ports cannot be listed: no', 'io'"
    assert.same({ 1, "", "mbus: the ports cannot be listed: no\n" }, { code, out, err })
  end)
end)
