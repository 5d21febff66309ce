-- A redundant pair: two TCP gateways at one bus. When the first fails the second takes over, and each meter is still read
-- once a period.
--
--     lua5.4 examples/redundant.lua                                  simulated, with a failure
--     lua5.4 examples/redundant.lua 10.0.0.5:10001 10.0.0.6:10001    until Ctrl-C
local mbus = require "mbus"

local served, places = {}, arg
if #arg == 0 then
  local server, simulator = require "mbus.simulator.server", mbus.simulator
  places = {}
  local house = assert(simulator.load())
  house.baudrate = 38400
  for i = 1, 2 do
    served[i] = assert(server.tcp(assert(simulator.new(house))))
    places[i] = served[i].host .. ":" .. served[i].port
  end
end

local function connection(name, place, more)
  local host, port = (place or ""):match("^(.+):(%d+)$")
  if not host then
    print("usage: lua5.4 examples/redundant.lua [HOST:PORT HOST:PORT]")
    os.exit(false)
  end
  local settings = { name = name, type = "tcp", host = host, port = math.tointeger(tonumber(port)), attempts = 1, timeout = 500,
    period = 1000, baudrate = #served > 0 and 38400 or 2400 }
  for key, value in pairs(more) do settings[key] = value end
  return settings
end

local gateway = assert(mbus.gateway { connections = {
  connection("first", places[1], { bindings = { { name = "energy", address = 10, find = { quantity = "energy" } } } }),
  connection("second", places[2], { master = "first" }),
} })

local function active() return gateway:status().connections[1].actual_connection end

local good, simulated, off = 0, #served > 0, nil
off = gateway:on("value", function(binding, value, quality)
  print(active(), value, binding.unit, quality, binding.error or "")
  if quality == "good" then good = good + 1 end
  if simulated and good == 1 then
    print "the first gateway fails"
    served[1]:close()
  elseif simulated and active() == "second" and quality == "good" then
    off()
    mbus.spawn(gateway.stop, gateway)
  end
end)
gateway:on("stop", function()
  for _, one in ipairs(served) do one:close() end
end)
gateway:run()
os.exit(good >= 2, true)
