---Many buses in one process: connections, bindings, polling, redundancy, for months.
---
---    local gateway = assert(mbus.gateway {
---      connections = {
---        { name = "house", type = "serial", port = "/dev/ttyUSB0", period = 300000,
---          bindings = { { name = "energy", address = 5, find = { quantity = "energy" } } } },
---      },
---    })
---    gateway:on("value", function(binding, value, quality, time) print(binding.name, value, binding.unit, quality) end)
---    gateway:run()                       -- until SIGINT or SIGTERM
---
---`gateway:start()` does not wait, for programs with other work in `mbus.run()`. The config is described in config.lua.
local Clock = require "mbus.gateway.clock"
local Config = require "mbus.gateway.config"
local Connection = require "mbus.gateway.connection"
local Error = require "mbus.error"
local Line = require "mbus.gateway.line"

---@class mbus.Gateway
---@field connections mbus.gateway.Connection[]
---@field config mbus.gateway.Config
---@field is_running boolean
local Gateway = {}
Gateway.__index = Gateway

-- ------------------------------------------------------------------ making

-- Shared with whoever has opened the same bus: it has room for one master.
local function open(settings, options) return require("mbus.transport.shared").open(settings.url, options) end

local function by_name(connections)
  local found = {}
  for _, connection in ipairs(connections) do found[connection.name] = connection end
  return found
end

-- The connection that has no master, at the end of the chain.
local function head_of(connection, named)
  local depth = 0
  while connection.settings.master and named[connection.settings.master] do
    connection, depth = named[connection.settings.master], depth + 1
  end
  return connection, depth
end

-- Connections that belong together: the master, then backups in the order of their distance to it.
local function groups(connections)
  local named, found, order = by_name(connections), {}, {}
  for position, connection in ipairs(connections) do
    local head, depth = head_of(connection, named)
    if not found[head] then
      found[head] = {}
      order[#order + 1] = found[head]
    end
    table.insert(found[head], { connection = connection, depth = depth, position = position })
  end
  for i, group in ipairs(order) do
    table.sort(group, function(a, b)
      if a.depth ~= b.depth then return a.depth < b.depth end
      return a.position < b.position
    end)
    local list = {}
    for k, one in ipairs(group) do list[k] = one.connection end
    order[i] = list
  end
  return order
end

local function build(self, config)
  local connections, lines = {}, {}
  for i, settings in ipairs(config.connections) do connections[i] = Connection.new(settings, self) end
  for i, group in ipairs(groups(connections)) do lines[i] = Line.new(group, self) end
  return connections, lines
end

-- Checking leaves as much garbage as the config is large: it makes room for what is opened next.
local function resolve(value, options)
  local read = type(value) == "string" and Config.read or Config.check
  local checked, err = read(value, options)
  collectgarbage()
  return checked, err
end

local function tell_problems(self)
  for _, problem in ipairs(self.config.problems) do self:log("error", problem.path .. ": " .. problem.message) end
  for _, warning in ipairs(self.config.warnings) do self:log("warning", warning.path .. ": " .. warning.message) end
end

---@class mbus.gateway.Options
---@field ports? table<string, string>  what the ports that a BACRouter's export names are here
---@field tolerant? boolean  what is wrong in the config is left out and told, the rest works; default: it is refused
---@field log_level? string  "error", "warning", "info" or "debug", of all connections instead of their own
---@field clock? table       default the computer's; see clock.lua
---@field open? fun(settings: table, options: table): table?, mbus.Error?  opens the transport of a connection; default by URL

local OPTIONS = { ports = true, tolerant = true, log_level = true, clock = true, open = true }

---@param config table|string  a config or the name of its file
---@param options? mbus.gateway.Options
---@return mbus.Gateway? gateway
---@return mbus.Error? err  kind `invalid` names the setting by its path and what is allowed; `err.problems` has all of them
function Gateway.new(config, options)
  if type(config) ~= "table" and type(config) ~= "string" then
    error("a config is a table, or the name of a file, not " .. type(config), 2)
  end
  options = require("mbus.options").check(options, OPTIONS, 2)
  local checked, err = resolve(config, options)
  if not checked then return nil, err end
  local self = setmetatable({ config = checked, options = options, clock = options.clock or Clock.real(),
    open = options.open or open, source = type(config) == "string" and config or nil, listeners = {},
    streams = setmetatable({}, { __mode = "k" }), awaited = {}, -- of iterators that are still used
    is_running = false }, Gateway)
  self.connections, self.lines = build(self, checked)
  return self
end

-- ------------------------------------------------------------------ telling

local EVENTS = { value = true, log = true, overrun = true, stop = true, reload = true }

---Asks to be told.
---    "value"    fn(binding, value, quality, time, news)  news: unit, error, meter_time, raw, connection, ...
---    "log"      fn(connection?, level, text, time)       without connection: of the gateway itself
---    "overrun"  fn(connection, period, skipped)          seconds, and how many cycles fell out
---    "reload"   fn(err?)                                 the config was loaded again, or could not be
---    "stop"     fn()                                     all has ended
---A callback may wait (read, write); an error in it is logged and goes no further. Errors of the gateway itself, these
---among them, go to standard error where nobody listens to "log".
---@param event "value"|"log"|"overrun"|"reload"|"stop"
---@param fn function
---@return fun() off  takes it back
function Gateway:on(event, fn)
  if not EVENTS[event] then error("no such event: " .. tostring(event), 2) end
  if type(fn) ~= "function" then error("a function is needed", 2) end
  local function change(taken)
    local list = {} -- a new one: who is being told may take himself back
    for _, one in ipairs(self.listeners[event] or {}) do
      if one ~= taken then list[#list + 1] = one end
    end
    self.listeners[event] = list
    return list
  end
  local listener = function(...) return fn(...) end -- the same function may be given twice
  table.insert(change(nil), listener)
  return function() change(listener) end
end

-- An error that nobody listens to is not lost.
local function to_stderr(text) io.stderr:write("mbus: ", text, "\n") end

local function emit(self, event, ...)
  for _, fn in ipairs(self.listeners[event] or {}) do
    local ok, err = xpcall(fn, debug.traceback, ...)
    local text = not ok and ("callback of %q fails: %s"):format(event, err)
    if text and event == "log" then
      to_stderr(text)
    elseif text then
      self:log("error", text)
    end
  end
end

local QUEUE = 10000 -- values that wait for an iterator; the oldest go first

local function feed_streams(self, news)
  for stream in pairs(self.streams) do
    stream.last = stream.last + 1
    stream[stream.last] = news
    if stream.last - stream.first >= QUEUE then
      stream[stream.first] = nil
      stream.first, stream.lost = stream.first + 1, stream.lost + 1
    end
    stream.event:set()
  end
end

-- Tells one after another; between two it rests.
local function teller(self, news)
  while true do
    emit(self, "value", news.binding, news.value, news.quality, news.time, news)
    self.teller = coroutine.running()
    news = coroutine.yield()
  end
end

-- In a coroutine of its own, so that a callback may wait without holding up the bus, or what comes after.
local function tell(self, news)
  local thread = self.teller
  self.teller = nil -- as long as a callback waits, others are told by another one
  if not thread then return self.clock.spawn(teller, self, news) end
  local ok, err = coroutine.resume(thread, news)
  if not ok then error(debug.traceback(thread, tostring(err)), 0) end
end

---@param list table[]  news of one readout
function Gateway:tell(list)
  for _, news in ipairs(list) do
    feed_streams(self, news)
    tell(self, news)
  end
end

-- Not in the coroutine of the line: a callback may wait for that.
local function emit_apart(self, event, ...)
  if self.listeners[event] then self.clock.spawn(emit, self, event, ...) end
end

function Gateway:tell_overrun(connection, period, skipped) emit_apart(self, "overrun", connection, period, skipped) end

function Gateway:tell_log(connection, level, text, time) emit_apart(self, "log", connection, level, text, time) end

---@param level "error"|"warning"|"info"
---@param text string
function Gateway:log(level, text)
  if level == "error" and #(self.listeners.log or {}) == 0 then to_stderr(text) end
  emit_apart(self, "log", nil, level, text, self.clock.time())
end

---All values, one after another, until the gateway stops. Starts it.
---
---    for news in gateway:values() do print(news.binding.name, news.value, news.unit, news.quality) end
---@return fun(): table?  next  {binding, connection, value, unit, quality, error, time, meter_time, raw}
function Gateway:values()
  local stream = { first = 1, last = 0, lost = 0, event = self.clock.event() }
  self.streams[stream] = true
  self:start()
  local left = setmetatable({}, { __close = function() self.streams[stream], self.awaited[stream] = nil, nil end })
  return function()
    while stream.first > stream.last do
      if not self.is_running then return nil end
      self.awaited[stream] = true -- nothing else holds a coroutine that waits
      stream.event:wait()
      self.awaited[stream] = nil
    end
    local news = stream[stream.first]
    stream[stream.first] = nil
    stream.first = stream.first + 1
    return news
  end, nil, nil, left
end

-- ------------------------------------------------------------------ running

-- Seconds between the beginnings of two lines: a thousand buses in step would all want the processor at once.
local STAGGER = 0.005

---Begins to poll; returns at once.
function Gateway:start()
  if self.is_running then return end
  self.is_running, self.is_stopping = true, false
  tell_problems(self)
  for i, line in ipairs(self.lines) do line:start((i - 1) * STAGGER) end
end

local function shutdown_seconds(line)
  local longest = 0
  for _, connection in ipairs(line.connections) do longest = math.max(longest, connection.settings.shutdown_timeout / 1000) end
  return longest
end

local GRACE = 1 -- seconds for what has been cut off to notice it

-- Cuts off lines that have had their time. Returns when to look again, nil: all have ended.
local function press(lines, began, now)
  local again
  for _, line in ipairs(lines) do
    local limit = began + shutdown_seconds(line)
    if line.is_running and now >= limit then line:kill() end
    if now >= limit and line:is_open() then limit = limit + GRACE end
    if line.is_running and now < limit then again = math.min(again or limit, limit) end
  end
  return again
end

-- Stops lines and returns when they have ended; those that do not within their time are cut off.
local function stop_lines(self, lines)
  local clock = self.clock
  local event, began = clock.event(), clock.now()
  for _, line in ipairs(lines) do line:stop(function() event:set() end) end
  local again = press(lines, began, began)
  while again do
    event:wait(again)
    again = press(lines, began, clock.now())
  end
end

---Ends polling: requests under way are finished, buses left with nobody selected, within the shutdown timeout. Returns
---when that is done.
function Gateway:stop()
  if not self.is_running or self.is_stopping then return end
  self.is_stopping = true
  stop_lines(self, self.lines)
  self.is_running, self.is_stopping = false, false
  for stream in pairs(self.streams) do stream.event:set() end
  emit(self, "stop")
end

local SIGNALS = { "sigint", "sigterm" }

-- Signals are handled in coroutines, since their work waits.
local function watch_signals(self)
  local runtime = require "mbus.runtime"
  local uv = runtime.luv()
  local handles = {}
  local function watch(name, fn)
    local handle = uv.new_signal()
    handle:start(name, function() runtime.spawn(fn) end)
    handles[#handles + 1] = handle
  end
  for _, name in ipairs(SIGNALS) do watch(name, function() self:stop() end) end
  if self.source then watch("sighup", function() self:reload() end) end
  return function()
    for _, handle in ipairs(handles) do runtime.close(handle) end
  end
end

---Polls until SIGINT, SIGTERM or `stop`. SIGHUP loads the config again, if it came from a file.
function Gateway:run()
  local runtime = require "mbus.runtime"
  local unwatch = watch_signals(self)
  self:on("stop", unwatch)
  self:start()
  runtime.run()
end

-- ------------------------------------------------------------------ reloading

-- What a config has defined by itself, beside the library that each has of its own.
local function own_globals(env)
  local library, own = require("mbus.gateway.sandbox").library(), {}
  for name, value in next, env do own[name] = not library[name] and value or nil end
  return own
end

local same

local function same_function(a, b, known)
  local ok, code = pcall(string.dump, a, true)
  local ok2, code2 = pcall(string.dump, b, true)
  if not (ok and ok2 and code == code2) then return false end
  for i = 1, 255 do
    local name, value = debug.getupvalue(a, i)
    local _, value2 = debug.getupvalue(b, i)
    if not name then return true end
    if name == "_ENV" and value ~= value2 and type(value) == "table" and type(value2) == "table" then
      if known[value] ~= value2 then
        known[value] = value2
        if not same(own_globals(value), own_globals(value2), known) then return false end
      end
    elseif not same(value, value2, known) then
      return false
    end
  end
  return true
end

local function same_table(a, b, known)
  for key, value in pairs(a) do
    if not same(value, b[key], known) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

-- What is being compared further out is taken for the same.
function same(a, b, known)
  if a == b then return true end
  if type(a) ~= type(b) or type(a) ~= "table" and type(a) ~= "function" then return false end
  if known[a] == b then return true end
  known[a] = b
  return (type(a) == "table" and same_table or same_function)(a, b, known)
end

local IGNORED = { path = true, bindings = true }

local function same_settings(a, b)
  local x, y = {}, {}
  for key, value in pairs(a) do x[key] = not IGNORED[key] and value or nil end
  for key, value in pairs(b) do y[key] = not IGNORED[key] and value or nil end
  return same(x, y, {})
end

local function same_connection(a, b) return same_settings(a, b) and same(a.bindings, b.bindings, {}) end

local function same_line(old, new)
  if #old.connections ~= #new.connections then return false end
  for i, connection in ipairs(old.connections) do
    local other = new.connections[i]
    if connection.name ~= other.name or not same_connection(connection.settings, other.settings) then return false end
  end
  return true
end

-- Who was stopped or started by hand stays so, unless the new config says something else about that.
local function stopped_after(old, new)
  return (old.settings.disabled == new.settings.disabled and not old.is_too_large and old or new).stopped
end

-- Values, states of transformations, counters and log of what stays as it was.
local function inherit(old_connections, connections)
  local named = by_name(old_connections)
  for _, connection in ipairs(connections) do
    local old = named[connection.name]
    if old then
      connection.log, connection.statistics = old.log, old.statistics
      connection.log:set_level(connection.settings.log_level)
      connection.error, connection.error_time = old.error, old.error_time
      connection.stopped = stopped_after(old, connection)
      local bindings = by_name(old.bindings)
      for _, binding in ipairs(connection.bindings) do
        local before = bindings[binding.name]
        if before and same(before.settings, binding.settings, {}) then binding:inherit(before) end
      end
    end
  end
end

-- Which lines stay, which end, which begin.
local function compare(self, lines)
  local old_by_head, kept, ended, begun, result = {}, {}, {}, {}, {}
  for _, line in ipairs(self.lines) do old_by_head[line.connections[1].name] = line end
  for i, line in ipairs(lines) do
    local old = old_by_head[line.connections[1].name]
    if old and same_line(old, line) then
      kept[old], result[i] = true, old
    else
      begun[#begun + 1], result[i] = line, line
    end
  end
  for _, line in ipairs(self.lines) do
    if not kept[line] then ended[#ended + 1] = line end
  end
  return result, ended, begun
end

local function replace(self, checked)
  local connections, lines = build(self, checked)
  local result, ended, begun = compare(self, lines)
  if self.is_running then stop_lines(self, ended) end
  inherit(self.connections, connections)
  self.config, self.lines, self.connections = checked, result, {}
  tell_problems(self)
  local living = {}
  for _, line in ipairs(result) do
    for _, connection in ipairs(line.connections) do living[connection.name] = connection end
  end
  for i, connection in ipairs(connections) do
    local lives = living[connection.name]
    self.connections[i], lives.log.connection = lives, lives -- a log that was inherited held the one before
  end
  if self.is_running and not self.is_stopping then
    for _, line in ipairs(begun) do line:start() end
  end
  self:log("info", ("config loaded again: %d lines begin, %d end"):format(#begun, #ended))
end

---Loads the config again, from its file or from a table. Connections that stay as they are go on undisturbed; if the new
---config is wrong, everything does.
---@param config? table|string  default: the file that it came from
---@return boolean? ok
---@return mbus.Error? err
function Gateway:reload(config)
  config = config or self.source
  if not config then error("the config did not come from a file: give the new one", 2) end
  local checked, err = resolve(config, self.options)
  if not checked then
    self:log("error", "the config is not loaded again: " .. tostring(err))
    emit(self, "reload", err)
    return nil, err
  end
  local before, ours = self.reloading, self.clock.event()
  self.reloading = ours
  if before then before:wait() end -- what the one before begins, this one may have to end
  local ok, problem = xpcall(replace, debug.traceback, self, checked)
  ours:set()
  if not ok then error(problem, 0) end
  emit(self, "reload")
  return true
end

-- ------------------------------------------------------------------ parts

---@param name string
---@return mbus.gateway.Connection? connection
function Gateway:connection(name)
  for _, connection in ipairs(self.connections) do
    if connection.name == name then return connection end
  end
end

---@param name string  "connection/binding", or the name of the binding alone where only one has it
---@return mbus.gateway.Binding? binding
function Gateway:binding(name)
  local of, wanted = name:match("^([^/]*)/(.*)$")
  local found
  for _, connection in ipairs(self.connections) do
    for _, binding in ipairs(connection.bindings) do
      if binding.name == (wanted or name) and (not of or connection.name == of) then
        if found then return nil end
        found = binding
      end
    end
  end
  return found
end

local function binding_of(self, binding, level)
  local found = type(binding) == "string" and self:binding(binding) or type(binding) == "table" and binding.settings and binding
  return found or error("no such binding: " .. tostring(binding), level + 1)
end

local function part_of(self, name, level)
  return self:connection(name) or self:binding(name) or error("no such connection or binding: " .. tostring(name), level + 1)
end

---Writes a value into a meter, between two polls, and reads it back. In a callback or coroutine it yields.
---@param binding string|mbus.gateway.Binding
---@param value any  as the binding gives it: behind its transformation
---@return boolean? ok
---@return mbus.Error? err  rejected: the meter shows something else afterwards
function Gateway:write(binding, value)
  local found = binding_of(self, binding, 2)
  if found.access == "R" then
    return nil, Error.new("invalid", found:full_name() .. ": its access is R", { address = found.address })
  end
  if found.stopped or found.settings.disabled then
    return nil, Error.new("closed", found:full_name() .. ": it is stopped", { address = found.address })
  end
  return found.connection.line:write(found, value)
end

---Reads a meter now: joins in where that is going on already.
---@param what string|mbus.gateway.Binding  a binding, or a connection
---@param address? integer|string  with a connection: of any meter there
---@return mbus.Readout? readout
---@return mbus.Error? err
function Gateway:read(what, address)
  if address == nil then
    local binding = binding_of(self, what, 2)
    return binding.connection.line:demand(binding.meter)
  end
  local connection = self:connection(what) or error("no such connection: " .. tostring(what), 2)
  local parsed, err = require("mbus.address").parse(address)
  if not parsed then return nil, err end
  return connection.line:demand(connection.line:meter(parsed))
end

---Stops a connection or a binding, until `start_part`.
---@param name string  of a connection, or "connection/binding"
function Gateway:stop_part(name)
  local part = part_of(self, name, 2)
  part.stopped = true
  local line = part.line or part.connection.line
  if part.line then
    part:hurry()
  else
    local news = part:halt("shutdown", self.clock.time())
    if news then self:tell { news } end
  end
  line:wake()
end

---@param name string
function Gateway:start_part(name)
  local part = part_of(self, name, 2)
  part.stopped, part.is_too_large = false, nil
  local line = part.line or part.connection.line
  line:wake()
end

---Forgets errors, counters and log of a connection, or errors and transformation of a binding.
---@param name string
function Gateway:clear(name) part_of(self, name, 2):clear() end

---@return table  see diagnostics.lua
function Gateway:status() return require("mbus.gateway.diagnostics").gateway(self) end

---@param name string  of a connection
---@return table[]  {time, level, text}, oldest first; at most 1000
function Gateway:log_lines(name)
  local connection = self:connection(name) or error("no such connection: " .. tostring(name), 2)
  return connection.log:lines()
end

Gateway.__close = Gateway.stop

function Gateway.__tostring(self) return ("mbus.Gateway (%d connections)"):format(#self.connections) end

return Gateway
