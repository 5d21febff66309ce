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
local Options = require "mbus.options"
local Address = require "mbus.address"

---@class mbus.BusOptions
---@field baudrate? number        line speed that times are computed from; default that of the transport, else 2400
---@field timeout? number         seconds from the end of a request to the first byte of its answer; default
---341 bits + 0.05 + margin (EN 13757-2: 330 bits + 50 ms, and the 11 bits of that byte)
---@field margin? number          seconds added for the path; default that of the transport, else 0.1
---@field gap? number             seconds of silence that end an unfinished frame; default that of the transport, else 0.1
---@field idle? number            seconds of silence before a request; default 33 bits, and 16 after a good answer
---@field post_nke_delay? number  seconds of rest after SND_NKE, for slow meters; default 33 bits
---@field retries? integer        repetitions of an unanswered request; default 2
---@field max_telegrams? integer  of one readout; default 32
---@field nke? boolean|"never"    SND_NKE before reading: true (default), false: only if the meter's frame count is not
---known, "never"
---@field select_c? integer       C field of selections, 0x53 or 0x73; default 0x53, and once more with 0x73 where the meter
---acknowledges and then sends nothing: some compare the frame count bit before they look at the address
---@field application_reset? boolean|integer  application reset before reading, for meters that keep an earlier selection of
---records; a number is its subcode
---@field ignores_fcb? boolean    the meter sends its telegram over and over whatever the frame count bit: a repeated one is
---the end of the readout and no error
---@field meters? table<integer|string, mbus.BusOptions>  of a bus: options of single meters, by primary address or by 8 or
---16 hex digits, F as wildcard; those of the call go before them
---@field keys? string|table|function  AES-128 keys of encrypted meters, see decode.lua and security.lua
---@field dry_run? boolean        nothing is sent, and the result is the array of the frames that would be; not with `scan`
---and `monitor`
---@field trace? fun(direction: "SEND"|"RECV"|"NOISE"|"ECHO", bytes: string, time: number)  sees all that is on the line
---@field name? string            of a bus driven by hand, for messages; default "manual"

---@class mbus.Bus
---@field name string
---@field options mbus.BusOptions
---@field read fun(self: mbus.Bus, address: integer|string, options?: mbus.BusOptions): mbus.Readout?, mbus.Error?  reads one
---meter, all telegrams: address 0..250, 254 for the only meter, or 8 or 16 hex digits, F is a wildcard. `readout.error` is
---set if the tail of a telegram is damaged but records before it are good; `err.readout` holds the telegrams that were
---good before a later one failed
---@field scan fun(self: mbus.Bus, options?: mbus.ScanOptions): mbus.Search?, mbus.Error?  finds meters: an iterator of
---mbus.FoundMeter, see procedure/scan.lua; nil: a range, mask or state that cannot be right
---Commands. Each takes options last, of the call: those above; with dry_run the result is the array of the frames. What
---changes something reads it back; a meter that acknowledges and does not obey gives an error of kind `rejected`, code
---"unchanged"
---@field set_address fun(self: mbus.Bus, address: integer|string, new: integer, options?: mbus.BusOptions): table?, mbus.Error?
---another primary address, 0..250: {address, previous, secondary_address, telegram}; kind `busy`: somebody has it
---@field set_secondary fun(self: mbus.Bus, address: integer|string, digits: string, options?: table): table?, mbus.Error?
---another identification number (8 digits) or complete secondary address (16): {secondary_address, previous, ...}
---@field set_baudrate fun(self: mbus.Bus, address: integer|string, baudrate: integer, options?: table): table?, mbus.Error?
---{baudrate, previous}; the line goes with the meter, unless options.stay is false; 255: all meters
---@field set_clock fun(self: mbus.Bus, address: integer|string, time?: string, options?: mbus.BusOptions): table?, mbus.Error?
---"2024-02-29T13:45:30", or this computer's: {time, type, read_back, verified}; options: type "F" or "I" (default: as the meter
---shows its own), summer_time (true or false instead of what the computer says), standard_time (true: also in summer),
---hundred_years; 255: all meters
---@field reset fun(self: mbus.Bus, address: integer|string, subcode?: integer, options?: table): any, mbus.Error?
---application reset: {telegram}, the first one after it
---@field select_records fun(self: mbus.Bus, address: integer|string, records: table|string, options?: table): any, mbus.Error?
---a readout: chooses what the meter sends until an application reset, and reads that; `err.readout` if it sends something else
---@field normalise fun(self: mbus.Bus, a: integer, options?: mbus.BusOptions): boolean?, mbus.Error?  SND_NKE; 253 deselects
---@field synchronize fun(self: mbus.Bus, address?: integer|string, options?: mbus.BusOptions): boolean?, mbus.Error?  to all, or
---one; options.ci 0x54 for older meters
---@field alarms fun(self: mbus.Bus, address: integer|string, options?: mbus.BusOptions): table?, mbus.Error?  class 1 data:
---{alarm, status, telegram}
---@field write fun(self: mbus.Bus, address: integer|string, records: table|string, options?: table): table?, mbus.Error?
---data records, tables as mbus.encode.record takes them or bytes: {acknowledged}; with options.verify also {verified, missing
---(records that the meter does not show), readout}
---@field send fun(self: mbus.Bus, bytes: string, options?: mbus.BusOptions): mbus.Heard[]?, mbus.Error?  any frame, and what
---comes; options.listen: seconds
---@field monitor fun(self: mbus.Bus, options?: mbus.BusOptions): mbus.Search  listens only: an iterator of mbus.Monitored;
---options.duration: seconds
local Bus = {}
Bus.__index = Bus

local NONE = {} -- what stays empty

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

local function one_of_c(value)
  if value ~= 0x53 and value ~= 0x73 then return "0x53 or 0x73 expected" end
end

local function reset_or_subcode(value)
  if type(value) == "boolean" or math.type(value) == "integer" and value >= 0 and value <= 255 then return nil end
  return "true, false or a subcode from 0 to 255 expected"
end

local function callable(value)
  if type(value) ~= "function" then return "a function expected" end
end

local seconds = at_least(0)

local CHECKS = {
  baudrate = at_least(1), timeout = seconds, margin = seconds, gap = seconds, idle = seconds, post_nke_delay = seconds,
  retries = at_least(0, true), max_telegrams = at_least(1, true), nke = one_of_nke, trace = callable,
  select_c = one_of_c, application_reset = reset_or_subcode, ignores_fcb = Options.boolean, dry_run = Options.boolean,
  keys = Options.keys,
}

---@param others table<string, any>  options that belong to somebody else
local function check_options(options, level, others)
  return (Options.check(options, CHECKS, level + 1, others)) -- no tail call, which would have no level of its own
end

-- Those of a bus, and of whatever carries its bytes.
local OF_BUS = setmetatable({ meters = true, name = true }, { __index = function(_, name)
  return require("mbus.transport").is_setting(name)
end })

-- The table of single meters, with its keys understood.
local function check_meters(meters, level)
  if meters == nil then return NONE end
  if type(meters) ~= "table" then error("option meters: a table by address expected", level + 1) end
  local checked = {}
  for key, options in pairs(meters) do
    local address, err
    if type(key) == "number" or type(key) == "string" then address, err = Address.parse(key) end
    if not address then error("option meters: " .. tostring(err or "addresses are its keys"), level + 1) end
    checked[#checked + 1] = { address = address, options = check_options(options, level + 1, NONE) }
  end
  return checked
end

local function is_meant(known, address)
  if not (known.digits and address.digits) then return known.a == address.a and not known.digits and not address.digits end
  return Address.matches(known.digits, address.digits)
end

-- When the interpreter ends, finalizers run newest first, and handles of luv may no longer be closed in them: then
-- everything is closed anyway. This one is newer than every guard.
local youngest, ended
local Youngest = { __gc = function(self) ended = ended or self == youngest end }

-- Closes a bus that nobody holds any more. Where memory is short, Lua collects without running finalizers, and keeps what
-- they could see: so a bus has none itself, and the guard of one that was closed serves another one.
local idle = false -- guards, each with the next
local Guard = { __gc = function(self)
  local bus = not ended and self.bus
  if not bus then return end
  bus.guard = nil -- it has no finalizer any more
  bus:close()
end }

local function guard_of(bus)
  local guard = idle
  if guard then
    idle = guard.next
  else
    guard = setmetatable({ bus = false, next = false }, Guard)
    youngest = setmetatable({}, Youngest)
  end
  guard.bus, guard.next = bus, false
  return guard
end

local function dismiss(bus)
  local guard = bus.guard
  if not guard then return end
  bus.guard, guard.bus, guard.next, idle = nil, false, idle, guard
end

-- The clock of a transport that has one of its own, else the computer's.
local function clock_of(transport)
  if transport and transport.now then return function() return transport:now() end end
  return transport and require("mbus.runtime").now
end

---Raises where these cannot be options of a bus.
---@param options any
---@param level integer  of the caller, for `error`
function Bus.check(options, level) check_meters(check_options(options, level + 1, OF_BUS).meters, level + 1) end

---@param transport? table  moves the bytes, see transport/init.lua; nil: the caller does
---@param options? mbus.BusOptions
---@return mbus.Bus
function Bus.new(transport, options)
  options = check_options(options, 2, OF_BUS)
  local name = transport and transport.name or options.name or "manual"
  -- Who opens the same bus twice has two of these, with one line, one queue and one frame count for each meter.
  local common = transport and require("mbus.transport.shared").common(transport) or {}
  common.state = common.state or Link.state()
  local bus = setmetatable({ common = common, transport = transport, options = options, name = name,
    meters = check_meters(options.meters, 2), state = common.state, now = clock_of(transport) }, Bus)
  if transport then bus.guard = guard_of(bus) end
  return bus
end

local function wildcards(address) return address.digits and select(2, address.digits:gsub("F", "")) or 0 end

-- Options of the meter that a request is for: of several that fit, those of the address with fewer wildcards.
local function options_of(bus, address)
  local found, least = nil, math.huge
  for _, meter in ipairs(type(address) == "table" and address.text and bus.meters or {}) do
    local count = wildcards(meter.address)
    if count < least and is_meant(meter.address, address) then found, least = meter.options, count end
  end
  return found
end

-- Those of the call go before those of the meter, and these before those of the bus.
local function effective_options(bus, call, address)
  local of_meter = bus.meters[1] and options_of(bus, address)
  if not of_meter and not next(call) then return bus.options end
  local all = {}
  for _, options in ipairs { bus.options, of_meter or {}, call } do
    for name, value in pairs(options) do all[name] = value end
  end
  return all
end

local SELDOM = { "select_c", "application_reset", "ignores_fcb", "dry_run", "keys" }
local NOWHERE = {} -- in place of the transport of a bus that is driven by hand

---What the options mean on this bus.
---@param bus mbus.Bus
---@param options mbus.BusOptions
---@param baudrate number
---@return mbus.Settings
local function settings_at(bus, options, baudrate)
  local line = bus.common.line or NOWHERE
  local margin = options.margin or line.margin or 0.1
  local settings = {
    baudrate = baudrate,
    timeout = options.timeout or 341 / baudrate + 0.050 + margin,
    held = not (options.timeout or options.margin) and line.held or 0,
    gap = options.gap or line.gap or 0.1,
    idle = options.idle or 33 / baudrate,
    -- 11 bits are what a slave may ask for after its own answer. A character right behind it would take them too, and needs
    -- some more to be seen.
    pause = options.idle or 16 / baudrate,
    post_nke_delay = options.post_nke_delay or 33 / baudrate,
    retries = options.retries or 2,
    max_telegrams = options.max_telegrams or 32,
    nke = options.nke == nil or options.nke,
    can_switch = line == NOWHERE or line.set_baudrate ~= nil,
    at = function(other) return settings_at(bus, options, other) end,
  }
  for _, name in ipairs(SELDOM) do settings[name] = options[name] end
  return settings
end

local function settings_for(bus, call, address)
  -- A transport knows what speed it really has.
  local of_line = bus.common.line and bus.common.line.baudrate
  local baudrate = call.baudrate or of_line or bus.state.baudrate or bus.options.baudrate or 2400
  return settings_at(bus, effective_options(bus, call, address), baudrate)
end

local function closed(bus) return Error.new("closed", "the bus is closed", { bus = bus.name }) end

-- What a transport reports, as an error of this request: a transport may report the same object again and again.
local function transport_error(bus, err)
  if bus.closed then return closed(bus) end
  if type(err) ~= "table" then return Error.new("io", tostring(err), { bus = bus.name }) end
  return Error.wrap(Error.new(err.kind, err.message, err), { bus = bus.name })
end

-- ------------------------------------------------------------------ driving

-- What a procedure wants of the line: bytes and damaged characters, or nil and what the transport says.
local act = {}

function act.send(bus, bytes)
  local ok, err = bus.transport:write(bytes)
  if not ok then return nil, err end
  return ""
end

function act.receive(bus, deadline)
  local rest = deadline - bus.now()
  return bus.transport:read(rest > 0 and rest or 0, deadline)
end

function act.sleep(bus, deadline)
  local duration = math.max(0, deadline - bus.now())
  if bus.common.line.sleep then
    bus.transport:sleep(duration)
  else
    require("mbus.runtime").sleep(duration)
  end
  return ""
end

function act.drain(bus) return bus.transport:drain() end

function act.baudrate(bus, baudrate)
  local ok, err = bus.transport:set_baudrate(baudrate)
  if not ok then return nil, err end
  return ""
end

-- Does it once; it may come back early from a wait.
local function attempt(bus, link, what, argument)
  local bytes, extra = act[what](bus, argument)
  if not bytes or bus.closed then return nil, transport_error(bus, extra) end
  link:set_clock(bus.now())
  return bytes, extra == true and 1 or extra or 0
end

local function ignore() end

-- Procedures call this where nobody has to see what they want: in the coroutine of whoever has called, which may wait.
local function fulfil(link, what, argument)
  local bus, errors = link.bus, 0
  if what == "event" then
    local listener = link.options[argument.name]
    if listener then listener(argument.value) end
    return "", 0
  end
  while true do
    local bytes, extra = attempt(bus, link, what, argument)
    if not bytes then return nil, extra end
    errors = errors + extra
    local is_early = what == "receive" and bytes == "" or what == "sleep"
    if not is_early or link:now() >= argument then return bytes, errors end
  end
end

-- Hands out what an engine has seen on the line. Not within its procedure, so that the callback may do what it likes.
local function flush_trace(link, trace)
  local count, log = link.logged, link.log
  if count == 0 then return end
  link.logged = 0
  if not trace then return end
  for i = 1, count, 3 do trace(log[i], log[i + 1], log[i + 2]) end
end

-- Drives an engine until the procedure is done, or until news that `stop` wants to see at once.
local function drive(bus, engine, options, stop)
  local trace, link = options.trace or bus.options.trace, engine.link
  while true do
    flush_trace(link, trace)
    local what, argument, err = engine:wants()
    if what == "done" then return what, argument, err end
    if what == "event" then
      engine:feed("", bus.now())
      if argument.name == stop then return what, argument.value end
      if options[argument.name] then options[argument.name](argument.value) end
    else
      local bytes, extra = attempt(bus, link, what, argument)
      if bytes then engine:feed(bytes, link:now(), extra) else engine:fail(extra) end
    end
  end
end

-- In a dry run the result is what would be sent.
local function planned(procedure)
  return function(link, ...)
    local _, err = procedure(link, ...)
    if err then return nil, err end
    return link.plan
  end
end

-- The link for a request. What a dry run would do to the state of the bus is not done.
local function link_for(bus, options, address)
  local settings = settings_for(bus, options, address)
  local state = settings.dry_run and Link.state() or bus.state
  return Link.new(settings, state, bus.transport and bus.now())
end

local function start(bus, options, procedure, ...)
  local link = link_for(bus, options, (...))
  return Engine.new(link.plan and planned(procedure) or procedure, link, ...)
end

local function finish(bus, result, err)
  if err then return nil, Error.wrap(err, { bus = bus.name }) end
  return result
end

local function needs_transport(bus, level)
  if not bus.transport then error("this bus is driven by hand: use begin, wants and feed", level + 1) end
end

local OPEN = "a scan or monitor of this bus is open: end its loop, or close it (`local scan <close> = bus:scan {...}` does)"

-- Of a search that was left, and not closed, nobody else would ever give the bus back.
local function is_left(search)
  return search and (search.thread == coroutine.running() or coroutine.status(search.thread) == "dead")
end

local UNDER_WAY = "a request of this bus is under way: a callback of it cannot make another one"

-- Waits for its turn; true if the bus is ours now.
local function enter(bus)
  local common = bus.common
  if is_left(common.search) then error(OPEN, 3) end
  common.lock = common.lock or require("mbus.runtime").lock()
  if common.lock.user == coroutine.running() then error(UNDER_WAY, 3) end
  bus.lock = common.lock
  if not bus.lock:acquire(bus) then return false end
  if not bus.closed then return true end
  bus.lock:release()
  return false
end

-- Back to the speed of the other meters; what is lost comes back with it.
local function come_home(bus, home)
  local line = bus.common.line
  if line.baudrate == home or not line.set_baudrate then return end
  bus.state.baudrate = home
  line:set_baudrate(home)
end

-- The bus is ours: what does not come to its end (in a coroutine that is closed) is noticed by the next.
local function set_out(bus)
  local state = bus.state
  if state.home then
    Link.interrupt(state)
    come_home(bus, state.home)
  end
  state.home = bus.common.line.baudrate or 0
end

local function arrive(bus, link)
  local state = bus.state
  if link.broken then come_home(bus, state.home) end
  state.home = nil
end

-- Waits for its turn, runs, and leaves the bus to the next, whatever happens.
local function perform(bus, options, procedure, ...)
  if bus.closed or not enter(bus) then return nil, closed(bus) end
  local _ <close> = bus.lock
  bus.lock.user = coroutine.running()
  set_out(bus)
  local link = link_for(bus, options, (...))
  link.fulfil, link.bus, link.options = fulfil, bus, options
  link.on_trace = options.trace or bus.options.trace or ignore
  local result, err = (link.plan and planned(procedure) or procedure)(link, ...)
  arrive(bus, link)
  return finish(bus, result, err)
end

---A procedure that finds one thing after another, as an iterator.
---
---    for meter in bus:scan() do ... end           -- the bus is put in order also where the loop is left
---    local scan <close> = bus:scan()              -- so it is here, at the end of the block
---    for meter in scan do ... end
---    if scan.error then print(scan.error) end     -- it did not come to its end
---
---The bus is busy from the first step to the end or `close`: another request of the same coroutine is an error meanwhile,
---those of other coroutines wait.
---@class mbus.Search
---@operator call: any
---@field error? mbus.Error
---@field result any  what the procedure returned at its end
---@field package thread? thread  that has asked for the next last
local Search = {}
Search.__index = Search

-- Lets the procedure put the bus in order, and gives the bus to the next.
local function leave(search)
  local engine = search.engine
  if search.left or not engine then
    search.left = true
    return
  end
  search.left, search.bus.common.search = true, nil
  local lock <close> = search.bus.lock
  lock.user = coroutine.running()
  engine:abort()
  while engine:wants() ~= "done" do drive(search.bus, engine, {}) end
  arrive(search.bus, engine.link)
end

---Asks the search to end, from within a callback or a signal handler: it puts the bus in order, and its iterator ends.
function Search:abort()
  if self.engine then self.engine:abort() else self.left = true end
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
    set_out(bus)
    self.engine = start(bus, self.options, table.unpack(self.arguments, 1, self.arguments.n))
  end
  self.thread, bus.common.search = coroutine.running(), self
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

local PROCEDURES = { "read", "set_address", "set_secondary", "set_baudrate", "set_clock", "reset", "select_records",
  "normalise", "synchronize", "alarms", "write", "send", "monitor", "scan" }

-- One module each. `prepare(level, ...)` checks the arguments and returns options for the bus and what `run` gets behind
-- the link, or nil and an error; `run(link, ...)` is the procedure. With `finds` it reports one "found" after another and
-- its method is an iterator. `options` has the names of its own options.
local procedures = {}
for _, name in ipairs(PROCEDURES) do procedures[name] = require("mbus.procedure." .. name) end

-- The procedure of a method and its arguments, checked.
local function prepare(bus, level, name, ...)
  local procedure, results = procedures[name], table.pack(procedures[name].prepare(level + 1, ...))
  local options = results[1]
  if options then check_options(options, level + 1, procedure.options or NONE) end
  -- What a search sends next is up to what answers.
  if options and procedure.finds and (options.dry_run or bus.options.dry_run) then
    error("option dry_run: not with a search", level + 1)
  end
  return table.unpack(results, 1, results.n)
end

for name, procedure in pairs(procedures) do
  local function go(bus, options, ...)
    if not options then return finish(bus, nil, (...)) end
    return (procedure.finds and search or perform)(bus, options, procedure.run, ...)
  end
  Bus[name] = function(bus, ...)
    needs_transport(bus, 2)
    return go(bus, prepare(bus, 2, name, ...))
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
  return perform(self, NONE, procedure, ...)
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
  local arguments = table.pack(prepare(self, 2, name, ...))
  local options = arguments[1]
  if not options then return finish(self, nil, arguments[2]) end
  self.trace = options.trace or self.options.trace
  self.state.listened = nil -- nobody knows how long ago that was
  self.engine = start(self, options, procedures[name].run, table.unpack(arguments, 2, arguments.n))
  return true
end

local function engine_of(bus)
  return bus.engine or error("no request was begun", 3)
end

---What the request under way wants. The same until the next `feed`.
---@return "send"|"receive"|"sleep"|"drain"|"baudrate"|"event"|"done" what
---@return any argument  bytes to send, deadline, baud rate, {name, value} of an event, or the result
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
  if type(bytes) ~= "string" then error("bytes are a string, not " .. type(bytes), 2) end
  if type(time) ~= "number" or time ~= time then
    error("a time is a number, not " .. (type(time) == "number" and "NaN" or type(time)), 2)
  end
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
  dismiss(self)
  if self.transport then self.transport:close() end
  if self.lock then self.lock:cancel(self) end
  if self.engine and self.engine:wants() ~= "done" then self.engine:fail(closed(self)) end
end

Bus.__close = Bus.close

function Bus:__tostring() return ("mbus.Bus (%s)"):format(self.name) end

return Bus
