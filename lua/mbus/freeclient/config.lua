---Reads the bus export of a BACRouter (JSON, UTF-8 with or without BOM): one bus with fcdevices and fcpoints, an array of
---buses, or { buses = ... }. It becomes a config of mbus.gateway, or what mbus.freeclient needs to run the script in it.
---
---    local config = assert(import.decode(text, "RS485-1_mbus.json", { ports = { ["RS485-1"] = "/dev/ttyUSB0" } }))
---    local gateway = assert(mbus.gateway(config))
---
---    { "name": "M-Bus", "enable": true, "type": 1, "resource": "RS485-1", "baudrate": 2400, "parity": "even",
---      "tag": "update_interval=5000, force_reset=true", "script": { "mbus.lua": "..." }, "fcdevices": [
---        { "name": "Heat", "enable": true, "tag": "addr=1", "fcpoints": [
---          { "name": "Energy", "enable": true, "object_type": "ai", "tag": "id=1, scale=10" } ] } ] }
---
---    bus     update_interval ms, force_reset (SND_NKE before each readout), offline_interval ms, timeout ms, debug
---    device  addr: 1..250, or 8 or 16 hex digits, f is a wildcard; timeout ms
---    point   id: number of the record in the readout, from 0; scale: value = number on the wire * scale; offset: added to it
---
---A type is 1 (RS485) or 2 (TCP, with "server": "host:port"). All that is wrong is told at once, with its place.
local Error = require "mbus.error"
local Address = require "mbus.address"
local tags = require "mbus.freeclient.tags"
local sum_of = require("mbus.format.number").tidy

local M = {}

-- ------------------------------------------------------------------ what tags may say

local function between(least, most, whole)
  local wanted = ("a %s from %.14g to %.14g"):format(whole and "whole number" or "number", least, most)
  return function(value)
    if type(value) ~= "number" or not (value >= least and value <= most) then return nil, wanted end
    if not whole then return value end
    return math.tointeger(value), wanted
  end
end

local function flag(value)
  if type(value) ~= "boolean" then return nil, "true or false" end
  return value
end

local function finite(value)
  if type(value) ~= "number" or value ~= value or math.abs(value) == math.huge then return nil, "a number" end
  return value
end

local function nonzero(value)
  if value == 0 then return nil, "a number other than 0" end
  return finite(value)
end

local ADDRESS = 'a number from 1 to 250, or 8 or 16 hex digits in quotes such as "f57072162440f102"'

-- In the identification number a nibble f stands for any digit. Behind it the bus knows whole bytes as wildcards alone:
-- whether the other nibble fits is looked at when the meter has answered.
local function address(value)
  if type(value) == "string" and (#value == 8 or #value == 16) and not value:find("%X") then
    local behind = value:sub(9):gsub("..", function(byte) return byte:find("[fF]") and "FF" or nil end)
    return { selection = (value:sub(1, 8) .. behind):upper(), pattern = value:upper() }
  end
  local parsed = math.type(value) == "integer" and Address.parse(value)
  if not parsed or parsed.a < 1 or parsed.a > 250 then return nil, ADDRESS end
  return { selection = value }
end

local LONGEST = 4 * 366 * 86400000
local interval = between(1000, LONGEST)
local timeout = between(10, 600000)

local TAGS = {
  bus = { update_interval = interval, offline_interval = between(0, LONGEST), force_reset = flag, timeout = timeout,
    debug = flag },
  device = { addr = address, timeout = timeout },
  point = { id = between(0, 99999, true), scale = nonzero, offset = finite },
}

-- ------------------------------------------------------------------ the document

-- Kept apart from what is not there: a list would end at it.
local NULL = {}

local function is_object(value) return (getmetatable(value) or {}).__jsontype == "object" end

-- A null in an object is nothing, in a list it is an item. Half of a surrogate pair is no character.
local function tidy(value)
  if type(value) ~= "table" or value == NULL then return value end
  for key, item in pairs(value) do
    if item == NULL and is_object(value) then
      value[key] = nil
    elseif type(item) == "string" and not utf8.len(item) then
      value[key] = item:gsub("[\x80-\xFF]+", "?")
    else
      tidy(item)
    end
  end
  return value
end

---@class mbus.freeclient.Import
---@field problems string[]
---@field count integer     of all problems, also of those that are not told
---@field ports table<string, string>
---@field resources table<string, string|false>  ports that are named in the export, and the bus that uses each
local Import = {}
Import.__index = Import

local MOST = 100 -- problems that are told

function Import:add(place, ...)
  self.count = self.count + 1
  if self.count <= MOST then self.problems[self.count] = tags.printable(place .. ": " .. string.format(...)) end
end

-- A field of the wrong type counts as absent.
function Import:field(place, object, name, wanted, default)
  local value = object[name]
  if value == nil then return default end
  if type(value) == wanted then return value end
  self:add(place, "%s: a %s is needed, not a %s", name, wanted, type(value))
  return default
end

local function shown(value) return tags.excerpt(tostring(value)) end

function Import:list(place, object, name)
  local list = self:field(place, object, name, "table", {})
  if next(list) and is_object(list) then
    self:add(place, "%s: an array is needed, not an object", name)
    return {}
  end
  for i, item in ipairs(list) do
    if type(item) ~= "table" or item == NULL then
      self:add(place, "%s[%d]: an object is needed, not %s", name, i, item == NULL and "null" or "a " .. type(item))
      return {}
    end
  end
  return list
end

function Import:tag(place, object, kind)
  local values, problems = tags.parse(self:field(place, object, "tag", "string", ""), TAGS[kind])
  for _, problem in ipairs(problems) do self:add(place, "%s", tags.describe(problem)) end
  return values, #problems == 0
end

local function shortened(text, most)
  if #text <= most then return text end
  return (text:sub(1, most):gsub("[\xC2-\xF4][\x80-\xBF]*$", ""))
end

-- Without blanks around it. Not by one pattern, which takes the square of their number.
local function trimmed(text)
  local first = text:find("%S")
  return first and text:match(".*%S", first) or ""
end

local NAME_MAX = 300 -- bytes: the name of a binding has two of them, and the gateway takes 1000

-- As the gateway takes it: on one line.
local function plain(name) return trimmed((name:gsub("%c", " "):gsub("\xC2[\x80-\x9F]", " "))) end

local function named(object, kind, number)
  local name = type(object.name) == "string" and trimmed(shortened(object.name, NAME_MAX)) or ""
  return plain(name) ~= "" and name or ("%s %d"):format(kind, number)
end

-- Names of the gateway are unique, without a slash, and have an end.
local function unique(taken, name)
  name = name:gsub("/", "_")
  local candidate, count = name, taken[name]
  while taken[candidate] do
    count = count + 1
    candidate = ("%s (%d)"):format(name, count)
  end
  if count then taken[name] = count end
  taken[candidate] = 1
  return candidate
end

local function text_of(value)
  if type(value) ~= "string" then return nil end
  local text = trimmed((shortened(value, 1000):gsub("%c", " ")))
  return text ~= "" and text or nil
end

-- ------------------------------------------------------------------ points

-- A scale as a quotient, where it is a decimal one: 3 * 0.1 is 0.30000000000000004, 3 / 10 is 0.3.
local function quotient(scale)
  local divisor = 1
  for _ = 1, 15 do
    local numerator = math.floor(scale * divisor + 0.5)
    if math.abs(numerator) < 2 ^ 53 and numerator / divisor == scale then return numerator, divisor end
    divisor = divisor * 10
  end
  return scale, 1
end

-- Of a nibble that the selection could not hold: a Lua pattern for the whole address. The others were selected by.
local function pattern_of(addr)
  if not addr or not addr.pattern or addr.pattern:sub(9) == addr.selection:sub(9) then return nil end
  return "^" .. ("%x"):rep(8) .. addr.pattern:sub(9):gsub("F", "%%x") .. "$"
end

-- Whole numbers stay whole, unless they would wrap around.
local function times(number, factor)
  if factor == 1 then return number end
  local rough = (number + 0.0) * factor
  return math.abs(rough) < 2 ^ 63 and number * factor or rough
end

local function number_of(record, value)
  local number = record.raw or value
  if type(number) == "number" then return number end
  if number == nil then error("the record has no value", 0) end
  error(("the record is no number, but a %s: %s"):format(record.type or type(number), tostring(number)), 0)
end

-- Number on the wire * scale + offset: what such a script makes of a record.
local function on_the_wire(scale, offset, pattern)
  local numerator, divisor = quotient(scale)
  return function(value, context)
    local meter = context.secondary_address
    if pattern and meter and not meter:find(pattern) then error("another meter answers: " .. meter, 0) end
    local record = context.record or error("the gateway does not give the record", 0)
    local scaled = times(number_of(record, value), numerator)
    if divisor > 1 then scaled = scaled / divisor end
    return offset == 0 and scaled or sum_of(scaled + offset, offset)
  end
end

-- None of what is disabled and has not been finished.
local function binding_of(import, place, device, point, names)
  local tag, good = import:tag(place, point, "point")
  local enable = device.enable and point.enable
  if not enable and not (tag.id and device.addr) then return nil end
  if good and not tag.id then import:add(place, "tag '%s': id is missing, the number of the record", shown(point.tag or "")) end
  local f = on_the_wire(tag.scale or 1, tag.offset or 0, pattern_of(device.addr))
  local name = unique(names, plain(device.name) .. "." .. plain(point.name))
  return { name = name, title = text_of(point.description), tag = text_of(point.name),
    address = device.addr and device.addr.selection, id = tag.id, disabled = not enable,
    transformation = { { type = "function", f = f } } }
end

local function device_of(import, place, object, names, bindings)
  local tag, good = import:tag(place, object, "device")
  if good and not tag.addr and object.enable then
    import:add(place, "tag '%s': addr is missing, the address of the meter", shown(object.tag or ""))
  end
  local device = { name = object.name, addr = tag.addr, enable = object.enable }
  for _, point in ipairs(object.points) do
    bindings[#bindings + 1] = binding_of(import, point.place, device, point, names)
  end
  return tag
end

-- ------------------------------------------------------------------ buses

local KINDS = { [1] = "rs485", [2] = "tcp", rs485 = "rs485", serial = "rs485", tcp = "tcp" }
local PARITIES = { even = "even", odd = "odd", none = "none", no = "none", e = "even", o = "odd", n = "none",
  [0] = "none", [1] = "odd", [2] = "even" }

local function lower(value) return type(value) == "string" and value:lower() or value end

local function kind_of(import, place, object)
  local kind = KINDS[lower(object.type)]
  if object.type == nil then kind = object.server ~= nil and object.resource == nil and "tcp" or "rs485" end
  if not kind then import:add(place, "type: 1 (RS485) or 2 (TCP) is needed, not %s", shown(object.type)) end
  return kind or "rs485"
end

local function parity_of(import, place, object)
  local parity = PARITIES[lower(object.parity)]
  if object.parity ~= nil and not parity then
    import:add(place, "parity: even, odd or none is needed, not %s", shown(object.parity))
  end
  return parity
end

local HAS_LINE = { serial = true, usb = true, rfc2217 = true } -- whose parity is set from here

local function line_of(import, place, object, connection)
  local resource = import:field(place, object, "resource", "string", connection.name)
  if #resource > NAME_MAX or not resource:find("^[^%s%c]%C*$") then
    import:add(place, "resource: the name of a port is needed, not %q", shown(resource))
  end
  local port = import.ports[resource]
  local other = import.resources[resource]
  if other and not connection.disabled then
    import:add(place, 'resource: %s is that of bus "%s" already', shown(resource), other)
  end
  import.resources[resource] = other or not connection.disabled and connection.name
  local parity, data_bits = parity_of(import, place, object), object.bit7 == true and 7 or nil
  if port and port:find("^%a[%w+]+:") then -- a URL; a Windows port such as COM3: has no more than that
    connection.type = port
    local parsed = require("mbus.transport").parse(port)
    local said = parsed and parsed.options or {}
    -- What the URL says goes before the export.
    if said.baudrate then connection.baudrate = nil end
    if not parsed or not HAS_LINE[parsed.scheme] then return end
    connection.parity, connection.data_bits = not said.parity and parity or nil, not said.databits and data_bits or nil
    return
  end
  connection.type, connection.port, connection.parity, connection.data_bits = "serial", port or resource, parity, data_bits
end

local function server_of(import, place, object, connection)
  local server = import:field(place, object, "server", "string", "")
  local host, port = server:match("^%s*%[?([^%s%c%]]+)%]?:(%d+)%s*$")
  port = math.tointeger(tonumber(port))
  local url = host and ("tcp://%s:%s"):format(host:find(":", 1, true) and "[" .. host .. "]" or host, port)
  if not port or port < 1 or port > 65535 or not require("mbus.transport").parse(url) then
    import:add(place, "server: host:port is needed, not %q", shown(server))
    return
  end
  connection.type, connection.host, connection.port = "tcp", host, port
end

local BAUDRATES = { [300] = true, [600] = true, [1200] = true, [2400] = true, [4800] = true, [9600] = true, [19200] = true,
  [38400] = true }

local function baudrate_of(import, place, object)
  if object.baudrate == nil then return nil end
  local rate = math.tointeger(tonumber(tostring(object.baudrate)))
  if BAUDRATES[rate or 0] then return rate end
  import:add(place, "baudrate: 300 600 1200 2400 4800 9600 19200 or 38400 is needed, not %s", shown(object.baudrate))
end

local function connection_of(import, bus, names)
  local place, object = bus.place, bus.object
  local tag = import:tag(place, object, "bus")
  local connection = { name = unique(names, plain(bus.name)), title = text_of(object.description), disabled = not bus.enable,
    baudrate = baudrate_of(import, place, object), period = tag.update_interval or 10000,
    offline_interval = tag.offline_interval or math.min(2 * (tag.update_interval or 10000), LONGEST), timeout = tag.timeout,
    options = { nke = tag.force_reset == true }, bindings = {} }
  if bus.kind == "tcp" then server_of(import, place, object, connection) else line_of(import, place, object, connection) end
  local taken = {}
  for _, device in ipairs(bus.devices) do
    local of_device = device_of(import, device.place, device, taken, connection.bindings)
    -- A connection has one timeout; the longest does for all.
    if of_device.timeout then connection.timeout = math.max(connection.timeout or 0, of_device.timeout) end
  end
  return connection
end

-- ------------------------------------------------------------------ reading

local function is_enabled(import, place, object) return import:field(place, object, "enable", "boolean", true) end

local function read_point(import, parent, object, number)
  local name = named(object, "point", number)
  local place = ('%s, point "%s"'):format(parent, name)
  return { name = name, place = place, tag = object.tag, description = object.description, object = object,
    enable = is_enabled(import, place, object) }
end

local function read_device(import, parent, object, number)
  local name = named(object, "device", number)
  local place = ('%s, device "%s"'):format(parent, name)
  local device = { name = name, place = place, tag = object.tag, object = object, enable = is_enabled(import, place, object),
    points = {} }
  for i, point in ipairs(import:list(place, object, "fcpoints")) do device.points[i] = read_point(import, place, point, i) end
  return device
end

local function read_bus(import, object, number)
  local name = named(object, "bus", number)
  local place = ('%sbus "%s"'):format(import.source, name)
  local bus = { name = name, place = place, object = object, enable = is_enabled(import, place, object), devices = {} }
  bus.kind = kind_of(import, place, object)
  for i, device in ipairs(import:list(place, object, "fcdevices")) do bus.devices[i] = read_device(import, place, device, i) end
  return bus
end

local function objects_of(document)
  if document.fcdevices then return { document } end
  if type(document.buses) == "table" then document = document.buses end
  local found = {}
  for _, item in ipairs(document) do
    if type(item) ~= "table" or not item.fcdevices then return nil end
    found[#found + 1] = item
  end
  return found[1] and found
end

local function parse(text, source)
  text = text:gsub("^\xEF\xBB\xBF", "")
  local good, byte = utf8.len(text)
  if not good then return nil, Error.new("invalid", source .. "this is no JSON, which is UTF-8", { offset = byte - 1 }) end
  local ok, document, _, message = Error.pcall(require("dkjson").decode, text, 1, NULL)
  ok = ok and Error.pcall(tidy, document)
  if not ok then return nil, Error.new("invalid", source .. "this is no JSON: it is nested too deeply") end
  if message then return nil, Error.new("invalid", source .. "this is no JSON: " .. message) end
  local objects = type(document) == "table" and objects_of(document)
  if objects then return objects end
  return nil, Error.new("invalid", source .. "this is no export of a free-client bus: no fcdevices are in it")
end

local function import_of(text, source, options)
  if type(text) ~= "string" then error("an export is a string, not " .. type(text), 3) end
  local import = setmetatable({ problems = {}, count = 0, ports = options and options.ports or {}, resources = {},
    source = source and source .. ": " or "" }, Import)
  local objects, err = parse(text, import.source)
  if not objects then return nil, err end
  local buses = {}
  for i, object in ipairs(objects) do buses[i] = read_bus(import, object, i) end
  return import, buses
end

local function sorted_names(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- A name that was mistyped must not leave a bus at a port of its old name.
local function check_ports(import)
  local known = sorted_names(import.resources)
  for _, name in ipairs(sorted_names(import.ports)) do
    if import.resources[name] == nil then
      import:add(import.source .. "port " .. name, "no bus is at it; there are: %s", table.concat(known, ", "))
    end
  end
end

local function refusal(import)
  if import.count > MOST then import.problems[MOST + 1] = ("and %d more"):format(import.count - MOST) end
  local err = Error.new("invalid", table.concat(import.problems, "\n"))
  err.problems = import.problems
  return nil, err
end

---The export as a config of mbus.gateway. The ports are named as in the BACRouter ("RS485-1") unless `ports` tells what
---they are here.
---@param text string
---@param source? string   name of the file, for messages
---@param options? table   ports: what a resource is here, by its name: a port or a URL
---@return table? config   { connections = { ... } }
---@return mbus.Error? err invalid; `err.problems` has a text for each problem
function M.decode(text, source, options)
  local import, buses = import_of(text, source, options)
  if not import then return nil, buses end
  local config, names = { connections = {} }, {}
  for i, bus in ipairs(buses) do config.connections[i] = connection_of(import, bus, names) end
  check_ports(import)
  if #import.problems > 0 then return refusal(import) end
  return config
end

-- ------------------------------------------------------------------ for the host of scripts

local OBJECTS = { a = true, b = true, m = true }

-- "ai", "bo", "mv": letter, and whether it is an input, an output, or a value, which value_type 0 makes writable.
local function host_point(import, point)
  local object = point.object
  local kind = import:field(point.place, object, "object_type", "string", "ai"):lower()
  local letter, direction = kind:sub(1, 1), kind:sub(2, 2)
  if not OBJECTS[letter] then
    import:add(point.place, "object_type: ai, ao, av, bi, bo, bv, mi, mo or mv is needed, not %q", shown(kind))
  end
  local states = type(object.state_texts) == "table" and #object.state_texts or nil
  return { tag = point.tag, obj_type = letter, commandable = direction == "o",
    read_only = not (direction == "o" or direction == "v" and object.value_type == 0),
    max_value = letter == "m" and (math.tointeger(object.number_of_states) or states) or nil }
end

-- The script itself is the only text in an object of one.
local function script_of(object)
  if type(object.script) == "string" then return object.script end
  if type(object.script) ~= "table" then return nil end
  local name, text = next(object.script)
  if type(name) == "string" and type(text) == "string" then return text, name end
end

---The buses as mbus.freeclient runs them, without what is disabled. Tags are the script's own affair and not read.
---@param text string
---@param source? string
---@return table[]? buses  mbus.freeclient.Bus, each with name, script, script_name; resource or server; enable
---@return mbus.Error? err
function M.buses(text, source)
  local import, buses = import_of(text, source)
  if not import then return nil, buses end
  local result = {}
  for i, bus in ipairs(buses) do
    local one = { name = bus.name, type = bus.kind, tag = import:field(bus.place, bus.object, "tag", "string", ""),
      baudrate = math.tointeger(bus.object.baudrate), resource = bus.object.resource, server = bus.object.server,
      enable = bus.enable, devices = {} }
    one.script, one.script_name = script_of(bus.object)
    for _, device in ipairs(bus.devices) do
      local points = {}
      for _, point in ipairs(device.points) do
        if point.enable then points[#points + 1] = host_point(import, point) end
      end
      if device.enable then one.devices[#one.devices + 1] = { name = device.name, tag = device.tag or "", points = points } end
    end
    result[i] = one
  end
  if #import.problems > 0 then return refusal(import) end
  return result
end

return M
