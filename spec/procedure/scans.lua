-- What the specs of scans share: buses of meters, and what a scan makes of them.
local core = require "mbus.core"
local mbus = require "mbus"
local Random = require "mbus.simulator.random"

local M = {}

---Telegram records; 11 of them make an answer of 90 characters.
function M.records(count, value)
  local records = {}
  for i = 1, count do
    records[i] = { quantity = "energy", unit = "Wh", value = (value or 35) * i * 1000, exponent = 3, data = "int32" }
  end
  return records
end

---A meter by its identification number.
function M.meter(id, fields)
  local meter = { id = id, manufacturer = "KAM", version = 1, medium = 4, telegrams = { { records = M.records(3) } } }
  for name, value in pairs(fields or {}) do meter[name] = value end
  return meter
end

function M.meters(ids, fields)
  local list = {}
  for i, id in ipairs(ids) do list[i] = M.meter(id, fields) end
  return list
end

---Meters with random identification numbers and answers of 90 characters.
function M.random_meters(count, seed)
  local random, list = Random.new(seed), {}
  for i = 1, count do
    local id = ("%08d"):format(random:number() * 1e8 // 1 | 0)
    list[i] = M.meter(id, { telegrams = { { records = M.records(11, i) } } })
  end
  return list
end

---Scans a simulated bus to its end.
---@return table scan  meters, by_address, result, err, seconds, sim, trace (hex of frames sent)
function M.scan(description, options, bus_options)
  local sim = assert(mbus.simulator.new(description))
  local transport = sim:transport()
  local sent = {}
  local all = { trace = function(direction, bytes) if direction == "SEND" then sent[#sent + 1] = core.hex(bytes) end end }
  for name, value in pairs(bus_options or {}) do all[name] = value end
  local bus <close> = assert(mbus.open(transport, all))
  local search = assert(bus:scan(options))
  local meters, by_address = {}, {}
  for meter in search do
    meters[#meters + 1] = meter
    by_address[meter.address] = meter
  end
  return { meters = meters, by_address = by_address, result = search.result, err = search.error, seconds = transport:now(),
    sim = sim, sent = sent }
end

---The addresses that were found, sorted; collisions not among them.
function M.addresses(scan)
  local list = {}
  for _, meter in ipairs(scan.meters) do
    if not meter.collision then list[#list + 1] = tostring(meter.address) end
  end
  table.sort(list)
  return list
end

---What a search by secondary address has to find.
function M.secondary_addresses(sim)
  local list = {}
  for i, meter in ipairs(sim.meters) do list[i] = meter.id .. core.hex(meter.identity:sub(5), "") end
  table.sort(list)
  return list
end

return M
