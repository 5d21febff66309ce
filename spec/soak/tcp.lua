---The gateway in real time over TCP, with faults coming and going at the other side:
---
---    lua5.4 spec/soak/tcp.lua [SECONDS [BUSES]]      default 3600 20; ends with 1 if anything was wrong
---
---At each value: is it right, and of now? Every cycle: is all that has no value reported as missing? All along: does the memory
---stay, do cycles keep their time? In the last two minutes, without faults: is everything there again?
local Gateway = require "mbus.gateway"
local runtime = require "mbus.runtime"
local house = require "spec.soak.house"

local SECONDS = tonumber(arg[1] or 3600)
local BUSES = math.tointeger(tonumber(arg[2] or 20))
local PERIOD = 5        -- seconds: four meters take 1.5
local SETTLED = 0.2     -- share of the time after which memory is compared
local GROWTH = 512      -- KiB of Lua
local RSS_GROWTH = 4096 -- KiB
local LATE = 1.0        -- seconds that a first value may come behind the beginning of its cycle, on a busy machine

local function write(line)
  io.write(line, "\n")
  io.flush()
end

local function start_buses()
  local pipe = assert(io.popen(("echo $$; exec lua5.4 spec/soak/buses.lua %d %d"):format(BUSES, SECONDS // 1)))
  local pid, buses = pipe:read "l", {}
  for bus = 1, BUSES do
    buses[bus] = { host = "127.0.0.1", port = math.tointeger(tonumber(pipe:read "l" or "")) or error "a bus does not come up" }
  end
  return buses, pipe, pid
end

-- The first value of a cycle that finds its meter there: how long behind the beginning of the cycle it comes, at the start and
-- at the end of the run. A drift would show.
local function watch_drift(gateway, began)
  local phases = { {}, {} }
  gateway:on("value", function(binding, _, quality)
    if binding.name ~= "e1" or quality ~= "good" then return end
    local at = runtime.now() - began
    local half = at < SECONDS / 2 and 1 or 2
    phases[half][#phases[half] + 1] = at % PERIOD
  end)
  return phases
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2] or 0
end

local function check_drift(judge, phases)
  local first, last = median(phases[1]), median(phases[2])
  write(("a cycle's first value came %.3f s behind its beginning in the first half, %.3f s in the second"):format(first, last))
  if math.abs(last - first) > 0.1 then judge:violate("cycles drift: %.3f s, then %.3f s", first, last) end
  if last > LATE then judge:violate("first values are late: %.3f s", last) end
end

local function memory(gateway, judge, began, before)
  local heap, rss = house.heap(gateway), house.rss()
  write(("%6.0f s  %8d polls  %8d good  %3d violations  %7.0f KiB of Lua  %7d KiB RSS"):format(runtime.now() - began, judge.polls,
    judge.good, judge.count, heap, rss))
  if runtime.now() - began < SECONDS * SETTLED then return nil end
  if not before then return { heap = heap, rss = rss } end
  if heap > before.heap + GROWTH then judge:violate("memory grows from %.0f to %.0f KiB", before.heap, heap) end
  if rss > before.rss + RSS_GROWTH then judge:violate("the process grows from %d to %d KiB", before.rss, rss) end
  return before
end

local function watch(gateway, judge, began)
  local before
  for step = 1, 20 do
    local ends = began + SECONDS * step / 20
    while runtime.now() < ends do
      runtime.sleep(math.min(PERIOD, math.max(ends - runtime.now(), 0.01)))
      -- A cycle, and the time that a meter is left alone after it failed.
      judge:look(gateway, runtime.now() - 2 * PERIOD - 10)
    end
    before = memory(gateway, judge, began, before)
  end
end

local buses, pipe, pid = start_buses()
local gateway = assert(Gateway.new(house.config(buses, { period = PERIOD * 1000, timeout = 500, offline_interval = 10000,
  reconnect_interval = 5000 })))
local judge, began = house.judge(gateway, runtime.now), runtime.now()
local phases, cpu = watch_drift(gateway, began), os.clock()
gateway:start()
watch(gateway, judge, began)
judge:expect_all_good()
check_drift(judge, phases)
local overruns = 0
for _, connection in ipairs(gateway:status().connections) do overruns = overruns + connection.overruns end
gateway:stop()
judge:report(write)
write(("%d cycles overran; %.1f %% of a core"):format(overruns, (os.clock() - cpu) * 100 / (runtime.now() - began)))
os.execute(("kill %d"):format(pid))
pipe:close()
os.exit(judge.count == 0)
