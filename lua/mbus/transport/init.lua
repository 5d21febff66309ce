---Who carries the bytes. A bus is named by one URL:
---
---    /dev/ttyUSB0   COM3   /dev/serial/by-id/usb-FTDI_...    a serial port
---    serial:///dev/ttyUSB0?baudrate=2400&parity=even&rts=off  the same with settings
---    usb://1a86:55d5?serial=BC045EABCD&n=2                    a serial port by its USB adapter
---    tcp://host:port   tcp://[fe80::1]:port                   a transparent gateway
---    udp://host:port                                          the same over UDP
---    rfc2217://host:port?baudrate=2400&parity=even            a serial port server that is set from here
---    sim:   sim:FILE                                          a simulated bus
---    manual:                                                  nobody: the caller carries them (`bus:wants`, `bus:feed`)
local Error = require "mbus.error"

local M = {}

local MODULES = {
  serial = "mbus.transport.serial", usb = "mbus.transport.usb", tcp = "mbus.transport.tcp", udp = "mbus.transport.udp",
  rfc2217 = "mbus.transport.rfc2217", sim = "mbus.simulator.transport",
}

---@class mbus.Url
---@field scheme "serial"|"usb"|"tcp"|"udp"|"rfc2217"|"sim"|"manual"
---@field path? string     serial: the port; usb: the URL, for messages; sim: the file
---@field host? string     tcp, udp, rfc2217, without brackets
---@field port? integer    tcp, udp, rfc2217
---@field vid? integer     usb
---@field pid? integer     usb
---@field options table    what stood behind "?", checked, numbers as numbers

---@class mbus.Transport
---@field name string       for messages: "/dev/ttyUSB0", "tcp://10.0.0.5:10001"
---@field margin number     seconds that this path adds to a meter's answer window
---@field held? number      seconds of the margin that an answer of one byte does not need: gateways deliver whole answers
---@field gap number        seconds of silence that end an unfinished frame
---@field baudrate integer  of the line, from which airtime is computed
---@field write fun(self, bytes: string): boolean?, mbus.Error?
---@field read fun(self, seconds: number, deadline?: number): string?, integer|mbus.Error|nil  waits for the first bytes
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

local function positive(value)
  local number = seconds(value)
  if not number or number == 0 then return nil, "a number of seconds above 0" end
  return number
end

local function whole(least, most)
  return function(value)
    local number = math.tointeger(tonumber(value))
    if not number or number < least or number > most then return nil, ("a whole number, %d to %d"):format(least, most) end
    return number
  end
end

local function word(value)
  if type(value) ~= "string" or value == "" or value:find "%c" then return nil, "a text" end
  return value
end

local LEVELS = { on = true, off = false, leave = "leave", ["true"] = true, ["false"] = false }

local function level(value)
  local found = LEVELS[tostring(value)]
  if found == nil then return nil, "on, off, leave" end
  return found
end

local baudrate = choice(300, 600, 1200, 2400, 4800, 9600, 19200, 38400)

-- A table with the settings of all the given ones.
local function join(...)
  local all = {}
  for _, part in ipairs { ... } do
    for name, check in pairs(part) do all[name] = check end
  end
  return all
end

local COMMON = { baudrate = baudrate, margin = seconds, gap = seconds }
local LINE = { parity = choice("even", "odd", "none"), databits = choice(7, 8), stopbits = choice(1, 2), rts = level,
  dtr = level }
local REOPEN = { connect_timeout = positive, backoff = seconds, backoff_limit = seconds }
local PORT = join(COMMON, LINE, REOPEN, { rs485 = choice("on", "inverted", "off", "leave") })
local TCP = join(COMMON, REOPEN, { keepalive = whole(0, 32767), keepalive_interval = whole(1, 32767),
  keepalive_count = whole(1, 127), probe = seconds })

local SETTINGS = {
  serial = PORT,
  usb = join(PORT, { serial = word, n = whole(0, 999) }),
  tcp = join(TCP, { banner = seconds }),
  udp = join(COMMON, REOPEN),
  rfc2217 = join(TCP, LINE, { negotiation_timeout = positive }),
  sim = COMMON,
}

local ALL = join(SETTINGS.usb, SETTINGS.tcp, SETTINGS.rfc2217, { delay_ratio = true })

---Does any kind of bus have this setting?
---@param name any
---@return boolean
function M.is_setting(name) return ALL[name] ~= nil end

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

local function parse_network(scheme, address)
  local place, query = split_query(address)
  local host, rest = parse_host(place)
  if not host then return invalid("bad host in %q (a name, an IPv4 address, or an IPv6 address in brackets)", place) end
  if rest:find "^:.*:" then return invalid("bad host in %q (an IPv6 address stands in brackets)", place) end
  local digits = rest:match "^:(.-)/?$"
  if not digits or digits == "" then return invalid("no port number in %q (as in %s://host:10001)", place, scheme) end
  local port = digits:match "^%d%d?%d?%d?%d?$" and math.tointeger(tonumber(digits))
  if not port or port < 1 or port > 65535 then return invalid("bad port number %q (1 to 65535)", digits) end
  local options, err = parse_options(scheme, query)
  if not options then return nil, err end
  return { scheme = scheme, host = host, port = port, options = options }
end

local function parse_usb(adapter)
  local place, query = split_query(adapter)
  local vid, pid = place:match "^(%x%x?%x?%x?):(%x%x?%x?%x?)/?$"
  if not vid then return invalid("bad adapter %q (vendor and product in hex, as in usb://1a86:55d5)", place) end
  local options, err = parse_options("usb", query)
  if not options then return nil, err end
  local path = ("usb://%04x:%04x"):format(tonumber(vid, 16), tonumber(pid, 16))
  local which = {}
  for _, name in ipairs { "serial", "n" } do
    if options[name] ~= nil then which[#which + 1] = name .. "=" .. options[name] end
  end
  if #which > 0 then path = path .. "?" .. table.concat(which, "&") end
  return { scheme = "usb", path = path, vid = tonumber(vid, 16), pid = tonumber(pid, 16), options = options }
end

local function parse_sim(file)
  return { scheme = "sim", path = file ~= "" and file or nil, options = {} }
end

local function parse_manual(rest)
  if rest ~= "" then return invalid("nothing may follow manual:") end
  return { scheme = "manual", options = {} }
end

local function is_path(text)
  return text:find "^[./\\]" or text:upper():find "^COM%d+$" or text:upper():find "^COM%d+%?"
    or (text:find "/" and not text:find "^[^/]*:")
end

local ALLOWED = "a port such as /dev/ttyUSB0 or COM3, serial://PORT, usb://VID:PID, tcp://HOST:PORT, udp://HOST:PORT, "
  .. "rfc2217://HOST:PORT, sim:FILE, manual:"
local NETWORK = { tcp = true, udp = true, rfc2217 = true }

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
  if scheme == "usb" and slashes then return parse_usb(slashes) end
  if NETWORK[scheme] and slashes then return parse_network(scheme, slashes) end
  if SETTINGS[scheme] then return invalid("%q: // is missing behind %s:", url, scheme) end
  return invalid("unknown scheme %q in %q (allowed: %s)", scheme, url, ALLOWED)
end

---What the URL says, else what the table says; both checked. Other keys of the table belong to others.
---@param parsed mbus.Url
---@param given table
---@return table? options
---@return mbus.Error? err  invalid
function M.merge(parsed, given)
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
---@param options? table  the settings that may stand behind "?" in the URL, which wins; times in seconds:
--- all: baudrate (300 to 38400; 2400), margin (added to the answer window; serial 0.1, networks: measured), gap;
--- serial, usb: parity ("even"), databits (8), stopbits (1), rts, dtr ("on", "off", "leave" or a boolean; "leave", and
--- opening a port raises both), rs485 ("on": the kernel raises RTS while sending, "inverted": lowers it, "off", "leave");
--- usb: serial (number of the adapter), n (which of its ports, from 0);
--- serial, usb, tcp, udp, rfc2217: connect_timeout (within which a gateway must have connected or taken a frame, and how long a
--- request waits for what was lost to come back; 5), backoff (first pause between attempts; 0.5), backoff_limit (30, ports 10);
--- tcp, rfc2217: keepalive (silence before the system asks; 30; 0: never), keepalive_interval (10), keepalive_count (3),
--- probe (how long answers are awaited without a byte until a new connection is tried; after as long a pause two requests in
--- vain are enough; 10; 0: never);
--- tcp: banner (what comes so early is a greeting; 0.2);
--- rfc2217: parity, databits, stopbits, rts, dtr, and negotiation_timeout (3);
--- not in a URL: delay_ratio (multiplies connect_timeout and negotiation_timeout; 1)
---@return mbus.Transport? transport
---@return mbus.Error? err  invalid not_found permission busy io unsupported refused unknown_host timeout closed
function M.open(url, options)
  if options ~= nil and type(options) ~= "table" then error("options: a table expected, got " .. type(options), 2) end
  local parsed, err = M.parse(url)
  if not parsed then return nil, err end
  if not MODULES[parsed.scheme] then return invalid("%s has no transport: the bytes are carried by the caller", url) end
  local merged
  merged, err = M.merge(parsed, options or {})
  if not merged then return nil, err end
  return require(MODULES[parsed.scheme]).open(parsed, merged)
end

return M
