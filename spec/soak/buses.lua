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

-- Nobody listens: who comes is refused, and who was there is hung up on.
local function live(bus, sim, port)
  local ends = runtime.now() + SECONDS - CALM
  runtime.sleep(SEASON * random(100) / 100)
  while runtime.now() < ends do
    local weather = house.weather(random)
    house.strike(sim, weather)
    if weather.down then served[bus]:close() end
    runtime.sleep(math.min(SEASON, math.max(ends - runtime.now(), 0)))
    if weather.down then serve(bus, sim, port) end
  end
  house.strike(sim, house.CALM)
end

for bus = 1, BUSES do
  local sim = house.sim(bus)
  local port = serve(bus, sim, 0)
  say("%d", port)
  runtime.spawn(live, bus, sim, port)
end

-- Whoever started us and is gone without a word must not leave us behind.
runtime.sleep(SECONDS + 60)
