---A bus with meters: runs procedures over a transport, one after another, or lets the caller drive them by hand.
---
---    local bus <close> = assert(mbus.open("/dev/ttyUSB0", { baudrate = 2400 }))
---    local readout, err = bus:read(5)
---
---Called from the main program a request blocks; called inside `mbus.spawn` it yields, so that many buses are read at
---once. Requests to the same bus wait for each other in order.
---
---By hand, for a loop of one's own, without any I/O in here:
---
---    local bus = mbus.open("manual:", { baudrate = 2400 })
---    bus:begin("read", 5)
---    local what, argument, err = bus:wants()     -- see procedure/engine.lua for what to do
---    bus:feed(bytes, now)
local Error = require "mbus.error"
local Engine = require "mbus.procedure.engine"
local Link = require "mbus.procedure.link"

---@class mbus.BusOptions
---@field baudrate? number        line speed that times are computed from; default that of the transport, else 2400
---@field timeout? number         seconds from the end of a request to the first byte of its answer; default
---341 bits + 0.05 + margin (EN 13757-2: 330 bits + 50 ms, and the 11 bits of that byte)
---@field margin? number          seconds added for the path; default that of the transport, else 0.1
---@field gap? number             seconds of silence that end an unfinished frame; default that of the transport, else 0.1
---@field idle? number            seconds of silence before a request; default 33 bits
---@field post_nke_delay? number  seconds of rest after SND_NKE, for slow meters; default 33 bits
---@field retries? integer        repetitions of an unanswered request; default 2
---@field max_telegrams? integer  of one readout; default 32
---@field nke? boolean|"never"    SND_NKE before reading: true (default), false: only if the meter's frame count is not
---known, "never"
---@field trace? fun(direction: "SEND"|"RECV"|"NOISE"|"ECHO", bytes: string, time: number)  sees all that is on the line
---@field name? string            of a bus driven by hand, for messages; default "manual"

---@class mbus.Bus
---@field name string
---@field options mbus.BusOptions
---@field read fun(self: mbus.Bus, address: integer|string, options?: mbus.BusOptions): mbus.Readout?, mbus.Error?  reads one
---meter, all telegrams: address 0..250, 254 for the only meter, or 8 or 16 hex digits, F is a wildcard. `readout.error` is
---set if the tail of a telegram is damaged but records before it are good; `err.readout` holds the telegrams that were
---good before a later one failed
local Bus = {}
Bus.__index = Bus

local function at_least(minimum, whole)
  return function(value)
    local good = type(value) == "number" and value >= minimum and value < math.huge
    if good and (not whole or math.type(value) == "integer") then return nil end
    return ("%s from %d expected"):format(whole and "a whole number" or "a number", minimum)
  end
end

local function one_of_nke(value)
  if type(value) ~= "boolean" and value ~= "never" then return 'true, false or "never" expected' end
end

local function callable(value)
  if type(value) ~= "function" then return "a function expected" end
end

local seconds = at_least(0)
local CHECKS = {
  baudrate = at_least(1), timeout = seconds, margin = seconds, gap = seconds, idle = seconds, post_nke_delay = seconds,
  retries = at_least(0, true), max_telegrams = at_least(1, true), nke = one_of_nke, trace = callable,
}

local function check_options(options, level)
  if options == nil then return {} end
  if type(options) ~= "table" then error("options are a table, not " .. type(options), level + 1) end
  for name, check in pairs(CHECKS) do
    local wrong = options[name] ~= nil and check(options[name])
    if wrong then error(("option %s: %s"):format(name, wrong), level + 1) end
  end
  return options
end

-- When the interpreter ends, finalizers run newest first, and handles of luv may no longer be closed in them: then
-- everything is closed anyway. This one is newer than every bus.
local youngest, ended
local Youngest = { __gc = function(self) ended = ended or self == youngest end }

---@param transport? table  moves the bytes, see transport/init.lua; nil: the caller does
---@param options? mbus.BusOptions
---@return mbus.Bus
function Bus.new(transport, options)
  options = check_options(options, 2)
  local name = transport and transport.name or options.name or "manual"
  local bus = setmetatable({ transport = transport, options = options, name = name, state = Link.state() }, Bus)
  youngest = setmetatable({}, Youngest)
  return bus
end

-- The option of the call, else of the bus, else the default.
local function chooser(bus, call)
  return function(name, default)
    if call[name] ~= nil then return call[name] end
    if bus.options[name] ~= nil then return bus.options[name] end
    return default
  end
end

---What the options mean on this bus.
---@param call mbus.BusOptions
---@return mbus.Settings
local function settings_for(bus, call)
  local choose = chooser(bus, call)
  local transport = bus.transport or {}
  -- A transport knows what speed it really has.
  local baudrate = call.baudrate or transport.baudrate or bus.options.baudrate or 2400
  local margin = choose("margin", transport.margin or 0.1)
  return {
    baudrate = baudrate,
    timeout = choose("timeout", 341 / baudrate + 0.050 + margin),
    gap = choose("gap", transport.gap or 0.1),
    idle = choose("idle", 33 / baudrate),
    post_nke_delay = choose("post_nke_delay", 33 / baudrate),
    retries = choose("retries", 2),
    max_telegrams = choose("max_telegrams", 32),
    nke = choose("nke", true),
  }
end

local function closed(bus) return Error.new("closed", "the bus is closed", { bus = bus.name }) end

local function now(bus)
  local transport = bus.transport
  if transport.now then return transport:now() end
  return require("mbus.runtime").now()
end

-- What a transport reports, as an error of this request: a transport may report the same object again and again.
local function transport_error(bus, err)
  if bus.closed then return closed(bus) end
  if type(err) ~= "table" then return Error.new("io", tostring(err), { bus = bus.name }) end
  return Error.wrap(Error.new(err.kind, err.message, err), { bus = bus.name })
end

-- The trace callback runs outside the procedure's coroutine, so that it may do what it likes.
local function flush_trace(link, trace)
  local log = link.log
  if #log == 0 then return end
  link.log = {}
  for _, entry in ipairs(trace and log or {}) do trace(entry[1], entry[2], entry[3] or link:now()) end
end

local act = {}

function act.send(bus, bytes)
  local ok, err = bus.transport:write(bytes)
  if not ok then return nil, err end
  return ""
end

function act.receive(bus, deadline) return bus.transport:read(math.max(0, deadline - now(bus))) end

function act.sleep(bus, deadline)
  local duration = math.max(0, deadline - now(bus))
  if bus.transport.sleep then
    bus.transport:sleep(duration)
  else
    require("mbus.runtime").sleep(duration)
  end
  return ""
end

function act.drain(bus) return bus.transport:drain() end

-- Drives until the procedure is done, or until news that `stop` wants to see at once.
local function drive(bus, engine, options, stop)
  local trace = options.trace or bus.options.trace
  while true do
    flush_trace(engine.link, trace)
    local what, argument, err = engine:wants()
    if what == "done" then return what, argument, err end
    if what == "event" then
      engine:feed("", now(bus))
      if argument.name == stop then return what, argument.value end
      if options[argument.name] then options[argument.name](argument.value) end
    else
      local bytes, extra = act[what](bus, argument)
      if bytes and not bus.closed then
        engine:feed(bytes, now(bus), extra)
      else
        engine:fail(transport_error(bus, extra))
      end
    end
  end
end

local function start(bus, options, procedure, ...)
  local link = Link.new(settings_for(bus, options), bus.state, bus.transport and now(bus))
  return Engine.new(procedure, link, ...)
end

local function finish(bus, result, err)
  if err then return nil, Error.wrap(err, { bus = bus.name }) end
  return result
end

local function needs_transport(bus, level)
  if not bus.transport then error("this bus is driven by hand: use begin, wants and feed", level + 1) end
end

-- Waits for its turn; true if the bus is ours now.
local function enter(bus)
  bus.lock = bus.lock or require("mbus.runtime").lock()
  bus.lock:acquire()
  if not bus.closed then return true end
  bus.lock:release()
  return false
end

-- Waits for its turn, runs, and leaves the bus to the next, whatever happens.
local function perform(bus, options, procedure, ...)
  if bus.closed or not enter(bus) then return nil, closed(bus) end
  local _ <close> = setmetatable({}, { __close = function() bus.lock:release() end })
  local _, result, err = drive(bus, start(bus, options, procedure, ...), options)
  return finish(bus, result, err)
end

---A procedure that finds one thing after another, as an iterator.
---
---    local scan = bus:scan()
---    for meter in scan do ... end
---    if scan.error then print(scan.error) end     -- it did not come to its end
---@class mbus.Search
---@field error? mbus.Error
---@field result any  what the procedure returned at its end
local Search = {}
Search.__index = Search

-- Lets the procedure put the bus in order, and gives the bus to the next.
local function leave(search)
  local engine = search.engine
  if search.left or not engine then
    search.left = true
    return
  end
  search.left = true
  local _ <close> = setmetatable({}, { __close = function() search.bus.lock:release() end })
  engine:abort()
  while engine:wants() ~= "done" do drive(search.bus, engine, {}) end
end

---Ends the search early. The bus is put in order before this returns.
function Search:close() leave(self) end

Search.__close = Search.close

---@return any? found  nil at the end
function Search:__call()
  local bus = self.bus
  if self.left then return nil end
  if not self.engine then
    if bus.closed or not enter(bus) then
      self.left, self.error = true, closed(bus)
      return nil
    end
    self.engine = start(bus, self.options, table.unpack(self.arguments, 1, self.arguments.n))
  end
  local ok, what, found, err = pcall(drive, bus, self.engine, self.options, "found")
  if ok and what == "event" then return found end
  leave(self)
  if not ok then error(what, 0) end
  self.result, self.error = finish(bus, found, err)
  return nil
end

local function search(bus, options, ...)
  local object = setmetatable({ bus = bus, options = options, arguments = table.pack(...) }, Search)
  return object, nil, nil, object
end

-- One module each. `prepare(level, ...)` checks the arguments and returns options for the bus and what `run` gets behind
-- the link, or nil and an error; `run(link, ...)` is the procedure. With `finds` it reports one "found" after another and
-- its method is an iterator.
local procedures = {}
for _, name in ipairs { "read" } do procedures[name] = require("mbus.procedure." .. name) end

-- The procedure of a method and its arguments, checked.
local function prepare(level, name, ...)
  local results = table.pack(procedures[name].prepare(level + 1, ...))
  if results[1] then check_options(results[1], level + 1) end
  return table.unpack(results, 1, results.n)
end

for name, procedure in pairs(procedures) do
  local function go(bus, options, ...)
    if not options then return finish(bus, nil, (...)) end
    return (procedure.finds and search or perform)(bus, options, procedure.run, ...)
  end
  Bus[name] = function(bus, ...)
    needs_transport(bus, 2)
    return go(bus, prepare(2, name, ...))
  end
end

---Runs a procedure of one's own.
---@param procedure fun(link: mbus.Link, ...): any, mbus.Error?
---@param ... any  its further arguments
---@return any? result
---@return mbus.Error? err
function Bus:run(procedure, ...)
  if type(procedure) ~= "function" then error("a procedure is a function, not " .. type(procedure), 2) end
  needs_transport(self, 2)
  return perform(self, {}, procedure, ...)
end

---Starts a request that the caller drives by hand.
---@param name string  of the method: "read"
---@param ... any  the arguments of the method of that name
---@return true? ok
---@return mbus.Error? err  kind `invalid`: the arguments cannot be right; `closed`
function Bus:begin(name, ...)
  if self.transport then error("this bus has a transport: call its methods", 2) end
  if not procedures[name] then error("unknown request: " .. tostring(name), 2) end
  if self.engine and self.engine:wants() ~= "done" then error("a request is under way", 2) end
  if self.closed then return nil, closed(self) end
  local arguments = table.pack(prepare(2, name, ...))
  local options = arguments[1]
  if not options then return finish(self, nil, arguments[2]) end
  self.trace = options.trace or self.options.trace
  self.engine = start(self, options, procedures[name].run, table.unpack(arguments, 2, arguments.n))
  return true
end

local function engine_of(bus)
  return bus.engine or error("no request was begun", 3)
end

---What the request under way wants. The same until the next `feed`.
---@return "send"|"receive"|"sleep"|"drain"|"event"|"done" what
---@return any argument  bytes to send, deadline, {name, value} of an event, or the result
---@return mbus.Error? err  with "done": why there is no result
function Bus:wants()
  local engine = engine_of(self)
  flush_trace(engine.link, self.trace)
  local what, argument, err = engine:wants()
  if what ~= "done" then return what, argument end
  return what, finish(self, argument, err)
end

---Tells what happened: bytes came in, something was sent, time has passed.
---@param bytes string  "" if nothing came in
---@param time number   seconds on a clock of the caller that does not go back; deadlines are on the same clock
---@param line_errors? integer|boolean  characters with parity or framing errors, and breaks, among the bytes
function Bus:feed(bytes, time, line_errors)
  local engine = engine_of(self)
  engine:feed(bytes, time, line_errors)
  flush_trace(engine.link, self.trace)
end

---Ends the request under way because the line is broken; by hand only.
---@param message string
function Bus:fail(message)
  local engine = engine_of(self)
  if engine:wants() ~= "done" then engine:fail(Error.new("io", message, { bus = self.name })) end
end

---Ends the request under way as soon as the bus is in order; go on feeding it until it is done. By hand only.
function Bus:abort() engine_of(self):abort() end

---Closes the transport. Requests under way and waiting end with kind `closed`. A second call does nothing.
function Bus:close()
  if self.closed then return end
  self.closed = true
  if self.transport then self.transport:close() end
  if self.engine and self.engine:wants() ~= "done" then self.engine:fail(closed(self)) end
end

Bus.__close = Bus.close
function Bus:__gc()
  if not ended then self:close() end
end

function Bus:__tostring() return ("mbus.Bus (%s)"):format(self.name) end

return Bus
