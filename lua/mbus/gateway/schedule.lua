---Who is polled when. A cycle is all that has one period: it begins at whole multiples of it, whatever the last one took,
---so that nothing drifts. A cycle that is not through when the next one should begin makes that one fall out.
---
---    schedule:advance(now)          begins what is due
---    schedule:take()                the next meter to read
---    Schedule.done(meter)           it was read, or failed
local M = {}

---A meter as it is polled: all bindings that one readout serves.
---@class mbus.gateway.Meter
---@field address mbus.Address
---@field parts table[]           {cycle, bindings, is_due}
---@field failures integer        readouts that failed in a row
---@field offline_until? number
---@field waiters table[]         those who wait for the next readout

---@class mbus.gateway.Schedule
---@field meters mbus.gateway.Meter[]
---@field cycles table[]  {period, start, slot, left, parts}
local Schedule = {}
Schedule.__index = Schedule

local NOBODY = {} -- a list that stays empty

---@param meter mbus.gateway.Meter
---@param waiter table  for the next readout
function M.join(meter, waiter)
  if meter.waiters == NOBODY then meter.waiters = {} end
  table.insert(meter.waiters, waiter)
end

---@return table[] waiters  who has joined; nobody waits any more
function M.leave(meter)
  local waiters = meter.waiters
  meter.waiters = NOBODY
  return waiters
end

---@param address mbus.Address
---@return mbus.gateway.Meter
function M.meter(address)
  return { address = address, parts = {}, failures = 0, waiters = NOBODY, is_queued = false }
end

-- With group requests one meter an address; without, one a binding.
local function meter_of(self, by_key, binding, connection)
  local address = binding.settings.address
  local key = connection.settings.group_requests and address.text or binding
  if not by_key[key] then
    by_key[key] = M.meter(address)
    self.meters[#self.meters + 1] = by_key[key]
  end
  return by_key[key]
end

local function cycle_of(self, by_period, milliseconds)
  if not by_period[milliseconds] then
    local cycle = { period = milliseconds / 1000, slot = 0, left = 0, parts = {} }
    by_period[milliseconds] = cycle
    self.cycles[#self.cycles + 1] = cycle
  end
  return by_period[milliseconds]
end

local function part_of(meter, cycle)
  for _, part in ipairs(meter.parts) do
    if part.cycle == cycle then return part end
  end
  local part = { meter = meter, cycle = cycle, bindings = {}, is_due = false }
  meter.parts[#meter.parts + 1], cycle.parts[#cycle.parts + 1] = part, part
  return part
end

---@param connections mbus.gateway.Connection[]  of one line, in order of preference
---@return mbus.gateway.Schedule
function M.new(connections)
  local self = setmetatable({ meters = {}, cycles = {}, queue = {}, first = 1, last = 0 }, Schedule)
  local by_key, by_period = {}, {}
  for _, connection in ipairs(connections) do
    for _, binding in ipairs(connection.bindings) do
      local settings = binding.settings
      local meter = meter_of(self, by_key, binding, connection)
      binding.meter = meter
      if binding.access ~= "W" then
        local cycle = cycle_of(self, by_period, settings.period or connection.settings.period)
        table.insert(part_of(meter, cycle).bindings, binding)
      end
    end
  end
  return self
end

---The cycles begin now.
---@param now number
function Schedule:start(now)
  for _, cycle in ipairs(self.cycles) do cycle.start, cycle.slot, cycle.left = now, 0, 0 end
end

---@param meter mbus.gateway.Meter
---@param first? boolean  before all others
function Schedule:enqueue(meter, first)
  if meter.is_queued then
    if not first then return end
    self:forget(meter)
  end
  meter.is_queued = true
  if first then
    self.first = self.first - 1
    self.queue[self.first] = meter
  else
    self.last = self.last + 1
    self.queue[self.last] = meter
  end
end

---Takes a meter out of the queue.
function Schedule:forget(meter)
  local rest, count = {}, 0
  for i = self.first, self.last do
    if self.queue[i] and self.queue[i] ~= meter then
      count = count + 1
      rest[count] = self.queue[i]
    end
  end
  self.queue, self.first, self.last = rest, 1, count
  meter.is_queued = false
end

local function is_wanted(part)
  for _, binding in ipairs(part.bindings) do
    if binding:is_read() then return true end
  end
  return false
end

local function begin(self, cycle, now)
  for _, part in ipairs(cycle.parts) do
    local meter = part.meter
    if is_wanted(part) and not (meter.offline_until and now < meter.offline_until) then
      part.is_due = true
      cycle.left = cycle.left + 1
      self:enqueue(meter)
    end
  end
end

local function due(cycle) return cycle.start + cycle.slot * cycle.period end

-- Moves on to the first beginning that is still to come. Returns how many are left behind.
local function move_on(cycle, now)
  local passed = math.tointeger((now - due(cycle)) // cycle.period) + 1
  cycle.slot = cycle.slot + passed
  return passed
end

local function add_late(late, cycle, skipped)
  if skipped == 0 then return late end
  late = late or {}
  late[#late + 1] = { period = cycle.period, skipped = skipped }
  return late
end

---Lets fall out the beginnings of cycles that are not through yet.
---@param now number
---@return table[]? late  {period, skipped}
function Schedule:skip(now)
  local late
  for _, cycle in ipairs(self.cycles) do
    if cycle.left > 0 and now >= due(cycle) then late = add_late(late, cycle, move_on(cycle, now)) end
  end
  return late
end

---Begins the cycles that are due. What was slept through does not come back.
---@param now number
---@return table[]? late  {period, skipped}
function Schedule:advance(now)
  local late = self:skip(now)
  for _, cycle in ipairs(self.cycles) do
    if now >= due(cycle) then
      late = add_late(late, cycle, move_on(cycle, now) - 1)
      begin(self, cycle, now)
    end
  end
  return late
end

---@return number? time  of the next beginning of a cycle, nil: there is none
function Schedule:next_due()
  local least
  for _, cycle in ipairs(self.cycles) do
    local time = due(cycle)
    if not least or time < least then least = time end
  end
  return least
end

---@return mbus.gateway.Meter?
function Schedule:take()
  if self.first > self.last then
    self.first, self.last = 1, 0
    return nil
  end
  local meter = self.queue[self.first]
  self.queue[self.first] = nil
  self.first = self.first + 1
  meter.is_queued = false
  return meter
end

---The bindings that a readout of this meter is for.
---@param meter mbus.gateway.Meter
---@return mbus.gateway.Binding[]
function M.served(meter)
  local list, on_demand = {}, #meter.waiters > 0
  for _, part in ipairs(meter.parts) do
    for _, binding in ipairs(part.is_due and part.bindings or on_demand and part.bindings or {}) do
      if binding:is_read() then list[#list + 1] = binding end
    end
  end
  return list
end

---@param meter mbus.gateway.Meter
---@return boolean  somebody wants its readout: not where that has come, or its bindings were stopped, since it was queued
function M.is_needed(meter)
  if meter.waiters[1] then return true end
  for _, part in ipairs(meter.parts) do
    if part.is_due and is_wanted(part) then return true end
  end
  return false
end

---@param meter mbus.gateway.Meter
function M.done(meter)
  for _, part in ipairs(meter.parts) do
    if part.is_due then
      part.is_due = false
      part.cycle.left = part.cycle.left - 1
    end
  end
end

return M
