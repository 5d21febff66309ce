---What the soaks share: meters whose values tell who sent them and when, weather that comes and goes, and the judge of what
---the gateway tells.
---
---A value holds the number of its meter and the time of its answer in tenths of a second; the second record of a meter is made
---of the first. So a value that was swapped, kept, or put together of two answers is found out, by whoever sees it.
local M = {}

M.METERS = 4        -- of a bus

local TENTHS = 1 << 23

local function second(raw) return (raw * 7919 + 13) % (1 << 30) end

-- Two records, kWh and l/h, as int32.
local function records(number, time)
  local raw = number * TENTHS + math.floor(time * 10) % TENTHS
  return ("BBi4BBi4"):pack(0x04, 0x06, raw, 0x04, 0x3B, second(raw))
end

---A simulated bus. Its gateway hides characters with a wrong parity, as most do.
---@param bus integer  1..
---@return mbus.simulator.Simulator
function M.sim(bus)
  local meters = {}
  for address = 1, M.METERS do
    meters[address] = { address = address, id = ("%08d"):format(bus * 100 + address), delay = 0.04,
      telegrams = { { records = { { quantity = "energy", unit = "Wh", value = 0, exponent = 3, data = "int32" } } } } }
  end
  local sim = assert(require("mbus.simulator").new { seed = bus, meters = meters, converter = { damaged = "drop" } })
  for address, meter in ipairs(sim.meters) do
    local telegram, number = meter.description.telegrams[1], (bus - 1) * M.METERS + address
    telegram.records = nil
    setmetatable(telegram, { __index = function(_, key) return key == "records" and records(number, meter.now) or nil end })
  end
  return sim
end

-- ------------------------------------------------------------------ weather

-- Bit flips: one character in a hundred. More than that, and two that undo each other pass an M-Bus checksum now and then.
local WEATHERS = {
  { name = "calm" }, { name = "calm" }, { name = "calm" },
  { name = "bit flips", faults = { bit_flips = 1e-3 } },
  { name = "cuts", faults = { cut = 0.5 } },
  { name = "checksums", faults = { checksum = true, answers = 1 } },
  { name = "glued", faults = { glued = true } },
  { name = "one deaf", deaf = 1 },
  { name = "all deaf", deaf = M.METERS },
  { name = "unreachable", down = true },
}

---@param random fun(n: integer): integer
function M.weather(random) return WEATHERS[random(#WEATHERS)] end

M.CALM = WEATHERS[1]

---@param sim mbus.simulator.Simulator
function M.strike(sim, weather)
  for address, meter in ipairs(sim.meters) do
    meter.description.faults, meter.faults = weather.faults, {}
    meter.description.deaf = address <= (weather.deaf or 0)
  end
end

---A generator of its own, the same in each run.
function M.random(seed)
  local state = seed
  return function(n)
    state = (state * 6364136223846793005 + 1442695040888963407)
    return (state >> 33) % n + 1
  end
end

-- ------------------------------------------------------------------ the config

---@param buses table[]  host and port of each
---@param fields table   settings for all
function M.config(buses, fields)
  local connections = {}
  for i, bus in ipairs(buses) do
    local bindings = {}
    for address = 1, M.METERS do
      bindings[#bindings + 1] = { name = ("e%d"):format(address), address = address, index = 0, report = "poll" }
      bindings[#bindings + 1] = { name = ("f%d"):format(address), address = address, index = 1, report = "poll" }
    end
    local connection = { name = ("bus%d"):format(i), type = "tcp", host = bus.host, port = bus.port, bindings = bindings }
    for name, value in pairs(fields) do connection[name] = value end
    connections[i] = connection
  end
  return { connections = connections }
end

-- ------------------------------------------------------------------ the judge

local FRESH = 10 -- seconds from an answer until its value is told, with all attempts

---@class mbus.soak.Judge
---@field polls integer    of meters
---@field good integer     values
---@field missing table<string, integer>  values reported as missing, by reason
---@field violations string[]  the first of them
---@field count integer    violations
local Judge = {}
Judge.__index = Judge

---@param gateway mbus.Gateway
---@param now fun(): number   the clock of the meters
---@return mbus.soak.Judge
function M.judge(gateway, now)
  local self = setmetatable({ polls = 0, good = 0, missing = {}, violations = {}, count = 0, numbers = {}, told = {} }, Judge)
  for i, connection in ipairs(gateway.connections) do
    for j, binding in ipairs(connection.bindings) do
      self.numbers[binding] = { meter = (i - 1) * M.METERS + (j + 1) // 2, first = j % 2 == 1,
        label = ("%s.%s"):format(connection.name, binding.name), partner = connection.bindings[j - 1], connection = connection }
    end
  end
  gateway:on("value", function(binding, value, quality, _, news) self:hear(binding, value, quality, news, now()) end)
  return self
end

function Judge:violate(...)
  self.count = self.count + 1
  if self.count <= 20 then self.violations[self.count] = string.format(...) end
end

local function check_first(self, who, raw, now)
  local age = (math.floor(now * 10) - raw) % TENTHS / 10
  if raw // TENTHS ~= who.meter then return self:violate("%s: the value of meter %d", who.label, raw // TENTHS) end
  if age > FRESH then self:violate("%s: a value that is %.1f s old", who.label, age) end
end

local function check_second(self, who, raw)
  local first = self.told[who.partner]
  if not first then return self:violate("%s: good without its partner", who.label) end
  if raw ~= second(first) then self:violate("%s: %d is no partner of %d", who.label, raw, first) end
end

function Judge:hear(binding, value, quality, news, now)
  if news.error == "shutdown" then return end
  local who = self.numbers[binding]
  if who.first then self.polls = self.polls + 1 end
  self.told[binding] = nil
  if quality == "bad" then
    local reason = (news.error or "no reason"):gsub("%d+", "N")
    self.missing[reason] = (self.missing[reason] or 0) + 1
    if value ~= nil then self:violate("%s: bad, and yet %s", who.label, tostring(value)) end
    if not news.error then self:violate("%s: bad without a reason", who.label) end
    return
  end
  self.good = self.good + 1
  local raw = math.tointeger(who.first and value / 1000 or math.floor(value * 1000 + 0.5))
  self.told[binding] = raw
  if who.first then check_first(self, who, raw, now) else check_second(self, who, raw) end
  binding.soak_good = now
end

---Whether all that is missing is reported so: a binding is bad unless it was told a good value since then.
---@param gateway mbus.Gateway
---@param since number
function Judge:look(gateway, since)
  for _, connection in ipairs(gateway.connections) do
    for _, binding in ipairs(connection.bindings) do
      if binding.quality ~= "bad" and (binding.soak_good or -math.huge) < since then
        self:violate("%s: %s, though there was no value since %.0f", self.numbers[binding].label, tostring(binding.quality), since)
      end
    end
  end
end

---Whether all are good again once the weather is calm.
function Judge:expect_all_good()
  for binding, who in pairs(self.numbers) do
    if binding.quality ~= "good" then
      self:violate("%s: still %s in calm weather; the connection says: %s", who.label, tostring(binding.error),
        tostring(who.connection.error))
    end
  end
end

-- ------------------------------------------------------------------ memory and the report

---KiB that this process has, 0 where nobody tells.
function M.rss()
  local file = io.open "/proc/self/status"
  local text = file and file:read "a" or ""
  if file then file:close() end
  return tonumber(text:match "VmRSS:%s+(%d+)") or 0
end

---KiB of Lua after a collection, without the lines of the logs, which are many only until their rings are full.
function M.heap(gateway)
  for _, connection in ipairs(gateway.connections) do connection.log:clear() end
  collectgarbage()
  collectgarbage()
  return collectgarbage "count"
end

function Judge:report(write)
  write(("%d polls, %d good values"):format(self.polls, self.good))
  local reasons = {}
  for reason in pairs(self.missing) do reasons[#reasons + 1] = reason end
  table.sort(reasons, function(a, b) return self.missing[a] > self.missing[b] end)
  for _, reason in ipairs(reasons) do write(("%9d missing: %s"):format(self.missing[reason], reason)) end
  write(("%d violations"):format(self.count))
  for _, violation in ipairs(self.violations) do write("  " .. violation) end
end

return M
