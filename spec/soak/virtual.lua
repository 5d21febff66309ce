---The gateway for a million polls on the virtual clock, with faults coming and going:
---
---    lua5.4 spec/soak/virtual.lua [POLLS]      default 1000000; ends with 1 if anything was wrong
---
---At each value: is it right, and of now? Every cycle: does it begin at its time, and is everything that has no value reported
---as missing? All along: does the memory stay? At the end, in calm weather: is everything there again?
local Clock = require "mbus.gateway.clock"
local Error = require "mbus.error"
local Gateway = require "mbus.gateway"
local house = require "spec.soak.house"

local M = {}

local BUSES, PERIOD = 25, 60 -- seconds
local SEASON = 15            -- cycles of one weather
local CALM = 15              -- cycles at the end
local EARLY = 0.2            -- seconds in which a cycle begins where nothing is in its way; buses begin 5 ms apart
local GROWTH = 256           -- KiB

---@class mbus.soak.World
---@field clock table
---@field sims mbus.simulator.Simulator[]
---@field weather table[]   of each bus
---@field offsets number[]  seconds from the time of a cycle to its first request, of buses without faults

local function opener(world)
  return function(settings)
    local host = settings.url:match "^tcp://([^:]+)"
    local bus = math.tointeger(tonumber((host:match "%d+")))
    if world.weather[bus].down then return nil, Error.new("refused", "connection refused", { bus = host }) end
    local transport = world.sims[bus]:transport()
    local write = transport.write
    transport.name = host
    function transport.write(self, bytes)
      if world.weather[bus].down then return nil, Error.new("closed", "the other side closed the connection", { bus = host }) end
      return write(self, bytes)
    end
    return transport
  end
end

-- A cycle has its first request behind its time; at once, unless a meter of the one before is still waited for.
local function watch_beginnings(world, bus)
  local sim, slot = world.sims[bus], -1
  local receive = sim.receive
  function sim.receive(self, bytes, time)
    local now = time // PERIOD
    if now > slot and world.calm_since[bus] < (now - 1) * PERIOD then
      world.offsets[#world.offsets + 1] = time - now * PERIOD
    end
    slot = now
    return receive(self, bytes, time)
  end
end

local function set_weather(world, bus, weather)
  world.weather[bus] = weather
  world.calm_since[bus] = weather == house.CALM and world.clock.now() or math.huge
  house.strike(world.sims[bus], weather)
end

local function change_weather(world, cycle, is_ending)
  for bus = 1, BUSES do
    if is_ending then
      if world.weather[bus] ~= house.CALM then set_weather(world, bus, house.CALM) end
    elseif cycle % SEASON == bus % SEASON then
      set_weather(world, bus, house.weather(world.random))
    end
  end
end

local function new_world()
  local world = { clock = Clock.virtual(), sims = {}, weather = {}, calm_since = {}, offsets = {}, random = house.random(11) }
  for bus = 1, BUSES do
    world.sims[bus] = house.sim(bus)
    set_weather(world, bus, house.CALM)
    watch_beginnings(world, bus)
  end
  return world
end

local function check_beginnings(world, judge, seen)
  for i, offset in ipairs(world.offsets) do
    seen.count, seen.worst = seen.count + 1, math.max(seen.worst, offset)
    if offset < 0 or offset > EARLY then judge:violate("a cycle begins %.3f s after its time", offset) end
    world.offsets[i] = nil
  end
end

local function memory(gateway, judge, write, days, before)
  local heap, rss = house.heap(gateway), house.rss()
  write(("%8d polls  %6.2f days  %7.0f KiB of Lua  %7d KiB RSS"):format(judge.polls, days, heap, rss))
  if before and heap > before + GROWTH then judge:violate("memory grows from %.0f to %.0f KiB", before, heap) end
  return before or heap
end

-- One cycle: faults change in its middle, and shortly before the next one all must be told.
local function cycle_of(world, gateway, judge, cycle, is_ending)
  world.clock.run((cycle - 0.5) * PERIOD)
  change_weather(world, cycle, is_ending)
  world.clock.run(cycle * PERIOD - 1)
  judge:look(gateway, (cycle - 1) * PERIOD)
end

---@param polls integer  of meters
---@param write fun(line: string)
---@return mbus.soak.Judge
function M.run(polls, write)
  local world, hosts = new_world(), {}
  for bus = 1, BUSES do hosts[bus] = { host = "bus" .. bus, port = 10001 } end
  local gateway = assert(Gateway.new(house.config(hosts, { period = PERIOD * 1000, timeout = 1000, offline_interval = 120000,
    reconnect_interval = 30000 }), { clock = world.clock, open = opener(world) }))
  local judge, seen, cycle, calm, heap = house.judge(gateway, world.clock.now), { count = 0, worst = 0 }, 0, 0, nil
  local step = math.max(polls // 10, 1)
  gateway:start()
  while calm < CALM do
    cycle = cycle + 1
    if judge.polls >= polls then calm = calm + 1 end
    cycle_of(world, gateway, judge, cycle, calm > 0)
    check_beginnings(world, judge, seen)
    if judge.polls >= step then
      heap, step = memory(gateway, judge, write, cycle * PERIOD / 86400, heap), step + math.max(polls // 10, 1)
    end
  end
  judge:expect_all_good()
  write(("%d cycles of calm buses began within %.1f ms of their time, %.2f days after the start"):format(seen.count,
    seen.worst * 1000, cycle * PERIOD / 86400))
  judge.beginnings = seen.count
  return judge
end

if arg and arg[0] and arg[0]:find "virtual%.lua$" then
  local function write(line)
    io.write(line, "\n")
    io.flush()
  end
  local began = os.clock()
  local judge = M.run(math.tointeger(tonumber(arg[1] or 1000000)), write)
  judge:report(write)
  write(("%.0f s of processor time, %.3f ms a poll"):format(os.clock() - began, (os.clock() - began) * 1000 / judge.polls))
  os.exit(judge.count == 0)
end

return M
