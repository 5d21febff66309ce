---Buses with meters behind TCP gateways, cheap enough for a thousand of them: the other side of gateway.lua, in a process of
---its own.
---
---    lua5.4 spec/bench/buses.lua BUSES METERS     prints a port for each, then serves
---    SIGUSR1                                      counts anew
---    SIGTERM                                      ends, and prints what it has counted
---
---A line of 2400 baud 8E1, 11 bits a character. A request takes its characters; then the meter waits (30 to 60 ms, 45 in the
---mean), then its answer takes its characters, and the gateway sends it as one piece when the last bit is there:
---never before, and if later, by how much is counted. Meters acknowledge SND_NKE, and answer REQ_UD2 with a new access
---number if the frame count bit has changed and with the same telegram if not (IEC 60870-5-2). Who talks into an answer, or
---less than 11 bits behind one, is counted too.
local core = require "mbus.core"
local runtime = require "mbus.runtime"

local M = {}

local CHARACTER, LEAST_PAUSE = 11 / 2400, 11 / 2400

-- ------------------------------------------------------------------ meters

local LEAST, MOST = 0.03, 0.06 -- seconds that meters take to begin an answer
local MEAN = (LEAST + MOST) / 2
local GOLDEN = (5 ^ 0.5 - 1) / 2

-- Spread evenly over the answers of a bus, so that a few of them have the mean, and no two buses stay in step.
local function delay(bus)
  bus.spread = (bus.spread + GOLDEN) % 1
  return LEAST + (MOST - LEAST) * bus.spread
end

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

---A bus for mbus.simulator, whose virtual clock shows what the line alone takes.
---@param meters integer
---@return table
function M.description(meters)
  local list = {}
  for address = 1, meters do
    list[address] = { address = address, id = ("%08d"):format(address), manufacturer = "ABC", version = 1, medium = 4,
      delay = { MEAN, MEAN }, telegrams = { { records = records(address) } } }
  end
  return { meters = list }
end

-- Each meter's telegram as CI field and user data, around its access number.
local function telegrams(meters)
  local bus <close> = assert(require("mbus").open(assert(require("mbus.simulator").new(M.description(meters)))))
  local list = {}
  for address = 1, meters do
    local payload = assert(bus:read(address)).telegrams[1].bytes:sub(8, -3)
    list[address] = { before = payload:sub(1, 8), behind = payload:sub(10) }
  end
  return list
end

-- ------------------------------------------------------------------ a bus

local counts = {}

local function count_anew() counts = { answers = 0, late = 0.0, latest = 0.0, talked_into = 0, hasty = 0 } end

local function user_data(meter, telegram, fcb)
  if meter.fcb ~= fcb then meter.access = (meter.access + 1) & 0xFF end
  meter.fcb = fcb
  return core.long(0x08, meter.address, 0x72, telegram.before .. string.char(meter.access) .. telegram.behind)
end

-- What a meter says to a request; nil: nothing.
local function answer(bus, c, a)
  local meter = bus.meters[a]
  if not meter then return nil end
  if c == 0x40 then
    meter.fcb = nil
    return core.ACK
  end
  if c & ~0x20 == 0x5B then return user_data(meter, bus.telegrams[a], c & 0x20) end
end

local function give_out(bus)
  local now = runtime.now()
  local late = now - bus.due
  counts.answers, counts.late, counts.latest = counts.answers + 1, counts.late + late, math.max(counts.latest, late)
  bus.client:try_write(bus.answer)
  bus.answer = nil
end

-- The loop's time is the clock's, cut to whole milliseconds: nothing is given out early.
local function give_out_at(bus, time)
  local uv = runtime.luv()
  bus.due, bus.busy_until = time, time
  bus.timer:start(math.max(math.ceil(time * 1000) - uv.now(), 0), 0, bus.on_time)
end

local function hear(bus, bytes, now)
  if bus.answer then
    counts.talked_into = counts.talked_into + 1
  elseif now < bus.busy_until + LEAST_PAUSE then
    counts.hasty = counts.hasty + 1
  end
  local ends = math.max(now, bus.busy_until) + #bytes * CHARACTER
  bus.busy_until = ends
  local frame = core.frame(bytes)
  if not frame or frame.type ~= "short" then return end
  bus.answer = answer(bus, frame.c, frame.a)
  if bus.answer then give_out_at(bus, ends + delay(bus) + #bus.answer * CHARACTER) end
end

local function leave(bus, client)
  runtime.close(client)
  if bus.client ~= client then return end
  bus.client, bus.answer = nil, nil
  bus.timer:stop()
end

local function welcome(bus, client)
  if bus.client then return runtime.close(client) end
  bus.client = client
  client:nodelay(true)
  client:read_start(function(err, bytes)
    if err or not bytes then return leave(bus, client) end
    hear(bus, bytes, runtime.now())
  end)
end

local function new(meters, shared_telegrams, spread)
  local uv = runtime.luv()
  local bus = { meters = {}, telegrams = shared_telegrams, timer = uv.new_timer(), server = uv.new_tcp(), busy_until = 0,
    spread = spread }
  for address = 1, meters do bus.meters[address] = { address = address, access = 0 } end
  bus.on_time = function() give_out(bus) end
  assert(bus.server:bind("127.0.0.1", 0))
  assert(bus.server:listen(8, function()
    local client = uv.new_tcp()
    bus.server:accept(client)
    welcome(bus, client)
  end))
  return bus
end

-- ------------------------------------------------------------------ the process

local function on_signal(name, fn)
  local handle = runtime.luv().new_signal()
  handle:start(name, fn)
  return handle
end

local function serve(count, meters)
  local shared, buses = telegrams(meters), {}
  count_anew()
  for i = 1, count do
    buses[i] = new(meters, shared, i / count)
    io.write(buses[i].server:getsockname().port, "\n")
  end
  io.flush()
  collectgarbage "generational"
  local handles = { on_signal("sigusr1", count_anew), on_signal("sigterm", function()
    print(("%d %.9f %.9f %d %d %.3f"):format(counts.answers, counts.late, counts.latest, counts.talked_into, counts.hasty,
      os.clock()))
    io.flush()
    os.exit(true)
  end) }
  runtime.run()
  return handles
end

if arg and arg[0] and arg[0]:find "buses%.lua$" then
  serve(math.tointeger(tonumber(arg[1])), math.tointeger(tonumber(arg[2])))
end

return M
