---Many TCP gateways in one process: how long a cycle takes, and what it costs.
---
---    lua5.4 spec/bench/gateway.lua [GATEWAYS [METERS [SECONDS [FAULTY_PERCENT]]]]       default 200 11 30 0
---
---The buses are simulated by other processes, 50 a process, at 2400 baud with the timing of a real line; answers come
---whole, as from a gateway that packs them. Every meter is polled over and over, with no pause between two cycles: a bus
---is never idle, so that a cycle shows what the polling adds. Printed are
---    cycle     mean time of a cycle, of all buses and of the slowest, against that of the line alone: characters, the
---              delays of the meters and the idle times of the standard
---    cpu       of this process, in percent of one core
---    memory    Lua and RSS; per further connection that is open and idle
---With FAULTY_PERCENT that share of the gateways refuses, hangs or is silent; figures are of the others.
local runtime = require "mbus.runtime"
local Gateway = require "mbus.gateway"

local GATEWAYS = math.tointeger(tonumber(arg[1])) or 200
local METERS = math.tointeger(tonumber(arg[2])) or 11
local SECONDS = tonumber(arg[3]) or 30
local FAULTY = tonumber(arg[4]) or 0
local A_PROCESS = 50

-- --- the simulated buses: this file again, with "serve"

local function records(address)
  return {
    { quantity = "energy", unit = "Wh", value = 1000 * address, exponent = 3, data = "int32" },
    { quantity = "volume", unit = "m3", value = 12.5, exponent = -2, data = "int32" },
    { quantity = "power", unit = "W", value = 1200, exponent = 2, data = "int32" },
    { quantity = "volume_flow", unit = "m3/h", value = 0.5, exponent = -3, data = "int32" },
    { quantity = "flow_temperature", unit = "°C", value = 60.5, exponent = -1, data = "int16" },
    { quantity = "return_temperature", unit = "°C", value = 40.5, exponent = -1, data = "int16" },
    { quantity = "datetime", data = "datetime", value = "2024-01-01T00:00" },
    { quantity = "energy", unit = "Wh", value = 2000 * address, exponent = 3, data = "int32", storage = 1 },
  }
end

local function description(meters)
  local list = {}
  for address = 1, meters do
    list[address] = { address = address, id = ("%08d"):format(address), manufacturer = "ABC", version = 1, medium = 4,
      delay = { 0.03, 0.06 }, telegrams = { { records = records(address) } } }
  end
  return { meters = list }
end

-- Answers as one piece, when the last byte is there.
local function whole(sim)
  local take, next_byte = sim.take, sim.next
  local last
  function sim:next()
    local time = next_byte(self)
    if not time then return nil end
    last = self.answers_until
    return math.max(time, last)
  end
  function sim:take(time)
    if self.answers_until > time then return "", 0 end
    return take(self, time)
  end
  return sim
end

local function serve(count, meters)
  local simulator, server = require "mbus.simulator", require "mbus.simulator.server"
  for _ = 1, count do
    local served = assert(server.tcp(whole(assert(simulator.new(description(meters))))))
    io.write(served.port, "\n")
  end
  io.flush()
  runtime.run()
end

if arg[1] == "serve" then return serve(math.tointeger(tonumber(arg[2])), math.tointeger(tonumber(arg[3]))) end

-- --- servers

local function start_servers(count)
  local ports, pids, pipes = {}, {}, {}
  while #ports < count do
    local share = math.min(A_PROCESS, count - #ports)
    local pipe = assert(io.popen(("echo $$; exec lua5.4 %s serve %d %d"):format(arg[0], share, METERS)))
    pids[#pids + 1] = pipe:read "l"
    pipes[#pipes + 1] = pipe
    for _ = 1, share do
      ports[#ports + 1] = math.tointeger(tonumber(pipe:read "l" or "")) or error "a simulated bus does not come up"
    end
  end
  return ports, pids, pipes
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

-- Seconds of one readout on the line alone.
local function line_time()
  local sim = assert(require("mbus.simulator").new(description(1)))
  local bus <close> = assert(require("mbus").open(sim))
  local transport = bus.transport
  bus:read(1)
  local start = transport:now()
  for _ = 1, 500 do assert(bus:read(1)) end
  return (transport:now() - start) / 500
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

local function measure(ports, bad_ports)
  local connections = {}
  for i, port in ipairs(ports) do connections[i] = connection("g" .. i, port, bindings(), 60000) end
  for i, port in ipairs(bad_ports) do connections[#ports + i] = connection("bad" .. i, port, bindings(), 5000) end
  local gateway = assert(Gateway.new { connections = connections })
  without_pause(gateway, #ports)
  local first, last, cycles = {}, {}, {}
  gateway:on("value", function(binding, _, quality)
    if binding.name ~= "energy" .. METERS or quality ~= "good" then return end
    local name, now = binding.connection.name, runtime.now()
    if not first[name] then first[name], cycles[name] = now, 0 else cycles[name] = cycles[name] + 1 end
    last[name] = now
  end)
  local cpu, rss_before
  runtime.spawn(function()
    gateway:start()
    runtime.sleep(5)
    rss_before = rss()
    cpu = os.clock()
    runtime.sleep(SECONDS)
    cpu = (os.clock() - cpu) / SECONDS
    gateway:stop()
  end)
  runtime.run()
  local sum, count, slowest, fewest = 0, 0, 0, 0
  for i = 1, #ports do
    local name = "g" .. i
    if (cycles[name] or 0) > 0 then
      local time = (last[name] - first[name]) / cycles[name]
      sum, count, slowest = sum + time, count + 1, math.max(slowest, time)
    else
      fewest = fewest + 1
    end
  end
  return { mean = sum / count, slowest = slowest, cpu = cpu, rss_before = rss_before, rss = rss(), silent = fewest,
    lua = collectgarbage "count" }
end

-- Memory of connections that are open and wait for a poll far away.
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
      runtime.sleep(3)
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

if os.getenv "BENCH_GC" then collectgarbage(os.getenv "BENCH_GC") end
local bad = math.floor(GATEWAYS * FAULTY / 100 + 0.5)
local ports, pids, pipes = start_servers(GATEWAYS - bad)
local _ <close> = setmetatable({}, { __close = function()
  os.execute("kill " .. table.concat(pids, " "))
  for _, pipe in ipairs(pipes) do pipe:close() end
end })

print(("%d gateways, %d meters each, %d faulty, %g s"):format(GATEWAYS, METERS, bad, SECONDS))
if #ports > 10 and bad == 0 then
  local rss_each, lua_each = idle(ports)
  print(("memory per further idle connection: %.1f KiB RSS, %.1f KiB Lua"):format(rss_each, lua_each))
end
local line = line_time() * METERS
local bad_ports, sockets = faulty_ports(bad)
local result = measure(ports, bad_ports)
for _, socket in ipairs(sockets) do runtime.close(socket) end
print(("line alone      %.3f s a cycle"):format(line))
print(("mean cycle      %.3f s  (%.3f of the line)"):format(result.mean, result.mean / line))
print(("slowest cycle   %.3f s  (%.3f of the line)"):format(result.slowest, result.slowest / line))
print(("buses without a whole cycle  %d"):format(result.silent))
print(("cpu             %.1f %% of one core, %.0f readouts a second"):format(result.cpu * 100, #ports * METERS / result.mean))
print(("memory          %d KiB RSS at the beginning, %d KiB at the end; Lua %.0f KiB"):format(result.rss_before, result.rss,
  result.lua))
