---Short texts that somebody types: hex digits, addresses, URLs, times, tags, keys. The first byte chooses which.
local Address = require "mbus.address"
local choices = require "spec.robust.choices"
local clock = require "mbus.clock"
local core = require "mbus.core"
local promise = require "spec.robust.promise"
local security = require "mbus.security"
local tags = require "mbus.freeclient.tags"
local transport = require "mbus.transport"

local function hex(text)
  local bytes = promise.result(core.unhex(text))
  if not bytes then return false end
  promise.that(core.unhex(core.hex(bytes)) == bytes and core.unhex(core.hex(bytes, "")) == bytes, "hex digits change")
  return true
end

local function address(text)
  local parsed = promise.result(Address.parse(text))
  if not parsed then return false end
  promise.same(parsed, Address.parse(parsed.text), "an address as it is printed")
  if not parsed.digits then return promise.that(parsed.a <= 250 or parsed.a == 254, "address %d", parsed.a) end
  promise.that(#Address.bytes(parsed.digits) == 8, "the bytes of an address")
  promise.that(Address.matches(parsed.digits, parsed.digits), "a mask that does not match itself")
  promise.that(Address.matches(("F"):rep(16), parsed.digits), "a meter that nothing matches")
  return true
end

local function escaped(value)
  return (tostring(value):gsub("[^%w.]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local WORDS = { [true] = "on", [false] = "off" }

-- The URL that means the same; where there is one.
local function url_of(parsed)
  local options = {}
  for name, value in pairs(parsed.options) do
    options[#options + 1] = name .. "=" .. (WORDS[value] or type(value) == "number" and ("%.17g"):format(value) or escaped(value))
  end
  local query = #options > 0 and "?" .. table.concat(options, "&") or ""
  if parsed.scheme == "serial" then return "serial://" .. escaped(parsed.path) .. query end
  if parsed.host then
    local host = parsed.host:find(":", 1, true) and "[" .. parsed.host .. "]" or parsed.host
    return ("%s://%s:%d%s"):format(parsed.scheme, host, parsed.port, query)
  end
  if parsed.scheme == "usb" then return ("usb://%04x:%04x%s"):format(parsed.vid, parsed.pid, query) end
end

local function url(text)
  local parsed = promise.result(transport.parse(text))
  if not parsed then return false end
  promise.that(not parsed.port or parsed.port >= 1 and parsed.port <= 65535, "a port of %s", parsed.port)
  if url_of(parsed) then promise.same(parsed, transport.parse(url_of(parsed)), "a URL as it is printed") end
  if parsed.scheme ~= "manual" then promise.result(transport.merge(parsed, { baudrate = 300, margin = "1", parity = 5 })) end
  return true
end

local function time(text)
  local parsed = promise.result(clock.parse(text))
  if not parsed then return false end
  promise.same(parsed, clock.parse(clock.text(parsed)), "a time as it is printed")
  promise.same(parsed, clock.at(clock.seconds(parsed)), "a time as seconds")
  local year = parsed.year % 100
  for kind, bytes in pairs { F = clock.type_f(parsed), I = clock.type_i(parsed) } do
    local telegram = assert(core.telegram(core.long(0x08, 1, 0x78, (kind == "F" and "\x04\x6D" or "\x06\x6D") .. bytes)))
    local expected = clock.text(parsed):gsub("^%d%d%d%d", kind == "F" and year > 80 and 1900 + year or 2000 + year)
    local value = telegram:record(0).value
    if kind == "F" then expected = expected:gsub("%d%d$", "00") end
    local leap_moved = parsed.month == 2 and parsed.day == 29 -- of a year that the two digits do not tell
    promise.that(leap_moved or value == expected, "type %s: %s and not %s", kind, value, expected)
  end
  return true
end

local function number(value) if type(value) == "number" then return value end return nil, "a number" end
local function any(value) return value end
local ALLOWED = { addr = any, id = number, scale = number, debug = any, force_reset = any }

local function tag(text)
  local values, problems = tags.parse(text, ALLOWED)
  for _, problem in ipairs(problems) do
    promise.that(type(problem.message) == "string" and problem.line >= 1 and problem.column >= 1, "a problem without a place")
    promise.that(problem.line <= select(2, text:gsub("\n", "")) + 1 and problem.column <= #text + 1, "a place beyond the text")
    promise.that(type(tags.describe(problem)) == "string", "a problem that cannot be told")
  end
  if #problems > 0 then return false end
  local parts = {}
  for name, value in pairs(values) do
    if type(value) == "string" then value = '"' .. value:gsub('[\\"]', "\\%0"):gsub("\n", "\\n") .. '"' end
    if math.type(value) == "float" then
      if value ~= value or math.abs(value) == math.huge then return true end
      value = ("%.17g"):format(value):gsub("^[-%d]+$", "%0.0")
    end
    parts[#parts + 1] = name .. "=" .. tostring(value)
  end
  local again, more = tags.parse(table.concat(parts, ","), ALLOWED)
  promise.that(#more == 0, "tags as they are printed: %s", more[1] and tags.describe(more[1]))
  promise.same(values, again, "tags as they are printed")
  return next(values) ~= nil
end

local function keys(text)
  local parsed, err = security.keys { text }
  if not promise.result(parsed, err) then
    local secret = text:match("=%s*(%x%x%x%x%x%x%x%x+)") or text:match("^%x%x%x%x%x%x%x%x+$")
    promise.that(not secret or not tostring(err):find(secret, 1, true), "a key in an error")
    return false
  end
  for meter, key in pairs(parsed) do promise.that(#key == 16 and (#meter == 8 or #meter == 16), "a key of another size") end
  return true
end

local readers = { hex, address, url, time, tag, keys }

local function run(input)
  local choose = choices.new(input)
  return choose:one_of(readers)(choose:rest())
end

local examples = {
  { "10 40 0A 4A 16", "0x680303", "68:03:03:68", "E5", "68 03 03 68 08 05 70 7D 16" },
  { "5", "250", "254", "12345678", "31892747FFFF2804", "FFFFFFFFFFFFFFFF", " 7 " },
  { "/dev/ttyUSB0", "COM3", "serial:///dev/ttyUSB0?baudrate=2400&parity=even&rts=off", "usb://1a86:55d5?serial=BC045EABCD&n=2",
    "tcp://host:10001", "tcp://[fe80::1%eth0]:10001?keepalive=0&probe=2", "udp://10.0.0.1:5/?margin=0.5",
    "rfc2217://h:2?dtr=off&negotiation_timeout=3", "sim:", "sim:file.lua", "manual:", "/dev/serial/by-id/x y?gap=1e-3" },
  { "2024-02-29T13:45", "2024-12-31 23:59:59", "1999-01-01T00:00:00", "2000-02-29T12:00" },
  { "update_interval=5000, force_reset=true", "id=3;scale=-1.5e-3", 'addr="f57072162440f102" -- the meter', "addr='a\\'b\\n', debug = false",
    "id=0x10,scale=.5", "id=1, scale=1e400" },
  { "000102030405060708090A0B0C0D0E0F", "12345678=000102030405060708090A0B0C0D0E0F",
    "5566778893445508 = 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F" },
}

local seeds = {}
for kind, texts in ipairs(examples) do
  for i, text in ipairs(texts) do seeds[kind .. "-" .. i] = string.char(kind - 1) .. text end
end

return { seeds = seeds, run = run, least = 0.15 }
