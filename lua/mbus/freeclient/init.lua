---Runs BACRouter-style free-client scripts: a script in a sandbox drives one bus through the functions of `swg`.
---
---    local host = assert(freeclient.new(script, { name = "mbus.lua", bus = {
---      type = "rs485", tag = "update_interval=5000", baudrate = 2400,
---      devices = { { tag = "addr=1", points = { { tag = "id=1, scale=10", obj_type = "a" } } } } },
---      update = function(device, point, value, reliability) print(device, point, value, reliability) end }))
---    local ok, err = host:run(assert(mbus.open("/dev/ttyUSB0")))      -- until host:stop(), or until the script fails
---
---A script is a chunk that returns the interfaces it can use and a function:
---
---    return swg.interface_rs485 | swg.interface_tcp, function(ctx) ... end
---
---`ctx` has type, tag, baudrate, and devices[] with tag and points[] (tag, obj_type "a" "b" "m", read_only, commandable,
---max_value). Each call of the script starts one operation, whose end calls the script again, with ctx first:
---
---    swg.now()                                            milliseconds
---    swg.timer(0, ms, cb)                                 cb(ctx)
---    swg.sndrcv485(packet, idle_ms, timeout_ms, maxlen, cb)   cb(ctx, result, data): result < 0 is one of swg.rs485error_...
---    swg.sndrcvtcp(packet or nil, min, max, timeout_ms, cb)   the same with swg.tcperror_...; nil only receives
---    swg.tcpreset()                                       gives up the connection; the next packet makes a new one
---    swg.updatepoint(device, point, value, reliability)   positions from 1; reliability 0 is good; nil leaves what there is
---    swg.pointvalue(device, point)                        value, reliability
---    swg.firstwrite()                                     device, point, value of the next write, or nil; value nil: given up
---    swg.getwrite(device, point)                          what a commandable point is commanded to be, or nil
---    swg.onoff(device, online)
---
---In this host scripts also have `mbus`: decode(bytes) gives a plain table with `records`, or nil and a text; short(c, a),
---long(c, a, ci, data), hex and unhex are those of the module.
local core = require "mbus.core"
local Error = require "mbus.error"
local sandbox = require "mbus.sandbox"
local operations = require "mbus.freeclient.operations"
local printable = require("mbus.freeclient.tags").printable

local M = {}

---@class mbus.freeclient.Point
---@field tag? string
---@field obj_type? "a"|"b"|"m"   analog, binary, multi-state; default "a"
---@field read_only? boolean      default true
---@field commandable? boolean
---@field max_value? integer      states of a multi-state one

---@class mbus.freeclient.Bus
---@field type "rs485"|"tcp"
---@field tag? string
---@field baudrate? integer  default 2400
---@field devices { tag?: string, points: mbus.freeclient.Point[] }[]

---@class mbus.freeclient.Options
---@field bus mbus.freeclient.Bus
---@field name? string            of the script, for messages
---@field instructions? integer   of one call, 5,000,000
---@field seconds? number         of processor time in one call, 2
---@field memory? integer         bytes, 8 MiB
---@field print? fun(text: string)  default: to standard error
---@field update? fun(device: integer, point: integer, value: any, reliability: integer)
---@field status? fun(device: integer, online: boolean)

---@class mbus.freeclient.Host
---@field name string
---@field request? mbus.freeclient.Request  what the script waits for
---@field error? mbus.Error                 why it has ended
local Host = {}
Host.__index = Host

local TYPES = { rs485 = 1, tcp = 2 }
local MAXLENGTH = 2048

-- ------------------------------------------------------------------ what scripts call

-- Raised without a position: the sandbox adds the line of the script.
local function refuse(...) error(string.format(...), 0) end

local function number(name, what, value, least, most)
  if type(value) ~= "number" or value ~= value then refuse("%s: %s is a number, not %s", name, what, type(value)) end
  if value < least or value > most then refuse("%s: %s is from %g to %g, not %g", name, what, least, most, value) end
  return value
end

local function whole(name, what, value, least, most)
  return math.tointeger(number(name, what, value, least, most)) or refuse("%s: %s is a whole number, not %g", name, what, value)
end

local function packet_of(name, packet)
  if type(packet) ~= "string" then refuse("%s: the packet is a string, not %s", name, type(packet)) end
  if #packet < 1 or #packet > MAXLENGTH then refuse("%s: a packet has 1 to %d bytes, not %d", name, MAXLENGTH, #packet) end
  return packet
end

local LONGEST = 1e12 -- ms

local function start(host, name, callback, request)
  if type(callback) ~= "function" then refuse("%s: the callback is a function, not %s", name, type(callback)) end
  if host.request then refuse("%s: one operation at a time, and %s is under way", name, host.request.name) end
  if host.loading then refuse("%s: not before init", name) end
  request.name, request.callback = name, callback
  host.request = request
end

local function needs(host, name, kind)
  if host.type ~= kind then refuse("%s: this bus is no %s one", name, kind) end
end

local function point_of(host, name, device, point)
  whole(name, "the device", device, 1, #host.points)
  whole(name, "the point", point, 1, #host.points[device])
  return host.points[device][point]
end

local function check_value(point, value, name)
  local wanted = ({ a = "number", b = "boolean", m = "number" })[point.obj_type]
  if type(value) ~= wanted then refuse("%s: the value of this point is a %s, not %s", name, wanted, type(value)) end
  if value ~= value then refuse("%s: the value is not a number (NaN)", name) end
  if point.obj_type == "m" then whole(name, "the value", value, 1, point.max_value or math.huge) end
end

local function functions(host)
  local swg = {}
  function swg.now() return host.clock() * 1000 end
  function swg.timer(zero, ms, callback)
    if zero ~= 0 then refuse("swg.timer: the first argument is 0") end
    number("swg.timer", "the time", ms, -LONGEST, LONGEST)
    -- Never nothing, so that a script that waits for nothing does not keep everybody else from working.
    start(host, "swg.timer", callback, { kind = "timer", deadline = host.clock() + math.max(ms, 1) / 1000 })
  end
  function swg.sndrcv485(packet, idle, timeout, maxlen, callback)
    local name = "swg.sndrcv485"
    needs(host, name, "rs485")
    start(host, name, callback, { kind = "rs485", packet = packet_of(name, packet),
      idle = number(name, "the idle time", idle, 0, 60000) / 1000,
      timeout = number(name, "the timeout", timeout, 0, 600000) / 1000,
      maxlen = whole(name, "maxlen", maxlen, 1, MAXLENGTH) })
  end
  function swg.sndrcvtcp(packet, least, most, timeout, callback)
    local name = "swg.sndrcvtcp"
    needs(host, name, "tcp")
    start(host, name, callback, { kind = "tcp", packet = packet ~= nil and packet_of(name, packet) or nil,
      least = whole(name, "min", least, 1, 65536), most = whole(name, "max", most, least, 65536),
      timeout = math.max(number(name, "the timeout", timeout, -LONGEST, 600000), 1) / 1000 })
  end
  function swg.tcpreset()
    needs(host, "swg.tcpreset", "tcp")
    host.reset = true
  end
  function swg.updatepoint(device, index, value, reliability)
    local name = "swg.updatepoint"
    local point = point_of(host, name, device, index)
    if value ~= nil then
      check_value(point, value, name)
      point.value = value
    end
    if reliability ~= nil then point.reliability = whole(name, "the reliability", reliability, 0, 255) end
    if value == nil and reliability == nil then return end
    host:note("update", device, index, point.value, point.reliability)
  end
  function swg.pointvalue(device, index)
    local point = point_of(host, "swg.pointvalue", device, index)
    return point.value, point.reliability
  end
  function swg.firstwrite()
    local first = table.remove(host.writes, 1)
    if first then return first.device, first.point, first.value end
  end
  function swg.getwrite(device, index)
    local point = point_of(host, "swg.getwrite", device, index)
    if point.commandable then return point.commanded end
  end
  function swg.onoff(device, online)
    whole("swg.onoff", "the device", device, 1, #host.points)
    if type(online) ~= "boolean" then refuse("swg.onoff: true or false, not %s", type(online)) end
    if host.online[device] == online then return end
    host.online[device] = online
    host:note("status", device, online)
  end
  swg.rs485_maxlength = MAXLENGTH
  swg.rs485error_busmess, swg.rs485error_noreply, swg.rs485error_byte, swg.rs485error_overflow = -1, -2, -3, -5
  swg.tcperror_timeout, swg.tcperror_read, swg.tcperror_write, swg.tcperror_connect = -1, -2, -3, -4
  swg.interface_rs485, swg.interface_tcp = TYPES.rs485, TYPES.tcp
  return swg
end

-- ------------------------------------------------------------------ mbus, in there

local FIELDS = { "type", "c", "a", "ci", "id", "manufacturer", "version", "medium", "access_no", "status", "secondary_address",
  "more_records_follow", "manufacturer_data" }

-- No object of ours may be reached from inside.
local function plain(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = plain(item) end
  return copy
end

local function text_of(name, value)
  if type(value) ~= "string" then refuse("%s: a string is needed, not %s", name, type(value)) end
  return value
end

local function decode(bytes)
  if type(bytes) ~= "string" then refuse("mbus.decode: bytes are a string, not %s", type(bytes)) end
  local telegram, err = core.telegram(bytes)
  if not telegram then return nil, tostring(err) end
  local result = { records = {} }
  for _, name in ipairs(FIELDS) do result[name] = telegram[name] end
  if telegram.error then result.error = tostring(telegram.error) end
  for position, record in telegram:records() do
    record.telegram = nil
    result.records[position + 1] = plain(record)
  end
  return result
end

local function hex(bytes, separator)
  text_of("mbus.hex", bytes)
  if separator ~= nil then text_of("mbus.hex", separator) end
  if #bytes > 65536 or #(separator or "") > 16 then refuse("mbus.hex: at most 65536 bytes, and 16 between them") end
  return core.hex(bytes, separator)
end

local function unhex(text)
  local bytes, err = core.unhex(text_of("mbus.unhex", text))
  if not bytes then return nil, tostring(err) end
  return bytes
end

local IN_THERE = { decode = decode, short = core.short, long = core.long, ACK = core.ACK, hex = hex, unhex = unhex }

-- ------------------------------------------------------------------ the host

local SAID = 4096 -- bytes that a script can say at a time

local function failure(host, message)
  return Error.new("invalid", printable(tostring(message):sub(1, SAID)), { bus = host.bus_name })
end

-- The points as we keep them, and the context that the script gets.
local function take(host, bus)
  local ctx = { type = TYPES[bus.type], tag = bus.tag or "", baudrate = bus.baudrate or 2400, devices = {} }
  for i, device in ipairs(bus.devices) do
    local points = {}
    host.points[i], host.online[i] = {}, nil
    for j, point in ipairs(device.points or {}) do
      local kind = point.obj_type or "a"
      local read_only = point.read_only ~= false and not point.commandable
      points[j] = { tag = point.tag or "", obj_type = kind, read_only = read_only, commandable = point.commandable or false,
        max_value = point.max_value }
      host.points[i][j] = { obj_type = kind, read_only = read_only, commandable = point.commandable,
        max_value = point.max_value }
    end
    ctx.devices[i] = { tag = device.tag or "", points = points }
  end
  host.ctx = ctx
end

local function check(options)
  local bus = type(options) == "table" and options.bus
  if type(bus) ~= "table" or type(bus.devices) ~= "table" then error("options.bus with devices is needed", 3) end
  if not TYPES[bus.type] then error('the type of a bus is "rs485" or "tcp"', 3) end
  for i, device in ipairs(bus.devices) do
    for j, point in ipairs(device.points or {}) do
      if not ("a b m"):find(point.obj_type or "a", 1, true) then
        error(("devices[%d].points[%d].obj_type is \"a\", \"b\" or \"m\""):format(i, j), 3)
      end
    end
  end
end

local function to_stderr(text) io.stderr:write(printable(text:sub(1, SAID), "\n\t"), "\n") end

-- Runs the chunk, which tells what it can and how it begins.
local function open(host, script)
  local chunk, message = host.box:load(script, host.name)
  if not chunk then return nil, failure(host, message) end
  local ok, mask, init = host.box:run(chunk)
  if not ok then return nil, failure(host, mask) end
  if math.type(mask) ~= "integer" or type(init) ~= "function" then
    return nil, failure(host, host.name .. ": a script returns its interfaces and the function init")
  end
  if mask & TYPES[host.type] == 0 then
    return nil, failure(host, ("%s: this script is not for a bus of type %s"):format(host.name, host.type))
  end
  host.init, host.loading = init, false
  return host
end

local OPTIONS = { bus = true, name = true, instructions = true, seconds = true, memory = true, print = true, update = true,
  status = true }

---@param script string  Lua source
---@param options mbus.freeclient.Options
---@return mbus.freeclient.Host? host
---@return mbus.Error? err  invalid: with the line of the script
function M.new(script, options)
  if type(script) ~= "string" then error("a script is a string, not " .. type(script), 2) end
  require("mbus.options").check(options, OPTIONS, 2)
  check(options)
  local host = setmetatable({
    name = printable(options.name or "script"), bus_name = options.bus.name and printable(options.bus.name),
    type = options.bus.type, options = options,
    points = {}, online = {}, writes = {}, notes = {}, received = "", loading = true,
    clock = function() return 0 end,
  }, Host)
  take(host, options.bus)
  host.box = sandbox.new { instructions = options.instructions, seconds = options.seconds, memory = options.memory,
    print = options.print or to_stderr }
  host.box:provide("swg", functions(host))
  host.box:provide("mbus", IN_THERE)
  return open(host, script)
end

---Keeps news for after the script, so that a callback of ours may do what it likes.
function Host:note(name, ...)
  if self.options[name] then self.notes[#self.notes + 1] = table.pack(name, ...) end
end

local function tell(host)
  local notes = host.notes
  host.notes = {}
  for _, note in ipairs(notes) do host.options[note[1]](table.unpack(note, 2, note.n)) end
end

local function call(host, fn, ...)
  host.request = nil
  local ok, message = host.box:run(fn, host.ctx, ...)
  local reason = not ok and message or host.box:hoards(host.ctx, host.request and host.request.callback)
  if reason then
    host.request = nil
    host.error = failure(host, reason)
  elseif not host.request then
    host.error = Error.new("closed", host.name .. ": the script has ended: its last call started nothing",
      { bus = host.bus_name })
  end
  tell(host)
  if host.error then return nil, host.error end
  return true
end

---Begins: calls init. Without I/O; what the script waits for is in `host.request`.
---@param clock fun(): number  seconds
---@return true? ok
---@return mbus.Error? err
function Host:begin(clock)
  if self.begun then error("the script has begun already", 2) end
  self.begun, self.clock = true, clock
  return call(self, self.init)
end

---The procedure of what the script waits for: for `bus:run`, or an engine of one's own. Its result goes to `answer`.
---@return fun(link: mbus.Link): table
function Host:operation()
  local request = self.request or error("the script waits for nothing", 2)
  return function(link) return operations[request.kind](link, request, self) end
end

---Calls the script with the result of its operation.
---@param result table  as the procedure gave it
---@return true? ok
---@return mbus.Error? err  the script has failed, or ended
function Host:answer(result)
  local request = self.request or error("the script waits for nothing", 2)
  if request.kind == "timer" then return call(self, request.callback) end
  return call(self, request.callback, result[1], result[2])
end

local function clock_of(bus)
  local transport = bus.transport
  if transport.now then return function() return transport:now() end end
  return require("mbus.runtime").now
end

local function hang_up(host, bus)
  host.reset, host.received = nil, ""
  local transport = bus.transport
  if transport.disconnect then
    transport:disconnect(Error.new("closed", "given up by the script", { bus = bus.name }))
  else
    transport:drain()
  end
end

-- A line that is broken fails at once; a script that only tries again must not do so without end. Nor is a timer over.
local function pause(host, bus, request)
  local seconds = math.max(0.1, math.min(request.timeout or 1, 1))
  local deadline = request.deadline or host.clock() + seconds
  return bus:run(function(link) return operations.timer(link, { deadline = deadline }, host) end)
end

local function perform(host, bus, ends)
  if host.reset then hang_up(host, bus) end
  local request = host.request
  -- A timer that goes on behind the end is that of the next run.
  if request.kind == "timer" and request.deadline > ends then
    return bus:run(function(link) return operations.timer(link, { deadline = ends }, host) end)
  end
  local result, err = bus:run(host:operation())
  if not result then return nil, err end
  if result.broken then
    local paused
    paused, err = pause(host, bus, request)
    if not paused then return nil, err end
  end
  -- What was cut short has no result.
  if host.stopping then return true end
  return host:answer(result)
end

---Runs the script on a bus, blocking, or in a coroutine of `mbus.spawn`.
---@param bus mbus.Bus
---@param seconds? number  on the clock of the bus; nil: until `stop`
---@return true? ok   it was stopped, or the time is over
---@return mbus.Error? err  the script has failed or ended, or the bus is closed
function Host:run(bus, seconds)
  local clock = clock_of(bus)
  local ends = seconds and clock() + seconds or math.huge
  local ok, err = true, nil
  if self.begun then self.clock = clock else ok, err = self:begin(clock) end
  if self.error then return nil, self.error end
  while ok and not self.stopping and clock() < ends do ok, err = perform(self, bus, ends) end
  if not ok then return nil, err end
  return true
end

---Ends `run` soon.
function Host:stop() self.stopping = true end

---Commands a point; the script gets it with `swg.firstwrite`.
---@param device integer  from 1
---@param index integer   from 1
---@param value any       nil: given up, for a commandable point
---@return true? ok
---@return mbus.Error? err  the point is read-only, or the value is none for it
function Host:write(device, index, value)
  local point = self.points[device] and self.points[device][index]
  if not point then error("no such point", 2) end
  if point.read_only then return nil, failure(self, "the point is read-only") end
  if value ~= nil then
    local ok, message = pcall(check_value, point, value, "write")
    if not ok then return nil, failure(self, message) end
  elseif not point.commandable then
    return nil, failure(self, "a value is needed: the point is not commandable")
  end
  point.commanded = value
  for _, write in ipairs(self.writes) do
    if write.device == device and write.point == index then
      write.value = value
      return true
    end
  end
  self.writes[#self.writes + 1] = { device = device, point = index, value = value }
  return true
end

---@param device integer
---@param index integer
---@return any? value
---@return integer? reliability
function Host:value(device, index)
  local point = self.points[device][index]
  return point.value, point.reliability
end

return M
