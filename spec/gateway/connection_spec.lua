-- How a connection opens its bus.
local mbus = require "mbus"
local server = require "mbus.simulator.server"
local transport = require "mbus.transport"

local METERS = { meters = { { address = 5, telegrams = { { data = "47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01" } } },
  { address = 6, telegrams = { { data = "48 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01" } } } } }

describe("a connection of a gateway", function()
  it("multiplies the timeouts of its URL by line_delay_ratio", function()
    local given
    local gateway = assert(mbus.gateway({ connections = { { name = "a", line_delay_ratio = 3, reconnect_interval = 3600000,
      url = "tcp://127.0.0.1:1", bindings = { { name = "x", address = 5, index = 0 } } } } },
      { open = function(_, options)
        given = options
        return nil, require("mbus.error").new("refused", "no")
      end }))
    mbus.spawn(function()
      gateway:start()
      require("mbus.runtime").sleep(0.05)
      gateway:stop()
    end)
    mbus.run()
    local served = assert(server.tcp(assert(mbus.simulator.new(METERS))))
    for _, scheme in ipairs { "tcp", "udp" } do
      local line = assert(transport.open(("%s://127.0.0.1:%d?connect_timeout=2"):format(scheme, served.port), given))
      assert.equal(6, line.connect_timeout)
      line:close()
    end
    -- It knows nothing of RFC 2217.
    local _, err = transport.open(("rfc2217://127.0.0.1:%d?negotiation_timeout=0.1"):format(served.port), given)
    assert.matches("within 0.3 s", tostring(err), 1, true)
    served:close()
  end)

  it("shares the bus with another one that names the same", function()
    local served = assert(server.tcp(assert(mbus.simulator.new(METERS))))
    local function connection(name, address)
      return { name = name, type = "tcp", host = "127.0.0.1", port = served.port,
        bindings = { { name = "e", address = address, index = 0 } } }
    end
    local gateway = assert(mbus.gateway { connections = { connection("a", 5), connection("b", 6) } })
    local qualities, count = {}, 0
    gateway:on("value", function(binding, _, quality)
      qualities[binding.connection.name], count = qualities[binding.connection.name] or quality, count + 1
      if count == 2 then
        mbus.spawn(function()
          gateway:stop()
          served:close()
        end)
      end
    end)
    gateway:start()
    mbus.run()
    assert.same({ a = "good", b = "good" }, qualities)
  end)
end)
