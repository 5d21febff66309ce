---Who carries the bytes. A bus is named by one URL:
---
---    /dev/ttyUSB0   COM3   /dev/serial/by-id/usb-FTDI_...    a serial port
---    serial:///dev/ttyUSB0?baudrate=2400&parity=even&rts=off  the same with settings
---    tcp://host:port   tcp://[fe80::1]:port                   a transparent gateway
---    sim:   sim:FILE                                          a simulated bus
---    manual:                                                  nobody: the caller carries them (`bus:wants`, `bus:feed`)
local Error = require "mbus.error"

local M = {}

local MODULES = { serial = "mbus.transport.serial", tcp = "mbus.transport.tcp", sim = "mbus.simulator.transport" }

---@class mbus.Url
---@field scheme "serial"|"tcp"|"sim"|"manual"
---@field path? string     serial: the port; sim: the file
---@field host? string     tcp, without brackets
---@field port? integer    tcp
---@field options table    what stood behind "?", checked, numbers as numbers

---@class mbus.Transport
---@field name string       for messages: "/dev/ttyUSB0", "tcp://10.0.0.5:10001"
---@field margin number     seconds that this path adds to a meter's answer window
---@field gap number        seconds of silence that end an unfinished frame
---@field baudrate integer  of the line, from which airtime is computed
---@field write fun(self, bytes: string): boolean?, mbus.Error?
---@field read fun(self, seconds: number): string?, integer|mbus.Error|nil
---@field drain fun(self): string?, mbus.Error?
---@field close fun(self)

local function invalid(...) return nil, Error.new("invalid", string.format(...)) end

-- --- settings: each takes what a user wrote and returns the value, or nil and what is allowed

local function choice(...)
  local allowed, values = table.concat({ ... }, ", "), {}
  for _, value in ipairs { ... } do values[tostring(value)] = value end
  return function(value)
    local found = values[tostring(math.tointeger(tonumber(value)) or value)]
    if found == nil then return nil, allowed end
    return found
  end
end

local function seconds(value)
  local number = tonumber(value)
  if not number or number < 0 or number ~= number or number == math.huge then return nil, "a number of seconds" end
  return number
end

local LEVELS = { on = true, off = false, leave = "leave", ["true"] = true, ["false"] = false }

local function level(value)
  local found = LEVELS[tostring(value)]
  if found == nil then return nil, "on, off, leave" end
  return found
end

local baudrate = choice(300, 600, 1200, 2400, 4800, 9600, 19200, 38400)

local SETTINGS = {
  serial = { baudrate = baudrate, parity = choice("even", "odd", "none"), databits = choice(7, 8), stopbits = choice(1, 2),
    rts = level, dtr = level, margin = seconds, gap = seconds },
  tcp = { baudrate = baudrate, margin = seconds, gap = seconds, connect_timeout = seconds },
  sim = { baudrate = baudrate, margin = seconds, gap = seconds },
}

local function names(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return table.concat(list, ", ")
end

-- A setting by its name: value, or nil and an Error.
local function check(settings, name, value)
  local checked, allowed = settings[name](value)
  if checked == nil then return invalid("bad %s %q (allowed: %s)", name, tostring(value), allowed) end
  return checked
end

-- --- the URL

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function parse_options(scheme, query)
  local settings, options = SETTINGS[scheme], {}
  for part in (query or ""):gmatch "[^&]+" do
    local name, value = part:match "^([^=]+)=(.*)$"
    if not name then return invalid("bad option %q: name=value expected", part) end
    if not settings[name] then return invalid("unknown option %q (%s has: %s)", name, scheme, names(settings)) end
    local err
    value, err = check(settings, name, unescape(value))
    if value == nil then return nil, err end
    options[name] = value
  end
  return options
end

local function split_query(text)
  local before, query = text:match "^([^?]*)%?(.*)$"
  return before or text, query
end

local function parse_serial(path, query)
  path = path:gsub("^\\\\%.\\", "")       -- \\.\COM10 is COM10
  if path == "" then return invalid("no port named (as in serial:///dev/ttyUSB0)") end
  if path:find "%c" then return invalid("control characters in the port name") end
  local options, err = parse_options("serial", query)
  if not options then return nil, err end
  return { scheme = "serial", path = path, options = options }
end

local function parse_host(text)
  local host, rest = text:match "^%[([%x:.]+%%?[%w_.-]*)%](.*)$"
  if host then
    if not host:find ":" then return nil end
    return host, rest
  end
  host, rest = text:match "^([%w._-]+)(.*)$"
  return host, rest
end

local function parse_tcp(text)
  local place, query = split_query(text)
  local host, rest = parse_host(place)
  if not host then return invalid("bad host in %q (a name, an IPv4 address, or an IPv6 address in brackets)", place) end
  if rest:find "^:.*:" then return invalid("bad host in %q (an IPv6 address stands in brackets)", place) end
  local digits = rest:match "^:(.-)/?$"
  if not digits or digits == "" then return invalid("no port number in %q (as in tcp://host:10001)", place) end
  local port = digits:match "^%d%d?%d?%d?%d?$" and math.tointeger(tonumber(digits))
  if not port or port < 1 or port > 65535 then return invalid("bad port number %q (1 to 65535)", digits) end
  local options, err = parse_options("tcp", query)
  if not options then return nil, err end
  return { scheme = "tcp", host = host, port = port, options = options }
end

local function parse_sim(text)
  return { scheme = "sim", path = text ~= "" and text or nil, options = {} }
end

local function parse_manual(text)
  if text ~= "" then return invalid("nothing may follow manual:") end
  return { scheme = "manual", options = {} }
end

local function is_path(text)
  return text:find "^[./\\]" or text:upper():find "^COM%d+$" or text:upper():find "^COM%d+%?"
    or (text:find "/" and not text:find "^[^/]*:")
end

local ALLOWED = "a port such as /dev/ttyUSB0 or COM3, serial://PORT, tcp://HOST:PORT, sim:FILE, manual:"

---Takes a URL apart. Touches nothing outside.
---@param url string
---@return mbus.Url? parsed
---@return mbus.Error? err  `invalid`, naming the part and what is allowed
function M.parse(url)
  if type(url) ~= "string" then error("a URL expected, got " .. type(url), 2) end
  if is_path(url) then return parse_serial(split_query(url)) end
  local scheme, rest = url:match "^([%a][%w+.-]*):(.*)$"
  if not scheme then return invalid("%q names no bus (allowed: %s)", url, ALLOWED) end
  scheme = scheme:lower()
  local slashes = rest:match "^//(.*)$"
  if scheme == "sim" then return parse_sim(rest) end
  if scheme == "manual" then return parse_manual(rest) end
  if scheme == "serial" and slashes then
    local path, query = split_query(slashes)
    return parse_serial(unescape(path), query)
  end
  if scheme == "tcp" and slashes then return parse_tcp(slashes) end
  if scheme == "serial" or scheme == "tcp" then return invalid("%q: // is missing behind %s:", url, scheme) end
  return invalid("unknown scheme %q in %q (allowed: %s)", scheme, url, ALLOWED)
end

-- What the URL says, else what the table says; both checked. Other keys of the table belong to others.
local function merge(parsed, given)
  local settings, options = SETTINGS[parsed.scheme], {}
  for name, value in pairs(given) do options[name] = value end
  for name in pairs(settings) do
    if parsed.options[name] ~= nil then
      options[name] = parsed.options[name]
    elseif given[name] ~= nil then
      local value, err = check(settings, name, given[name])
      if value == nil then return nil, err end
      options[name] = value
    end
  end
  return options
end

---Opens what a URL names.
---@param url string
---@param options? table  the settings that may stand behind "?" in the URL, which wins: baudrate (300 to 38400, 2400),
--- margin, gap (seconds); serial: parity ("even"), databits (8), stopbits (1), rts, dtr ("on", "off", "leave" or a boolean;
--- "leave" by default, and opening a port raises both); tcp: connect_timeout (seconds until a gateway must
--- have connected, or taken a frame; 5)
---@return mbus.Transport? transport
---@return mbus.Error? err  invalid not_found permission busy io refused unknown_host timeout closed
function M.open(url, options)
  if options ~= nil and type(options) ~= "table" then error("options: a table expected, got " .. type(options), 2) end
  local parsed, err = M.parse(url)
  if not parsed then return nil, err end
  if not MODULES[parsed.scheme] then return invalid("%s has no transport: the bytes are carried by the caller", url) end
  local merged
  merged, err = merge(parsed, options or {})
  if not merged then return nil, err end
  return require(MODULES[parsed.scheme]).open(parsed, merged)
end

return M
