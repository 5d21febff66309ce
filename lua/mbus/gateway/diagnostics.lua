---What goes on in a gateway, as plain tables: for programs, for `mbus poll --status`.
local M = {}

local LOG = 20 -- lines of a connection's log; `gateway:log_lines` has all

---@return string  name of this computer
function M.node()
  local ok, uv = pcall(function() return require("mbus.runtime").luv() end)
  return ok and uv.os_gethostname() or "localhost"
end

---@return integer? pid
function M.pid()
  local ok, uv = pcall(function() return require("mbus.runtime").luv() end)
  return ok and math.tointeger(uv.os_getpid()) or nil
end

-- Bytes of Lua 5.4 on 64 bits: what its structures take, about.
local SIZE = { table = 56, userdata = 64, thread = 1200, ["function"] = 48 }
local PAIR, STRING = 32, 25

local function walk(value, seen)
  local kind = type(value)
  if kind == "string" then
    if seen[value] then return 0 end
    seen[value] = true
    return #value + STRING
  end
  if not SIZE[kind] or seen[value] then return 0 end
  seen[value] = true
  local bytes = SIZE[kind]
  if kind == "table" then
    for key, item in next, value do bytes = bytes + PAIR + walk(key, seen) + walk(item, seen) end
  end
  return bytes
end

---@param connection mbus.gateway.Connection
---@return integer bytes  that it keeps: settings, bindings with their last values, log. About.
function M.memory(connection)
  local seen = { [connection.gateway] = true, [connection.clock] = true }
  if connection.line then seen[connection.line] = true end
  if connection.bus then seen[connection.bus.transport] = true end
  return walk(connection, seen)
end

local function state_of_binding(binding)
  local connection = binding.connection
  local runs = connection.line and connection.line.is_running and not binding.stopped and not binding.settings.disabled
  return runs and connection.line:any_running() and "RUN" or "STOP"
end

-- When the cycle of a binding begins next, its meter being asked again by then.
local function next_poll_of_binding(binding)
  local connection = binding.connection
  local period = (binding.settings.period or connection.settings.period) / 1000
  for _, part in ipairs(binding.meter.parts) do
    local cycle = part.cycle
    if cycle.period == period and cycle.start then
      local slot, offline_until = cycle.slot, binding.meter.offline_until
      if offline_until then slot = math.max(slot, math.ceil((offline_until - cycle.start) / period)) end
      local due = cycle.start + slot * period
      return connection.clock.time() + math.max(due - connection.clock.now(), 0)
    end
  end
end

---@param binding mbus.gateway.Binding
---@param of_connection? table  what they have in common: node, pid, actual_connection
---@return table
function M.binding(binding, of_connection)
  local settings, state = binding.settings, state_of_binding(binding)
  of_connection = of_connection or {}
  return {
    node = of_connection.node or M.node(), pid = of_connection.pid or M.pid(),
    actual_connection = of_connection.actual_connection,
    next_poll = state == "RUN" and binding.access ~= "W" and next_poll_of_binding(binding) or nil,
    name = binding.name, title = binding.title, tag = binding.tag, state = state, access = binding.access,
    address = binding.address, telegram = settings.index and (settings.telegram or 0), index = settings.index, id = settings.id,
    find = settings.find, disabled = settings.disabled,
    value = binding.value, unit = binding.unit, quality = binding.quality, error = binding.error,
    error_time = binding.error_time, time = binding.time, meter_time = binding.meter_time,
    polls = binding.polls, failures = binding.failures,
  }
end

local function next_poll(connection)
  local line = connection.line
  local due = line and line.is_running and not connection.stopped and line.schedule:next_due()
  return due and connection.clock.time() + math.max(due - connection.clock.now(), 0) or nil
end

---@param connection mbus.gateway.Connection
---@return table
function M.connection(connection)
  local line = connection.line
  local report = connection.statistics:report(connection.clock.now())
  local active = line:connection()
  report.name, report.title = connection.name, connection.title
  report.state = line.is_running and not connection.stopped and "RUN" or "STOP"
  report.node, report.pid = M.node(), M.pid()
  report.error, report.error_time = connection.error, connection.error_time
  report.disabled = connection.settings.disabled
  report.memory_limit, report.memory = connection.settings.memory_limit, M.memory(connection)
  report.master = connection.settings.master
  report.actual_connection = active.bus and active.name or nil
  report.is_open = connection.bus ~= nil
  report.next_poll = next_poll(connection)
  report.offline = {}
  for _, meter in ipairs(line.schedule.meters) do
    if meter.offline_until then report.offline[#report.offline + 1] = meter.address.text end
  end
  report.log = connection.log:lines(LOG)
  report.bindings = {}
  for i, binding in ipairs(connection.bindings) do report.bindings[i] = M.binding(binding, report) end
  return report
end

---@param gateway mbus.Gateway
---@return table  node, pid, time, memory (bytes of Lua in this process), state, problems, connections
function M.gateway(gateway)
  local report = { node = M.node(), pid = M.pid(), time = gateway.clock.time(), state = gateway.is_running and "RUN" or "STOP",
    memory = math.tointeger(collectgarbage("count") * 1024 // 1), problems = gateway.config.problems, connections = {} }
  for i, connection in ipairs(gateway.connections) do report.connections[i] = M.connection(connection) end
  return report
end

return M
