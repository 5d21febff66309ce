-- A gateway with two serial buses and a TCP one, polled side by side.
--
--     lua5.4 examples/gateway.lua                                    on simulated buses, one round
--     lua5.4 examples/gateway.lua /dev/ttyUSB0 /dev/ttyUSB1 10.0.0.5:10001      until Ctrl-C
local mbus = require "mbus"

-- Three simulated houses: two pseudo-terminals and a TCP port, with the timing of the line.
local function simulate()
  local server, simulator = require "mbus.simulator.server", mbus.simulator
  local house = assert(simulator.load())
  house.baudrate = 38400
  local function new() return assert(simulator.new(house)) end
  local served = { assert(server.pty(new())), assert(server.pty(new())), assert(server.tcp(new())) }
  return served, { served[1].path, served[2].path, served[3].host .. ":" .. served[3].port }
end

local served, places = {}, arg
if #arg == 0 then served, places = simulate() end
local host, port = (places[3] or ""):match("^(.+):(%d+)$")
if not host then
  print("usage: lua5.4 examples/gateway.lua [PORT PORT HOST:PORT]")
  os.exit(false)
end

local function bindings(address)
  return {
    { name = "energy", address = address, find = { quantity = "energy", storage = 0 },
      transformation = { type = "scaling", factor = 0.001, unit = "kWh" } },
    { name = "flow", address = address, find = { quantity = "flow_temperature" } },
  }
end

local baudrate = #arg == 0 and 38400 or 2400
local gateway = assert(mbus.gateway { connections = {
  { name = "cellar", type = "serial", port = places[1], baudrate = baudrate, bindings = bindings(10) },
  { name = "roof", type = "serial", port = places[2], baudrate = baudrate, bindings = bindings(12) },
  { name = "annex", type = "tcp", host = host, port = math.tointeger(tonumber(port)), baudrate = baudrate, timeout = 1000,
    period = 300000, bindings = bindings("3189274724232804") },
} })

local told, failed, off = 0, 0, nil
off = gateway:on("value", function(binding, value, quality)
  print(binding.connection.name, binding.name, value, binding.unit, quality, binding.error or "")
  told, failed = told + 1, failed + (quality == "good" and 0 or 1)
  if #arg == 0 and told == 6 then
    off()
    mbus.spawn(gateway.stop, gateway)
  end
end)
gateway:on("stop", function()
  for _, one in ipairs(served) do one:close() end
end)
gateway:run()
os.exit(failed == 0, true)
