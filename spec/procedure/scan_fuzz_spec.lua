-- Random buses: ids at random, in batches and with equal ends, equal ids; every converter; every latency; flipped bits.
-- Nothing may be invented, and nothing lost without a word. SCAN_SEEDS=2000 tries more of them.
local core = require "mbus.core"
local mbus = require "mbus"
local Random = require "mbus.simulator.random"
local scans = require "spec.procedure.scans"

local SEEDS = math.tointeger(tonumber(os.getenv "SCAN_SEEDS" or 150))

local function pick(random, list) return list[1 + (random:number() * #list // 1 | 0)] end

local IDS = {
  random = function(random) return ("%08d"):format(random:number() * 1e8 // 1 | 0) end,
  batch = function(random, i) return ("%08d"):format(82969000 + i * (1 + random:number() * 3 // 1 | 0)) end,
  tail = function(random) return ("%04d0000"):format(random:number() * 1e4 // 1 | 0) end,
  equal = function(random, i) return i <= 2 and "12345678" or ("%08d"):format(random:number() * 1e8 // 1 | 0) end,
}

local LATENCIES = {
  usual = function() return nil end,
  equal = function() return { 0.044, 0.0442 } end,
  wide = function() return { 0.0047, 0.1875 } end,
  fixed = function(random) return random:between(0.0047, 0.18) end,
}

local function names(map)
  local list = {}
  for name in pairs(map) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local function random_bus(seed)
  local random = Random.new(seed * 7919)
  local ids, latency = pick(random, names(IDS)), pick(random, names(LATENCIES))
  local converter = { collision = pick(random, { "superpose", "break" }), bit_flips = pick(random, { 0, 0, 0, 1e-4, 3e-4 }) }
  local list = {}
  for i = 1, random:between(0, 14) // 1 | 0 do
    list[i] = scans.meter(IDS[ids](random, i), { manufacturer = pick(random, { "KAM", "HYD", "LUG" }),
      version = random:number() * 255 // 1 | 0, medium = pick(random, { 4, 7, 6, 13 }), access_no = random:number() * 256 // 1 | 0,
      telegrams = { { records = scans.records(random:number() * 12 // 1 | 0, random:number() * 1e4 // 1 | 0) } },
      delay = LATENCIES[latency](random) })
  end
  return { seed = seed, meters = list, converter = converter },
    ("seed %d: %d meters, %s, %s, %s, %g"):format(seed, #list, ids, latency, converter.collision, converter.bit_flips)
end

local function check_secondary(description, message)
  local done = scans.scan(description, { secondary = true })
  local real, found = {}, {}
  for _, meter in ipairs(done.sim.meters) do real[meter.id .. core.hex(meter.identity:sub(5), "")] = true end
  for _, meter in ipairs(done.meters) do
    if not meter.collision and not meter.error then
      assert.is_true(real[meter.address], message .. ": invented " .. meter.address)
      assert.is_nil(found[meter.address], message .. ": twice " .. meter.address)
      found[meter.address] = true
    end
  end
  for address in pairs(real) do
    assert.is_true(found[address] or not done.result.complete, message .. ": lost " .. address)
  end
  assert.equal(0, done.sim.statistics.overlaps, message)
  assert.is_true(done.seconds < 1500, message)
end

local function check_primary(description, message)
  for i, meter in ipairs(description.meters) do meter.address = i * 7 % 11 end
  local done = scans.scan(description, { range = "0-12" })
  local at = {}
  for _, meter in ipairs(done.sim.meters) do
    at[meter.address] = at[meter.address] or {}
    at[meter.address][meter.id] = true
  end
  for _, meter in ipairs(done.meters) do
    if meter.id then assert.is_true(at[meter.address][meter.id], message .. ": invented " .. meter.id) end
    assert.is_table(at[meter.address], message .. ": nobody is at " .. meter.address)
  end
  for address in pairs(at) do assert.is_table(done.by_address[address], message .. ": lost " .. address) end
  assert.equal(0, done.sim.statistics.overlaps, message)
end

-- Meters that answer late, and some that are mute or two at one address; perhaps the scan is interrupted.
local function late_bus(random)
  local list = {}
  for i = 1, random:between(1, 7) // 1 | 0 do
    list[i] = scans.meter(IDS.random(random), { address = random:between(0, 9) // 1 | 0,
      delay = pick(random, { 0.03, 0.06, 0.15 }), late = pick(random, { false, random:between(0.001, 0.7) }) or nil,
      telegrams = random:number() < 0.15 and {} or nil })
  end
  return { meters = list, converter = { echo = random:number() < 0.3, collision = pick(random, { "superpose", "break" }) } }
end

-- Scans, and goes on from its state where it was interrupted.
local function scan_in_parts(description, options, parts)
  local sim = assert(mbus.simulator.new(description))
  local sent = 0
  local search, found
  local bus <close> = assert(mbus.open(sim, { trace = function(direction)
    sent = direction == "SEND" and sent + 1 or sent
    if sent == parts[1] then search:abort() end
    assert.is_true(sent < 1000)
  end }))
  function options.save(state) options.resume = state end
  repeat
    local last = #parts == 0
    search, found, sent = assert(bus:scan(options)), {}, 0
    for meter in search do found[#found + 1] = meter end
    assert.is_nil(search.error)
    table.remove(parts, 1)
  until last
  return found, sim
end

local function check_late(seed)
  local random = Random.new(seed * 104729)
  local description = late_bus(random)
  local options = { range = "0-13", probe = pick(random, { "nke", "req", "both" }), retries = pick(random, { 0, 0, 1, 2 }) }
  local parts = pick(random, { {}, { random:between(1, 30) // 1 | 0, random:between(1, 30) // 1 | 0 } })
  local found, sim = scan_in_parts(description, options, parts)
  local at = {}
  for _, meter in ipairs(sim.meters) do
    at[meter.address] = at[meter.address] or { ids = {}, count = 0, mute = false }
    local here = at[meter.address]
    here.ids[meter.id], here.count = true, here.count + 1
    here.mute = here.mute or #meter.description.telegrams == 0
  end
  for _, meter in ipairs(found) do
    local here, message = at[meter.address], ("seed %d: %d"):format(seed, meter.address)
    assert.is_table(here, message .. ": nobody is there")
    if meter.collision then assert.is_true(here.count > 1, message .. ": no collision") end
    if meter.error then assert.is_true(here.mute, message .. ": nobody is mute") end
    if meter.id then assert.is_true(here.ids[meter.id], message .. ": somebody else") end
  end
end

describe("scans of random buses", function()
  it("find by secondary address what is there, or say that something is missing", function()
    for seed = 1, SEEDS do check_secondary(random_bus(seed)) end
  end)

  it("find by primary address what is there", function()
    for seed = 1, SEEDS do check_primary(random_bus(seed)) end
  end)

  it("find by primary address nobody who is not there, however late answers are", function()
    for seed = 1, SEEDS do check_late(seed) end
  end)

  it("come to an end on a line of noise", function()
    for seed = 1, 10 do
      local random = Random.new(seed)
      local sim = assert(mbus.simulator.new { seed = seed, meters = scans.random_meters(3, seed), converter = { bit_flips = 0.02 } })
      local transport = sim:transport()
      local write = transport.write
      function transport:write(bytes)
        for _ = 1, random:number() * 3 // 1 | 0 do
          sim.line:add(string.char(random:number() * 256 // 1 | 0), self:now() + random:between(0.03, 0.25))
        end
        return write(self, bytes)
      end
      local bus <close> = assert(mbus.open(transport))
      local search = bus:scan { range = "0-20" }
      for meter in search do assert.is_true(meter.address <= 20) end
      local frames = 0
      search = bus:scan { secondary = true, progress = function() frames = frames + 1 end }
      for _ in search do end -- luacheck: ignore
      assert.is_true(search.result ~= nil or search.error ~= nil)
      assert.is_true(frames < 100000)
    end
  end)
end)
