---What the specs of the gateway share: a gateway on a virtual clock, over simulated buses whose faults they steer.
local Clock = require "mbus.gateway.clock"
local Error = require "mbus.error"
local Gateway = require "mbus.gateway"
local simulator = require "mbus.simulator"

local M = {}

-- busted forgets modules between files. luv must be loaded once a process, on a thread that is never collected.
do
  local registry = debug.getregistry()
  local kept = registry["mbus.spec.luv"]
  if not kept then
    local loader = coroutine.create(require)
    local _, luv = coroutine.resume(loader, "luv")
    kept = { luv = luv, loader = loader }
    registry["mbus.spec.luv"] = kept
  end
  package.loaded.luv = kept.luv
end

---A meter with an energy, a volume flow and a clock.
function M.meter(address, fields)
  local meter = { address = address, id = ("%08d"):format(address), manufacturer = "ABC", version = 1, medium = 4, delay = 0.04,
    telegrams = { { records = {
      { quantity = "energy", unit = "Wh", value = 1000 * address, exponent = 3, data = "int32" },
      { quantity = "volume_flow", unit = "m3/h", value = 0.5, exponent = -3, data = "int32" },
      { quantity = "datetime", data = "datetime", value = "2024-01-01T00:00" },
    } } } }
  for name, value in pairs(fields or {}) do meter[name] = value end
  return meter
end

---@param meters table[]
function M.sim(meters, fields)
  local description = { meters = meters }
  for name, value in pairs(fields or {}) do description[name] = value end
  return assert(simulator.new(description))
end

---@param world table  clock, sims (by host name), down (host names that refuse), opened (how often, by host name)
function M.world(sims)
  return { clock = Clock.virtual(), sims = sims, down = {}, opened = {} }
end

local function open(world)
  return function(settings)
    local host = settings.url:match("^tcp://([^:]+)")
    world.opened[host] = (world.opened[host] or 0) + 1
    if world.down[host] then return nil, Error.new("refused", "connection refused", { bus = host }) end
    local transport = world.sims[host]:transport()
    transport.name = host
    local write = transport.write
    function transport:write(bytes)
      if world.down[host] then return nil, Error.new("closed", "the other side closed the connection", { bus = host }) end
      return write(self, bytes)
    end
    return transport
  end
end

---@return mbus.Gateway gateway
---@return table[] news  of all values, as they come
---@return string[] log
function M.gateway(world, config, options)
  options = options or {}
  options.clock, options.open = world.clock, open(world)
  local gateway = assert(Gateway.new(config, options))
  local news, log = {}, {}
  gateway:on("value", function(_, _, _, _, one) news[#news + 1] = one end)
  gateway:on("log", function(connection, level, text)
    log[#log + 1] = ("%s %s %s"):format(connection and connection.name or "-", level, text)
  end)
  return gateway, news, log
end

---One connection of type tcp.
function M.connection(name, fields)
  local connection = { name = name, type = "tcp", host = name, port = 10001, period = 60000 }
  for key, value in pairs(fields or {}) do connection[key] = value end
  return connection
end

---@return table[]  the news of one binding
function M.of(news, name)
  local list = {}
  for _, one in ipairs(news) do
    if one.binding.name == name then list[#list + 1] = one end
  end
  return list
end

---@return integer  frames that the master sent to the meters of a bus
function M.requests(sim) return sim.statistics.requests end

return M
