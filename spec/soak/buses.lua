---Simulated buses behind TCP gateways, with faults coming and going: the other side of tcp.lua, in a process of its own.
---
---    lua5.4 spec/soak/buses.lua BUSES SECONDS [SEED]      prints a port for each, serves, is calm for the last two minutes
local runtime = require "mbus.runtime"
local server = require "mbus.simulator.server"
local house = require "spec.soak.house"

local BUSES, SECONDS = math.tointeger(tonumber(arg[1])), tonumber(arg[2])
local SEASON, CALM = 40, 120 -- seconds

local random = house.random(math.tointeger(tonumber(arg[3] or 3)))

local function say(...)
  io.write(string.format(...), "\n")
  io.flush()
end

local served = {}

local function serve(bus, sim, port)
  served[bus] = assert(server.tcp(sim, { port = port }))
  return served[bus].port
end

-- Nobody listens: who comes is refused, and who was there is hung up on. The port stays ours, or any program that asks for a
-- free one could take it.
local function go_down(bus, port)
  served[bus]:close()
  local holder = runtime.luv().new_tcp()
  assert(holder:bind("127.0.0.1", port))
  return holder
end

local function come_up(bus, sim, port, holder)
  runtime.close(holder)
  serve(bus, sim, port)
end

local function live(bus, sim, port)
  local ends = runtime.now() + SECONDS - CALM
  runtime.sleep(SEASON * random(100) / 100)
  while runtime.now() < ends do
    local weather = house.weather(random)
    house.strike(sim, weather)
    local holder = weather.down and go_down(bus, port)
    runtime.sleep(math.min(SEASON, math.max(ends - runtime.now(), 0)))
    if holder then come_up(bus, sim, port, holder) end
  end
  house.strike(sim, house.CALM)
end

-- A bus that does not come back is a failure of this side, not of the gateway.
local function live_or_say(...)
  local ok, err = xpcall(live, debug.traceback, ...)
  if ok then return end
  io.stderr:write("spec/soak/buses.lua: ", err, "\n")
  os.exit(false)
end

for bus = 1, BUSES do
  local sim = house.sim(bus)
  local port = serve(bus, sim, 0)
  say("%d", port)
  runtime.spawn(live_or_say, bus, sim, port)
end

-- Whoever started us and is gone without a word must not leave us behind.
runtime.sleep(SECONDS + 60)
