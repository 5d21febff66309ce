---The config of a gateway: checked as a whole before anything is opened. Times are milliseconds.
---
---    return {
---      connections = {
---        { name = "house", type = "serial", port = "/dev/ttyUSB0", period = 300000, bindings = {
---          { name = "energy", tag = "house/energy", address = 5, index = 1, unit = "Wh",
---            transformation = { type = "scaling", factor = 0.001, unit = "kWh" } },
---          { name = "flow", address = "3189274724232804", find = { quantity = "volume_flow" } },
---        } },
---        { name = "spare", type = "tcp", host = "10.0.0.5", port = 10001, master = "house" },
---      },
---    }
local Address = require "mbus.address"
local Error = require "mbus.error"
local core = require "mbus.core"
local sandbox = require "mbus.gateway.sandbox"
local schema = require "mbus.gateway.schema"
local transformation = require "mbus.gateway.transformation"

local M = {}

local DAY = 86400000
local BATTERY = 60000 -- ms: polled more often than this, battery meters do not last
local LONGEST = 4 * 366 * DAY

-- ------------------------------------------------------------------ bindings

-- The highest primary address of a meter is 250 (EN 13757-2); 0 is that of meters fresh from the factory.
local ADDRESS = "an address from 1 to 250, or 8 or 16 hex digits of a secondary one, is needed"

local function address(value, path, problems)
  if type(value) ~= "number" and type(value) ~= "string" then return problems:refuse(path, ADDRESS, value) end
  local parsed, err = Address.parse(value)
  if not parsed then return problems:refuse(path, ADDRESS .. " (" .. err.message .. ")", value) end
  if not parsed.digits and (parsed.a < 1 or parsed.a > 250) then return problems:refuse(path, ADDRESS, value) end
  return parsed
end

local name = schema.text("^[^%s/][^/]*$", 'a text in UTF-8 without "/" and control characters, and no blank in front, is needed')
local period = schema.number(100, LONGEST)
local whole = schema.integer(0, 1 << 40)

local QUANTITIES = {}
for _, known in ipairs(core.quantities()) do QUANTITIES[known] = true end

-- Another name would never match a record.
local function quantity(value, path, problems)
  if QUANTITIES[value] then return value end
  problems:refuse(path, 'a quantity as records have it ("energy", "volume", "flow_temperature") is needed', value)
end

local FIND = schema.fields {
  quantity = quantity, unit = schema.text(), storage = whole, tariff = whole, subunit = whole,
  ["function"] = schema.choice { "instantaneous", "maximum", "minimum", "error" },
  modifiers = schema.array(schema.text()),
}

local function find(value, path, problems)
  if schema.is_table(value) and next(value) == nil then
    return problems:add(path, "says nothing: quantity, unit, storage, tariff, subunit, function or modifiers is needed")
  end
  return FIND(value, path, problems)
end

local DATA = { "none", "int8", "int16", "int24", "int32", "int48", "int64", "real32", "bcd2", "bcd4", "bcd6", "bcd8", "bcd12",
  "text", "date", "datetime", "datetime48", "time", "binary" }

local function vif(value, path, problems)
  if type(value) == "string" and #value % 2 == 0 and value:find("^%x+$") then return value end
  problems:refuse(path, "pairs of hex digits, of VIF and VIFEs, are needed", value)
end

local write = schema.fields {
  quantity = quantity, unit = schema.text(), exponent = schema.integer(-30, 30), data = schema.choice(DATA),
  storage = whole, tariff = whole, subunit = whole,
  ["function"] = schema.choice { "instantaneous", "maximum", "minimum", "error" },
  modifiers = schema.array(schema.text()), vif = vif,
}

local BINDING = schema.fields {
  name = { name, required = "every binding of a connection has a name of its own" },
  title = schema.text(), tag = schema.text(),
  access = { schema.choice({ "R", "W", "RW" }, { r = "R", w = "W", rw = "RW" }), default = "R" },
  address = { address, required = ADDRESS },
  telegram = schema.integer(0, 999), index = schema.integer(0, 9999), id = schema.integer(0, 99999), find = find,
  quantity = quantity, unit = schema.text(),
  disabled = { schema.flag, default = false }, period = period,
  transformation = transformation.check,
  report = schema.choice { "poll", "change" }, dead_band = schema.number(0),
  write = write,
}

local function count(...)
  local found = 0
  for i = 1, select("#", ...) do
    if select(i, ...) ~= nil then found = found + 1 end
  end
  return found
end

local function check_place(binding, path, problems)
  local places = count(binding.index, binding.id, binding.find)
  if places > 1 then problems:add(path, "only one of index, id and find may be given") end
  if places == 0 and not (binding.access == "W" and binding.write) then
    problems:add(path, "one of index (in a telegram), id (in the whole readout), find, or write, with access W, is needed")
  end
  if binding.telegram and not binding.index then problems:add(path .. ".telegram", "goes with index alone") end
end

local function check_binding(value, path, problems)
  local before = #problems
  local binding = BINDING(value, path, problems)
  if binding and #problems == before then check_place(binding, path, problems) end
  if binding and binding.access == "R" and binding.write then
    problems:add(path .. ".write", "access is R, so nothing is written")
  end
  if binding and binding.report == "poll" and binding.dead_band then
    problems:add(path .. ".dead_band", 'goes with report = "change"')
  end
  if binding then binding.report = binding.report or binding.dead_band and "change" end
  return binding
end

-- ------------------------------------------------------------------ connections

local BAUDRATES = { 300, 600, 1200, 2400, 4800, 9600, 19200, 38400 }
local TCP_PORT = schema.integer(1, 65535)

local SERIAL_PORT = schema.text("^%S.*$", "a serial port such as /dev/ttyUSB0 or COM3, or a TCP port from 1 to 65535, is needed")

local function port(value, path, problems)
  return (type(value) == "number" and TCP_PORT or SERIAL_PORT)(value, path, problems)
end

local function url(value, path, problems)
  if type(value) ~= "string" then return problems:refuse(path, "a URL is needed", value) end
  local parsed, err = require("mbus.transport").parse(value)
  if not parsed then return problems:add(path, err.message) end
  if parsed.scheme == "manual" then return problems:add(path, "manual: is for programs that carry the bytes themselves") end
  return value
end

-- "serial", "tcp", or a URL at once.
local function kind(value, path, problems)
  if type(value) == "string" and (value:find("[:/]") or value:upper():find("^COM%d+$")) then return url(value, path, problems) end
  if value == "serial" or value == "tcp" then return value end
  problems:refuse(path, "serial, tcp or a URL (such as tcp://10.0.0.5:10001) is needed", value)
end

-- What the bus itself understands, under its own names and in seconds; it is asked whether it likes it.
local OPTIONS = { "margin", "gap", "idle", "post_nke_delay", "max_telegrams", "nke", "select_c", "application_reset",
  "ignores_fcb", "meters", "keys" }

local KEY = "a key of 32 hex digits (16 bytes) is needed" -- whatever it was: keys are never shown

local function check_key(key, path, problems)
  if type(key) ~= "string" or #key ~= 16 and not (#key == 32 and key:find("^%x+$")) then problems:add(path, KEY) end
end

-- A function is as foreign as one of a transformation. What it does not give is no key.
local function contained(fn)
  return function(...)
    local ok, key = sandbox.call(fn, ...)
    return ok and type(key) == "string" and key or nil
  end
end

local function keys_of(value, path, problems)
  if type(value) == "function" then return contained(value) end
  if type(value) == "string" then check_key(value, path, problems) end
  for meter, key in pairs(schema.is_table(value) and value or {}) do
    if type(meter) == "string" and (#meter == 8 or #meter == 16) and not meter:find("%X") then
      check_key(key, path .. "." .. meter, problems)
    else -- which may be a key at the wrong place
      problems:add(path, "keys stand by 8 or 16 hex digits of a meter's secondary address, as texts")
    end
  end
  return value
end

local function bus_options(value, path, problems)
  if not schema.is_table(value) then return problems:refuse(path, "a table is needed", value) end
  local known, checked = {}, {}
  for _, option in ipairs(OPTIONS) do known[option] = true end
  for option, setting in pairs(value) do
    if option == "keys" then
      checked.keys = keys_of(setting, path .. ".keys", problems)
    elseif known[option] then
      checked[option] = setting
    else
      problems:add(path .. "." .. tostring(option), "no such setting; allowed are " .. table.concat(OPTIONS, ", "))
    end
  end
  local ok, message = Error.pcall(require("mbus.bus").new, nil, checked)
  if not ok then problems:add(path, (tostring(message):gsub("^[^:]+:%d+: ", ""))) end
  return checked
end

local milliseconds = schema.number(0, LONGEST)

local CONNECTION = schema.fields {
  name = { name, required = "every connection has a name of its own" },
  title = schema.text(),
  type = kind, url = url, port = port, host = schema.text("^%S+$", "a host name or an IP address is needed"),
  baudrate = schema.choice(BAUDRATES),
  parity = schema.choice({ "even", "odd", "none" }, { no = "none" }),
  data_bits = schema.choice { 7, 8 }, stop_bits = schema.choice { 1, 2 },
  rts = schema.choice { "on", "off", "leave" }, dtr = schema.choice { "on", "off", "leave" },
  timeout = { schema.number(10, 600000), default = 3000 },
  attempts = { schema.integer(1, 100), default = 3 },
  period = { period, default = 60000 },
  shutdown_timeout = { milliseconds, default = 10000 },
  group_requests = { schema.flag, default = true },
  max_package_length = { schema.integer(12, 253), default = 250 },
  line_delay_ratio = { schema.number(0.1, 1000), default = 1 },
  memory_limit = schema.integer(4096, 1 << 50),
  disabled = { schema.flag, default = false },
  master = name,
  regain_interval = { schema.number(100, LONGEST), default = 60000 },
  reconnect_interval = { milliseconds, default = 10000 },
  offline_interval = { milliseconds, default = 300000 },
  offline_after = { schema.integer(1, 1000), default = 3 },
  report = { schema.choice { "poll", "change" }, default = "poll" },
  log_level = { schema.choice { "error", "warning", "info", "debug" }, default = "info" },
  options = { bus_options, default = {} },
  bindings = { schema.array(check_binding), default = {} },
}

local LINE_SETTINGS = { "baudrate", "parity", "data_bits", "stop_bits", "rts", "dtr" }
local WIRED = { serial = true, usb = true, rfc2217 = true } -- ways with a line that is set from here
local IN_URL = { data_bits = "databits", stop_bits = "stopbits" } -- as it is called there

-- What was refused already is not missing.
local function missing(path, allowed, problems)
  if not problems:concerns(path) then problems:add(path, "is missing: " .. allowed) end
end

local function check_tcp(connection, path, problems)
  if not connection.host then missing(path .. ".host", "type tcp needs host and port", problems) end
  local number = math.type(connection.port) and connection.port or math.tointeger(tonumber(connection.port))
  if not connection.port then
    missing(path .. ".port", "type tcp needs host and port", problems)
  elseif not number then
    problems:refuse(path .. ".port", "a TCP port from 1 to 65535 is needed", connection.port)
  end
  if not (connection.host and number) then return nil end
  local host = connection.host:find(":", 1, true) and "[" .. connection.host .. "]" or connection.host
  return url(("tcp://%s:%d"):format(host, number), path .. ".host", problems)
end

local function check_serial(connection, path, problems)
  if connection.host then problems:add(path .. ".host", "goes with type tcp alone") end
  if not connection.port then return missing(path .. ".port", "type serial needs one, such as /dev/ttyUSB0", problems) end
  if type(connection.port) == "number" then
    return problems:refuse(path .. ".port", "a serial port such as /dev/ttyUSB0 or COM3 is needed", connection.port)
  end
  return "serial://" .. connection.port:gsub("[%%?#]", function(c) return ("%%%02X"):format(c:byte()) end)
end

local function check_url(connection, path, problems)
  if connection.type and connection.url then problems:add(path .. ".url", "either type or url may be given") end
  for _, setting in ipairs { "host", "port" } do
    if connection[setting] then problems:add(path .. "." .. setting, "stands in the URL already") end
  end
  return connection.url or connection.type
end

local WAYS = { tcp = check_tcp, serial = check_serial, url = check_url }

-- Settings of the line stand in the URL or beside it.
local function check_line(connection, path, problems)
  local parsed = connection.url and require("mbus.transport").parse(connection.url)
  for _, setting in ipairs(LINE_SETTINGS) do
    if parsed and connection[setting] ~= nil then
      if parsed.options[IN_URL[setting] or setting] ~= nil then
        problems:add(path .. "." .. setting, "stands in the URL already")
      elseif setting ~= "baudrate" and not WIRED[parsed.scheme] then
        problems:add(path .. "." .. setting, "goes with a serial port alone")
      end
    end
  end
end

-- One URL for all of it, and the settings of the line beside.
local function check_way(connection, path, problems)
  local way = WAYS[connection.type] and connection.type or "url"
  if not (connection.type or connection.url) then
    if problems:concerns(path .. ".type") or problems:concerns(path .. ".url") then return end
    return problems:add(path .. ".type", "is missing: serial, tcp or a URL is needed")
  end
  if connection.url and way ~= "url" then problems:add(path .. ".url", "either type or url may be given") end
  connection.url = WAYS[way](connection, path, problems)
  check_line(connection, path, problems)
end

-- Names may stand once. The later one is refused.
local function check_names(list, path, problems, names_of)
  local seen = {}
  for i, item in ipairs(list) do
    local one = type(item) == "table" and rawget(item, "name")
    if type(one) == "string" then
      if seen[one] then
        problems:add(("%s[%d].name"):format(path, i), ("%q is the name of %s %d already"):format(one, names_of, seen[one]))
      end
      seen[one] = seen[one] or i
    end
  end
end

local function warn_of_battery(connection, path, warnings)
  local function look(value, where)
    if value and value < BATTERY then
      warnings:add(where .. ".period", ("%g ms: polled more often than every 60 s, battery meters are empty before their time")
        :format(value))
    end
  end
  look(connection.period, path)
  for i, binding in ipairs(connection.bindings) do look(binding.period, ("%s.bindings[%d]"):format(path, i)) end
end

local function check_connection(value, path, problems, warnings)
  local connection = CONNECTION(value, path, problems)
  if not connection then return nil end
  connection.bindings = connection.bindings or {}
  if schema.is_table(value.bindings) then check_names(value.bindings, path .. ".bindings", problems, "binding") end
  check_way(connection, path, problems)
  warn_of_battery(connection, path, warnings)
  if connection.master and value.regain_interval then
    warnings:add(path .. ".regain_interval", "does nothing at a backup: that of the master counts")
  end
  return connection
end

-- ------------------------------------------------------------------ backups

local function check_masters(connections, problems)
  local by_name = {}
  for _, connection in ipairs(connections) do by_name[connection.name] = connection end
  for _, connection in ipairs(connections) do
    if connection.master and not by_name[connection.master] then
      problems:add(connection.path .. ".master", ("there is no connection %q"):format(connection.master))
    end
  end
  for _, connection in ipairs(connections) do
    local seen, chain, at = {}, {}, connection
    while at and not seen[at.name] do
      seen[at.name] = true
      chain[#chain + 1] = at.name
      at = at.master and by_name[at.master]
    end
    if at == connection then
      chain[#chain + 1] = connection.name
      problems:add(connection.path .. ".master", "goes round in a circle: " .. table.concat(chain, " -> "))
    end
  end
end

-- ------------------------------------------------------------------ the whole

local function check_connections(value, problems, warnings)
  local connections = {}
  if not schema.is_table(value) then
    problems:refuse("connections", "an array of connections is needed", value)
    return connections
  end
  check_names(value, "connections", problems, "connection")
  for i = 1, #value do
    local path = ("connections[%d]"):format(i)
    local connection = check_connection(value[i], path, problems, warnings)
    if connection then
      connection.path = path
      connections[#connections + 1] = connection
    end
  end
  for key in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 or key > #value then
      problems:add("connections", ("an array has no field %q"):format(tostring(key)))
    end
  end
  return connections
end

-- Connections whose own settings are wrong are left out, of the others the bindings that are; names decide for the first.
local function keep_good(connections, problems)
  local bad = {}
  for _, problem in ipairs(problems) do
    local connection, rest = problem.path:match("^(connections%[%d+%])(.*)$")
    local binding = rest and rest:match("^%.bindings%[(%d+)%]")
    if connection and not binding then bad[connection] = true end
  end
  local good = {}
  for _, connection in ipairs(connections) do
    if connection.name and not bad[connection.path] then good[#good + 1] = connection end
  end
  return good
end

local function drop_bindings(connections, problems)
  for _, connection in ipairs(connections) do
    local seen, good = {}, {}
    for _, binding in ipairs(connection.bindings) do
      if not seen[binding.name] then good[#good + 1] = binding end
      seen[binding.name] = true
    end
    connection.bindings = good
  end
  return connections, problems
end

local TOP = { connections = true }

---@class mbus.gateway.Config
---@field connections table[]  checked, with all defaults
---@field problems table[]     what was left out because it is wrong ({path, message}); only if it was to be tolerated
---@field warnings table[]     {path, message}

local function refusal(problems, source)
  local first = problems[1]
  local more = #problems > 1 and (" (and %d more)"):format(#problems - 1) or ""
  local err = Error.new("invalid", ("%s%s: %s%s"):format(source and source .. ": " or "", first.path, first.message, more))
  err.problems = problems
  return err
end

---Checks a config.
---@param value table
---@param options? table  tolerant: what is wrong is left out and the rest is good; source: name of the file, for messages;
---log_level: instead of those of all connections
---@return mbus.gateway.Config? config
---@return mbus.Error? err  kind `invalid`, names the first wrong setting; `err.problems` has all, {path, message}
function M.check(value, options)
  options = options or {}
  local problems, warnings = schema.problems(), schema.problems()
  if not schema.is_table(value) then
    problems:refuse("config", "a table with connections is needed", value)
    return nil, refusal(problems, options.source)
  end
  for key in pairs(value) do
    if not TOP[key] then problems:add(tostring(key), "no such setting; allowed are connections") end
  end
  local connections = check_connections(value.connections, problems, warnings)
  check_masters(keep_good(connections, problems), problems)
  if #problems > 0 and not options.tolerant then return nil, refusal(problems, options.source) end
  connections = drop_bindings(keep_good(connections, problems))
  for _, connection in ipairs(connections) do connection.log_level = options.log_level or connection.log_level end
  if #connections == 0 then warnings:add("connections", "there is none, so nothing is polled") end
  return { connections = connections, problems = problems, warnings = warnings, source = options.source }
end

local KINDS = { [2] = "not_found", [13] = "permission" } -- ENOENT, EACCES

local function read_text(path)
  local file, message, code = io.open(path, "rb")
  local text
  if file then
    text, message, code = file:read("a")
    file:close()
  end
  if text then return text end
  return nil, Error.new(KINDS[code] or "io", ("%s: %s"):format(path, (tostring(message):gsub("^.*: ", ""))))
end

local function is_json(text) return text:find("^\xEF?\xBB?\xBF?%s*[%[{]") ~= nil end

-- The export of another gateway, for which there is a reader of its own.
local function read_export(text, path, ports)
  local ok, reader = Error.pcall(require, "mbus.freeclient.config")
  if not ok then return nil, Error.new("invalid", path .. ": this is JSON; a config is a Lua file that returns a table") end
  return reader.decode(text, path, { ports = ports })
end

-- A metamethod would run outside of the sandbox, for as long as it likes.
local function has_metatable(value)
  local seen, waiting = {}, { value }
  while #waiting > 0 do
    local one = table.remove(waiting)
    if type(one) == "table" and not seen[one] then
      if getmetatable(one) ~= nil then return true end
      seen[one] = true
      for key, item in next, one do
        waiting[#waiting + 1] = key
        waiting[#waiting + 1] = item
      end
    end
  end
  return false
end

---Runs a config file, with nothing around it, and returns what it returns.
---@param path string
---@param ports? table<string, string>  of an export: what its ports are here
---@return table? value  not yet checked
---@return mbus.Error? err  not_found permission io, or invalid with the line
function M.load(path, ports)
  local text, err = read_text(path)
  if not text then return nil, err end
  if is_json(text) then return read_export(text, path, ports) end
  if ports and next(ports) then
    return nil, Error.new("invalid", path .. ": only the export of a BACRouter has ports to be named")
  end
  local chunk, message = sandbox.load(text, path)
  if not chunk then return nil, Error.new("invalid", message) end
  local ok, value = sandbox.call(chunk)
  if not ok then return nil, Error.new("invalid", (tostring(value):gsub("\n.*", ""))) end
  if type(value) ~= "table" then
    return nil, Error.new("invalid", ("%s: a config returns a table, this one returns %s"):format(path,
      value == nil and "nothing" or "a " .. type(value)))
  end
  if has_metatable(value) then return nil, Error.new("invalid", path .. ": a table with a metatable is no setting") end
  return value
end

---Loads and checks a config file.
---@param path string
---@param options? table  tolerant, log_level; ports: what those of an export are here
---@return mbus.gateway.Config? config
---@return mbus.Error? err
function M.read(path, options)
  options = options or {}
  local value, err = M.load(path, options.ports)
  if not value then return nil, err end
  return M.check(value, { source = path, tolerant = options.tolerant, log_level = options.log_level })
end

return M
