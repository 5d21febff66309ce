local mbus = require "mbus"
local gateways = require "spec.transport.gateways"
local transport = require "mbus.transport"

local BAUDRATE = 38400

-- The servers that people really use, with the simulated house behind them on a pseudo-terminal.
describe("a real server:", function()
  local addresses, truth = gateways.truth { 10, 12 }

  -- A spec that needs a program: elsewhere it is skipped, and says so.
  local function with(program, name, run)
    it(name, function()
      if not gateways.find(program) then
        pending("skipped: " .. program .. " is not installed")
        return
      end
      run()
    end)
  end

  local function reads(url)
    local bus <close> = assert(mbus.open(url, { baudrate = BAUDRATE, banner = 0.05 }))
    local result = gateways.read_all(bus, addresses, truth)
    assert.same({ 2, 0, {} }, { result.good, result.wrong, result.errors })
    return bus
  end

  with("socat", "socat carries a readout", function()
    local there <close> = gateways.socat(gateways.house(BAUDRATE))
    reads("tcp://127.0.0.1:" .. there.port)
  end)

  with("ser2net", "ser2net carries a readout in raw mode, to one client", function()
    local there <close> = gateways.ser2net(gateways.house(BAUDRATE), "raw")
    local url = "tcp://127.0.0.1:" .. there.port
    local line = assert(transport.open(url))
    local other, err = transport.open(url)
    assert.is_nil(other)
    assert.equal("busy", err.kind)
    assert.matches("in use", err.message, 1, true)
    line:close()
    reads(url)
  end)

  with("ser2net", "ser2net speaks RFC 2217, wildcards and changes of the baud rate included", function()
    local there <close> = gateways.ser2net(gateways.house(BAUDRATE), "rfc2217")
    local url = ("rfc2217://127.0.0.1:%d?dtr=on&rts=on&parity=none&baudrate=%d"):format(there.port, BAUDRATE)
    local bus <close> = assert(mbus.open(url))
    assert.equal(2, gateways.read_all(bus, addresses, truth).good)
    assert.is_truthy(bus:read "31892747FFFFFFFF")
    assert.is_true(bus.transport.can_purge)
    assert.is_true(bus.transport:set_baudrate(300))
    local pipe = assert(io.popen("stty -F " .. there.path .. " speed"))
    local speed = pipe:read "n"
    pipe:close()
    assert.equal(300, speed)
    assert.is_true(bus.transport:set_baudrate(BAUDRATE))
    assert.is_truthy(bus:read(addresses[1]))
  end)

  with("ser2net", "ser2net without RFC 2217 is recognised", function()
    for mode, text in pairs { raw = "a plain TCP port", telnet = "a plain telnet port" } do
      local there <close> = gateways.ser2net(gateways.house(BAUDRATE), mode)
      local line, err = transport.open("rfc2217://127.0.0.1:" .. there.port, { negotiation_timeout = 0.5 })
      assert.is_nil(line)
      assert.equal("unsupported", err.kind)
      assert.matches(text, err.message, 1, true)
    end
  end)
end)
