---Many TCP gateways in one process: how long a cycle takes, and what it costs.
---
---    lua5.4 spec/bench/gateway.lua [GATEWAYS [METERS [SECONDS [FAULTY_PERCENT]]]]       default 200 11 30 0
---
---The buses are in other processes, see buses.lua: 2400 baud with the timing of a real line; answers come whole, as from a
---gateway that packs them. Every meter is polled over and over, with no pause between two cycles: a bus is never idle, so that
---a cycle shows what the polling adds. Printed are
---    memory        RSS per further connection that is open and idle: of the many against ten
---    polls         RSS and memory of Lua, as they go on
---    line alone    what one cycle of a bus takes by itself: the same procedures in the simulator, on whose virtual clock
---                  nothing but the line takes time: characters, the meters' mean delay, the pauses that the master keeps
---    mean, slowest cycle   of all gateways, and of the slowest one, against that; what the buses' side is late is in it
---    cpu           of this process, in percent of one core
---    buses' side   how late it gave out its answers: not to be blamed on the master
---    on the lines  what the master did against the rules
---With FAULTY_PERCENT that share of the gateways refuses, hangs or is silent; figures are of the others.
---
---On a computer with other work `chrt -f 10 lua5.4 ...` shows the program and not the other work.
local runtime = require "mbus.runtime"
local Gateway = require "mbus.gateway"

package.path = arg[0]:gsub("[^/]*$", "?.lua;") .. package.path
local buses = require "buses"

local GATEWAYS = math.tointeger(tonumber(arg[1])) or 200 -- or "idle", see below
local METERS = math.tointeger(tonumber(arg[2])) or 11
local SECONDS = tonumber(arg[3]) or 30
local FAULTY = tonumber(arg[4]) or 0
local A_PROCESS = 250

-- --- the buses

-- { ports, processes = { { pid, pipe } } }
local function start_buses(count)
  local program = arg[0]:gsub("gateway%.lua$", "buses.lua")
  local ports, processes = {}, {}
  while #ports < count do
    local share = math.min(A_PROCESS, count - #ports)
    local pipe = assert(io.popen(("echo $$; exec lua5.4 %s %d %d"):format(program, share, METERS)))
    processes[#processes + 1] = { pid = pipe:read "l", pipe = pipe }
    for _ = 1, share do
      ports[#ports + 1] = math.tointeger(tonumber(pipe:read "l" or "")) or error "a bus does not come up"
    end
  end
  return ports, processes
end

local function signal(processes, name)
  local pids = {}
  for i, process in ipairs(processes) do pids[i] = process.pid end
  os.execute(("kill -%s %s"):format(name, table.concat(pids, " ")))
end

-- Ends the buses. Returns what they have counted.
local function stop_buses(processes)
  signal(processes, "TERM")
  local sum = { answers = 0, late = 0, latest = 0, talked_into = 0, hasty = 0, cpu = 0 }
  for _, process in ipairs(processes) do
    local answers, late, latest, talked_into, hasty, cpu = process.pipe:read("n", "n", "n", "n", "n", "n")
    process.pipe:close()
    sum.answers, sum.late, sum.latest = sum.answers + answers, sum.late + late, math.max(sum.latest, latest)
    sum.talked_into, sum.hasty, sum.cpu = sum.talked_into + talked_into, sum.hasty + hasty, sum.cpu + cpu
  end
  return sum
end

-- Refusing: nobody listens. Hanging: takes the connection and says nothing. Silent: the bus has no meters.
local function faulty_ports(count)
  local uv = runtime.luv()
  local ports, sockets = {}, {}
  for i = 1, count do
    local socket = uv.new_tcp()
    sockets[i] = socket
    assert(socket:bind("127.0.0.1", 0))
    ports[i] = socket:getsockname().port
    socket:unref()
    if i % 3 == 0 then
      runtime.close(socket)
    elseif i % 3 == 1 then
      socket:listen(1, function() end)
    else
      socket:listen(8, function()
        local client = uv.new_tcp()
        socket:accept(client)
        client:unref()
        client:read_start(function(_, bytes) if not bytes then runtime.close(client) end end)
      end)
    end
  end
  return ports, sockets
end

-- --- measuring

local function rss()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmRSS:%s+(%d+)"
    if kilobytes then return tonumber(kilobytes) end
  end
end

-- Seconds of a cycle on the line alone: the same procedures on the virtual clock of the simulator.
local function line_time()
  local bus <close> = assert(require("mbus").open(assert(require("mbus.simulator").new(buses.description(METERS)))))
  local transport, start = bus.transport, nil
  for cycle = 1, 11 do
    if cycle == 2 then start = transport:now() end
    for address = 1, METERS do assert(bus:read(address)) end
  end
  return (transport:now() - start) / 10
end

local function connection(name, port, bindings, period)
  return { name = name, type = "tcp", host = "127.0.0.1", port = port, period = period, bindings = bindings,
    offline_interval = 60000, reconnect_interval = 5000 }
end

local function bindings()
  local list = {}
  for address = 1, METERS do
    list[#list + 1] = { name = "energy" .. address, address = address, index = 0 }
    list[#list + 1] = { name = "flow" .. address, address = address, find = { quantity = "volume_flow" } }
  end
  return list
end

-- Lets a cycle of the first so many lines begin when the last one has ended.
local function without_pause(gateway, count)
  for i = 1, count do
    local schedule = gateway.lines[i].schedule
    local advance = schedule.advance
    function schedule:advance(now)
      local cycle = self.cycles[1]
      if cycle.left > 0 then return end
      cycle.start, cycle.slot, cycle.period = now, 0, 1e6
      advance(self, now)
    end
    function schedule:next_due() return self.cycles[1].left == 0 and 0 or math.huge end
  end
end

local SETTLING, STEPS = 5, 10 -- seconds before it counts; prints of memory

-- Waits and prints how the memory grows. Returns the share of the processor that was used.
local function watch(polls)
  local start, cpu = runtime.now(), os.clock()
  for step = 0, STEPS do
    local wait = start + SECONDS * step / STEPS - runtime.now()
    if wait > 0 then runtime.sleep(wait) end
    print(("%9d polls  %7d KiB RSS  %7.0f KiB Lua"):format(polls(), rss(), collectgarbage "count"))
  end
  return (os.clock() - cpu) / (runtime.now() - start)
end

-- Mean time of a cycle of each bus, from one value of its last meter to another.
local function cycle_times(gateway)
  local first, last, cycles, counts = {}, {}, {}, false
  gateway:on("value", function(binding, _, quality)
    if not counts or binding.name ~= "energy" .. METERS or quality ~= "good" then return end
    local name, now = binding.connection.name, runtime.now()
    if not first[name] then first[name], cycles[name] = now, 0 else cycles[name] = cycles[name] + 1 end
    last[name] = now
  end)
  return function() counts = true end,
    function(name) return (cycles[name] or 0) > 0 and (last[name] - first[name]) / cycles[name] or nil end
end

local function measure(ports, bad_ports, processes)
  local connections = {}
  for i, port in ipairs(ports) do connections[i] = connection("g" .. i, port, bindings(), 60000) end
  for i, port in ipairs(bad_ports) do connections[#ports + i] = connection("bad" .. i, port, bindings(), 5000) end
  local gateway = assert(Gateway.new { connections = connections })
  connections = nil -- luacheck: ignore 311
  without_pause(gateway, #ports)
  local begin, cycle_time = cycle_times(gateway)
  local function polls()
    local sum = 0
    for i = 1, #ports do sum = sum + gateway.connections[i].statistics.polls end
    return sum
  end
  local result = { sum = 0, count = 0, slowest = 0, none = 0 }
  runtime.spawn(function()
    gateway:start()
    runtime.sleep(SETTLING)
    signal(processes, "USR1")
    begin()
    result.cpu = watch(polls)
    gateway:stop()
  end)
  runtime.run()
  for i = 1, #ports do
    local time = cycle_time("g" .. i)
    if time then
      result.sum, result.count, result.slowest = result.sum + time, result.count + 1, math.max(result.slowest, time)
    else
      result.none = result.none + 1
    end
  end
  result.mean = result.sum / result.count
  return result
end

-- Lines begin one after another, to read their one meter. All have to be open at the end.
local function wait_until_read(gateway, count)
  local deadline = runtime.now() + 60
  local function has_read(i)
    local one = gateway.connections[i]
    return gateway.lines[i].is_resting and one.bus and one.statistics.polls > 0
  end
  for i = 1, count do
    while not has_read(i) do
      if runtime.now() > deadline then error(("connection %d does not come to rest: %s"):format(i, gateway.connections[i].error)) end
      runtime.sleep(0.1)
    end
  end
end

-- Memory of connections that are open and wait for a poll far away. In a process of its own (below): the polling must not find
-- the memory as this has left it.
local function idle(ports)
  local function open(count)
    local connections = {}
    for i = 1, count do
      connections[i] = connection("i" .. i, ports[i], { { name = "e", address = 1, index = 0 } }, 86400000)
    end
    local gateway = assert(Gateway.new { connections = connections })
    local result
    runtime.spawn(function()
      gateway:start()
      wait_until_read(gateway, count)
      collectgarbage()
      collectgarbage()
      result = { rss = rss(), lua = collectgarbage "count" }
      gateway:stop()
    end)
    runtime.run()
    collectgarbage()
    return result
  end
  local few = open(math.min(10, #ports))
  local all = open(#ports)
  local more = #ports - math.min(10, #ports)
  return (all.rss - few.rss) / more, (all.lua - few.lua) / more
end

if arg[1] == "idle" then -- with the ports
  local ports = {}
  for i = 2, #arg do ports[i - 1] = math.tointeger(tonumber(arg[i])) end
  print(idle(ports))
  os.exit(0)
end

local function idle_apart(ports)
  local pipe <close> = assert(io.popen(("lua5.4 %s idle %s"):format(arg[0], table.concat(ports, " "))))
  return pipe:read("n", "n")
end

local bad = math.floor(GATEWAYS * FAULTY / 100 + 0.5)
local ports, processes = start_buses(GATEWAYS - bad)

print(("%d gateways, %d meters each, %d faulty, %g s"):format(GATEWAYS, METERS, bad, SECONDS))
if #ports > 10 and bad == 0 then
  local rss_each, lua_each = idle_apart(ports)
  print(("memory per further idle connection: %.1f KiB RSS, %.1f KiB Lua"):format(rss_each, lua_each))
end
local line = line_time()
local bad_ports, sockets = faulty_ports(bad)
local result = measure(ports, bad_ports, processes)
for _, socket in ipairs(sockets) do runtime.close(socket) end
local side = stop_buses(processes)
print(("line alone      %.3f s a cycle"):format(line))
print(("mean cycle      %.3f s  (%.3f of the line)"):format(result.mean, result.mean / line))
print(("slowest cycle   %.3f s  (%.3f of the line)"):format(result.slowest, result.slowest / line))
print(("buses without a whole cycle  %d"):format(result.none))
print(("cpu             %.1f %% of one core, %.0f readouts a second"):format(result.cpu * 100, #ports * METERS / result.mean))
print(("buses' side     answers %.2f ms late in the mean, %.0f ms at worst: %.4f of the line; %.1f s cpu"):format(
  side.late / side.answers * 1000, side.latest * 1000, 2 * METERS * side.late / side.answers / line, side.cpu))
print(("on the lines    %d requests into an answer, %d less than 11 bits behind one"):format(side.talked_into, side.hasty))
