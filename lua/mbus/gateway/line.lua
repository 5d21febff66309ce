---One bus and the connections that lead to it: a connection alone, or a master and its backups. Reads its meters one after
---another, writes between two readouts, and changes over to a backup when the active connection fails.
local Connection = require "mbus.gateway.connection"
local Error = require "mbus.error"
local Schedule = require "mbus.gateway.schedule"

local M = {}

---@class mbus.gateway.Line
---@field connections mbus.gateway.Connection[]  the master, then its backups
---@field active integer                         position of the one in use
---@field schedule mbus.gateway.Schedule
local Line = {}
Line.__index = Line

---@param connections mbus.gateway.Connection[]
---@param gateway table  clock, tell(news), tell_overrun(connection, period, skipped)
---@return mbus.gateway.Line
function M.new(connections, gateway)
  local self = setmetatable({ connections = connections, gateway = gateway, clock = gateway.clock, active = 1,
    schedule = Schedule.new(connections), commands = {}, is_running = false }, Line)
  for _, connection in ipairs(connections) do connection.line = self end
  return self
end

---@return mbus.gateway.Connection
function Line:connection() return self.connections[self.active] end

-- ------------------------------------------------------------------ telling

local function tell(self, list)
  if list[1] then self.gateway:tell(list) end
end

-- The meter's own clock, no date of an event or a tariff.
local CLOCK = { quantity = "datetime", storage = 0, tariff = 0, subunit = 0, ["function"] = "instantaneous", modifiers = {} }

local function meter_time(readout) return (readout:value(CLOCK)) end

local function publish(self, meter, readout)
  local now, time, clock_text = self.clock.now(), self.clock.time(), meter_time(readout)
  local list = {}
  for _, binding in ipairs(Schedule.served(meter)) do
    local was = binding.error
    list[#list + 1] = binding:take(readout, now, time, clock_text)
    if binding.error and binding.error ~= was then
      binding.connection.log:add("warning", binding.name .. ": " .. binding.error)
    end
  end
  tell(self, list)
end

-- What a binding says of a failure.
local function text_of(err, meter)
  if err.code == "shutdown" then return "shutdown" end
  if err.code == "no_connection" or Connection.is_lost(err) then return "no connection" end
  if err.kind == "timeout" then return ('unavailable address "%s"'):format(meter.address.text) end
  -- Without tries and seconds, which differ every time.
  return tostring(Error.new(err.kind, err.message, { bus = err.bus, address = err.address, offset = err.offset }))
end

local function publish_failure(self, meter, err)
  local now, time, text, list = self.clock.now(), self.clock.time(), text_of(err, meter), {}
  for _, binding in ipairs(Schedule.served(meter)) do
    if err.code == "shutdown" then -- as those that were not being read
      list[#list + 1] = binding:halt(text, time)
    else
      list[#list + 1] = binding:fail(text, now, time)
    end
  end
  tell(self, list)
end

-- ------------------------------------------------------------------ redundancy

local function log_change(from, to, reason)
  to.statistics.takeovers = to.statistics.takeovers + 1
  to.log:add("warning", ("takes over from %s: %s"):format(from.name, reason))
  from.log:add("warning", ("hands over to %s: %s"):format(to.name, reason))
end

-- Meters that were not reached over the one may be reached over the other. Who is not has failed before all the same.
local function forgive(self)
  for _, meter in ipairs(self.schedule.meters) do meter.offline_until = nil end
end

local function activate(self, position, reason)
  local from, to = self:connection(), self.connections[position]
  if from == to then return end
  from:close()
  self.active = position
  self.regain_at = self.clock.now() + self.connections[1].settings.regain_interval / 1000
  to.failing = 0
  log_change(from, to, reason)
  forgive(self)
end

-- Opens the active connection, or the next that can be opened.
local function reach(self)
  local first_error
  local count = #self.connections
  for step = 0, count - 1 do
    local position = (self.active - 1 + step) % count + 1
    local connection = self.connections[position]
    local ok, err = connection:open()
    if ok then
      activate(self, position, first_error and tostring(first_error) or "it is stopped")
      return connection
    end
    if not connection.stopped then first_error = first_error or err end
  end
  return nil, first_error or Error.new("closed", "the connection is stopped", { bus = self.connections[1].name })
end

-- To the next that can be opened. The one that fails is not given up for nothing: perhaps it is the meters that are silent.
local function change_over(self, reason)
  local count = #self.connections
  for step = 1, count - 1 do
    local position = (self.active - 1 + step) % count + 1
    if self.connections[position]:open() then
      activate(self, position, reason)
      return true
    end
  end
  return false
end

-- The master, or a backup that is more of a master, may be there again. Returns the readout that has shown it.
local function try_regain(self, meter)
  self.regain_at = self.clock.now() + self.connections[1].settings.regain_interval / 1000
  for position = 1, self.active - 1 do
    local connection = self.connections[position]
    connection.retry_at = nil
    if connection:is_running() and connection:open() then
      local readout = connection:read(meter.address, 0)
      if readout then
        activate(self, position, "it answers again")
        return readout
      end
      connection:close()
    end
  end
end

-- When to look whether the master is there again; nil: it is in use.
local function regain_due(self) return self.active > 1 and self.regain_at or nil end

-- Whoever answers over the backup can show whether the master is there; and if nobody does, anybody.
local function witness(self)
  local meters = self.schedule.meters
  for _, meter in ipairs(meters) do
    if not meter.offline_until then return meter end
  end
  return meters[1]
end

-- Nothing is to be read: the master is looked after all the same.
local function check_master(self)
  local due = regain_due(self)
  if not due or self.clock.now() < due then return end
  local meter = witness(self)
  if meter then
    try_regain(self, meter)
  else
    self.regain_at = math.huge
  end
end

local function any_running(self)
  for _, connection in ipairs(self.connections) do
    if connection:is_running() then return true end
  end
  return false
end

---@return boolean  at least one of its connections is to be used
function Line:any_running() return any_running(self) end

local function others(self)
  for position, connection in ipairs(self.connections) do
    if position ~= self.active and connection:is_running() then return true end
  end
  return false
end

-- Also where it is tried once more, as after a change-over.
local function is_dead(self, meter) return meter.failures >= self:connection().settings.offline_after end

local function somebody_answers(self)
  for _, meter in ipairs(self.schedule.meters) do
    if meter.parts[1] and not is_dead(self, meter) then return true end
  end
  return false
end

-- A meter that is known not to answer says nothing about the bus, unless none answers.
local function count_failure(self, connection, meter, err)
  if Connection.is_lost(err) or is_dead(self, meter) and somebody_answers(self) then return end
  connection.failing = connection.failing + 1
end

local function no_connection(self, err)
  return Error.new("closed", "no connection: " .. err.message, { bus = self:connection().name, code = "no_connection" })
end

-- One readout over the active connection. Comes back with `again` if another has taken over.
local function read_once(self, meter, retries)
  local connection, err = reach(self)
  if not connection then return nil, no_connection(self, err) end
  local readout
  readout, err = connection:read(meter.address, retries)
  if readout then
    connection.failing = 0
    return readout
  end
  if self.stopping then return nil, err end
  if connection.stopped then return nil, err, others(self) end
  count_failure(self, connection, meter, err)
  if not others(self) then return nil, err end
  local is_lost = Connection.is_lost(err)
  -- Lost twice without an answer in between: it can be opened, and that is all.
  if connection.failing < (is_lost and 2 or connection.settings.attempts) then return nil, err, is_lost end
  return nil, err, change_over(self, tostring(err))
end

local function fetch(self, meter, retries)
  local due = regain_due(self)
  local readout = due and self.clock.now() >= due and not meter.offline_until and try_regain(self, meter)
  if readout then return readout end
  local err, again
  for _ = 0, #self.connections do
    readout, err, again = read_once(self, meter, retries)
    if readout or not again or self.stopping then break end
  end
  return readout, err
end

-- ------------------------------------------------------------------ meters

local function serve_waiters(meter, readout, err)
  for _, waiter in ipairs(Schedule.leave(meter)) do
    waiter.readout, waiter.err = readout, err
    waiter.event:set()
  end
end

local function succeed(self, meter)
  if meter.offline_until then self:connection().log:add("info", ("address %s answers again"):format(meter.address.text)) end
  meter.failures, meter.offline_until = 0, nil
end

-- Lets a meter that fails rest, so that it does not cost the others their time.
local function suffer(self, meter, err)
  if err.code == "no_connection" or Connection.is_lost(err) then return end
  local settings = self:connection().settings
  meter.failures = meter.failures + 1
  if meter.failures < settings.offline_after then return end
  if not meter.offline_until then
    self:connection().log:add("warning", ("address %s is offline: tried every %g s only"):format(meter.address.text,
      settings.offline_interval / 1000))
  end
  meter.offline_until = self.clock.now() + settings.offline_interval / 1000
end

local function shutdown(connection) return Error.new("closed", "shutdown", { bus = connection.name, code = "shutdown" }) end

local function note_overruns(self, late)
  for _, one in ipairs(late or {}) do
    local connection = self:connection()
    connection.statistics.overruns = connection.statistics.overruns + one.skipped
    connection.log:add("warning", ("overrun: the cycle of %g s takes longer than that, %d left out"):format(one.period,
      one.skipped))
    self.gateway:tell_overrun(connection, one.period, one.skipped)
  end
end

local function poll(self, meter)
  local is_trial = meter.offline_until and #meter.waiters == 0
  self.busy_with = meter
  local readout, err = fetch(self, meter, is_trial and 0 or nil)
  self.busy_with = nil
  if not readout and (self.stopping or not any_running(self)) then err = shutdown(self:connection()) end
  if readout then
    succeed(self, meter)
    publish(self, meter, readout)
  else
    suffer(self, meter, err)
    publish_failure(self, meter, err)
  end
  note_overruns(self, self.schedule:skip(self.clock.now()))
  Schedule.done(meter)
  serve_waiters(meter, readout, err)
end

-- ------------------------------------------------------------------ the loop

local function close_stopped(self)
  for _, connection in ipairs(self.connections) do
    if connection.stopped and connection.bus then connection:close() end
  end
end

-- What could eat the memory of everybody is stopped alone.
local function check_memory(self)
  for _, connection in ipairs(self.connections) do
    local limit = connection.settings.memory_limit
    if limit and not connection.stopped then
      local bytes = require("mbus.gateway.diagnostics").memory(connection)
      if bytes > limit then connection.log:clear() end
      if bytes > limit and require("mbus.gateway.diagnostics").memory(connection) > limit then
        connection.stopped, connection.is_too_large = true, true
        connection:complain(("memory limit: it uses %d of %d bytes"):format(bytes, limit))
      end
    end
  end
end

-- Who waits for a readout that nobody will make is told so.
local function dismiss_waiters(self)
  for meter in function() return self.schedule:take() end do
    Schedule.done(meter)
    serve_waiters(meter, nil, shutdown(self:connection()))
  end
end

local function act(self)
  local command = table.remove(self.commands, 1)
  if command then
    command()
    return true
  end
  if not any_running(self) then
    self.has_paused = true -- what falls out while it is stopped is no overrun
    dismiss_waiters(self)
    return false
  end
  local due = self.schedule:next_due()
  if due and self.clock.now() >= due then
    check_memory(self)
    local late = self.schedule:advance(self.clock.now())
    if not self.has_paused then note_overruns(self, late) end
    self.has_paused = false
  end
  local meter = self.schedule:take()
  if not meter then
    check_master(self)
  elseif Schedule.is_needed(meter) then
    poll(self, meter)
  else
    Schedule.done(meter)
  end
  return meter ~= nil
end

local function halt(self, bindings)
  local list, time = {}, self.clock.time()
  for _, binding in ipairs(bindings) do
    if binding.access ~= "W" and not binding.settings.disabled and binding.error ~= "shutdown" then
      list[#list + 1] = binding:halt("shutdown", time)
    end
  end
  tell(self, list)
end

local function halt_all(self)
  for _, connection in ipairs(self.connections) do halt(self, connection.bindings) end
end

local function finish(self)
  for _, connection in ipairs(self.connections) do connection:close() end
  dismiss_waiters(self)
  halt_all(self)
  self.is_running, self.stopping = false, false
  local on_end = self.on_end
  self.on_end = nil
  if on_end then on_end() end
end

-- An error of ours must not end the line: it is told, and the next meter has its turn.
local function guarded(self)
  local ok, result = xpcall(act, debug.traceback, self)
  if ok then return result end
  self:connection():complain("internal error: " .. tostring(result))
  local meter = self.busy_with
  self.busy_with = nil
  if meter then
    Schedule.done(meter)
    serve_waiters(meter, nil, Error.new("io", "internal error"))
  end
  return true
end

-- Until the next cycle, or until somebody wants something, the line has no coroutine: that would take more memory than all
-- else. Never for no time at all, which would starve all others.
local function rest(self, was_running)
  local due = was_running and self.schedule:next_due()
  if due then due = math.min(due, regain_due(self) or due) end
  self.is_resting = true
  if due then self.cancel_alarm = self.clock.at(math.max(due, self.clock.now() + 0.001), function() self:wake() end) end
end

local function run(self)
  while not self.stopping do
    self.is_woken = false
    local was_running = any_running(self)
    if not guarded(self) then
      close_stopped(self)
      if not was_running then halt_all(self) end
      if not (self.stopping or self.is_woken) then return rest(self, was_running) end
    end
  end
  for _, command in ipairs(self.commands) do command() end
  self.commands = {}
  finish(self)
end

local workers = {} -- coroutines at rest

-- A coroutine serves one line after another.
local function work(line)
  while true do
    run(line)
    workers[#workers + 1] = coroutine.running()
    line = coroutine.yield()
  end
end

local function go_on(self)
  self.is_resting = false
  local worker = table.remove(workers)
  if not worker then return self.clock.spawn(work, self) end
  local ok, err = coroutine.resume(worker, self)
  if not ok then error(debug.traceback(worker, tostring(err)), 0) end
end

---Begins to poll, in a coroutine of its own.
---@param offset? number  seconds later
function Line:start(offset)
  if self.is_running then
    -- What is cut off may take a while to notice it.
    local gateway = self.gateway
    if self.stopping then
      self:stop(function() if gateway.is_running and not gateway.is_stopping then self:start(offset) end end)
    end
    return
  end
  self.is_running, self.stopping, self.killed = true, false, false
  self.schedule:start(self.clock.now() + (offset or 0))
  go_on(self)
end

---Ends it: the request under way is finished, quickly, and the bus left in order.
---@param on_end fun()
function Line:stop(on_end)
  if not self.is_running then return on_end() end
  local before = self.on_end -- of somebody else who ends it
  self.on_end = before and function()
    before()
    on_end()
  end or on_end
  self.stopping = true
  for _, connection in ipairs(self.connections) do connection:hurry() end
  self:wake()
end

---Ends what did not end by itself; the second time without a word on the line.
function Line:kill()
  for _, connection in ipairs(self.connections) do
    if self.killed then connection:close() else connection:abandon() end
  end
  self.killed = true
end

---@return boolean  there is a bus that can be left in order
function Line:is_open()
  for _, connection in ipairs(self.connections) do
    if connection.bus then return true end
  end
  return false
end

---It is time, or something has changed from outside: the line goes on, at once if it rests.
function Line:wake()
  self.is_woken = true
  if not self.is_resting then return end
  if self.cancel_alarm then self.cancel_alarm() end
  self.cancel_alarm = nil
  go_on(self)
end

-- Runs `fn` between two readouts and waits for what it returns.
local function between(self, fn)
  if not self.is_running or self.stopping then return nil, shutdown(self:connection()) end
  local waiter = { event = self.clock.event() }
  self.commands[#self.commands + 1] = function()
    local ok, result, err
    if self.stopping then
      result, err = nil, shutdown(self:connection())
    else
      ok, result, err = xpcall(fn, debug.traceback)
      if not ok then result, err = nil, Error.new("io", tostring(result)) end
    end
    waiter.result, waiter.err = result, err
    waiter.event:set()
  end
  self:wake()
  waiter.event:wait()
  return waiter.result, waiter.err
end

---Reads a meter now: joins in if that is going on, is next if not. Its bindings get their values, too.
---@param meter mbus.gateway.Meter
---@return mbus.Readout? readout
---@return mbus.Error? err
function Line:demand(meter)
  if not self.is_running or self.stopping or not any_running(self) then return nil, shutdown(self:connection()) end
  local waiter = { event = self.clock.event() }
  Schedule.join(meter, waiter)
  if self.busy_with ~= meter then self.schedule:enqueue(meter, true) end
  self:wake()
  waiter.event:wait()
  return waiter.readout, waiter.err
end

---@param address mbus.Address
---@return mbus.gateway.Meter
function Line:meter(address)
  for _, meter in ipairs(self.schedule.meters) do
    if meter.address.text == address.text then return meter end
  end
  return Schedule.meter(address)
end

local function differs(binding, shown)
  return nil, Error.new("rejected", ("%s: the meter acknowledged, and shows %s"):format(binding:full_name(),
    tostring(shown)), { address = binding.address, code = "unchanged" })
end

-- The readout that shows whether it has come off serves all bindings of the meter.
local function read_back(self, binding, bytes)
  if binding.access == "W" and not (binding.settings.index or binding.settings.id or binding.settings.find) then return true end
  local meter = binding.meter
  Schedule.join(meter, { event = self.clock.event() })
  local readout, err = fetch(self, meter)
  if not readout then
    serve_waiters(meter, nil, err)
    return nil, err
  end
  publish(self, meter, readout)
  serve_waiters(meter, readout)
  local same, shown = binding:compare(bytes, readout)
  if same == false then return differs(binding, shown) end
  return true
end

local function write(self, binding, value)
  local connection, err = reach(self)
  if not connection then return nil, err end
  local told = binding.settings.write
  if not binding.record and not (told and (told.vif or told.quantity)) then
    local readout
    readout, err = fetch(self, binding.meter)
    if not readout then return nil, err end
    binding.record = binding:find(readout)
  end
  local bytes
  bytes, err = binding:encode(value)
  if not bytes then return nil, err end
  local ok
  ok, err = self:connection():write(binding.settings.address, bytes)
  if not ok then return nil, err end
  return read_back(self, binding, bytes)
end

---Writes a value between two readouts, and reads it back.
---@param binding mbus.gateway.Binding
---@param value any
---@return boolean? ok
---@return mbus.Error? err
function Line:write(binding, value)
  return between(self, function() return write(self, binding, value) end)
end

return M
