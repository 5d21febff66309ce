---The description of a bus: a Lua file that returns a table, or the table itself.
---
---    return {
---      baudrate = 2400,
---      converter = { collision = "break", echo = false },
---      meters = {
---        { address = 5, id = "12345678", manufacturer = "ABC", version = 1, medium = 7,
---          telegrams = { { records = { { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8" } } } } },
---        { telegrams = { { data = "47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01" } }, delay = 0.05 },
---      },
---    }
---
---The bus
---  baudrate   300 600 1200 2400 (default) 4800 9600 19200 38400
---  seed       integer; what is drawn (delays, bit flips) depends on it alone (default 1)
---  gap        seconds of silence after which meters give up an unfinished frame of the master (default 33 bits, at least 50 ms,
---             since a computer in between may pause)
---  meters     array of meters
---  converter  what stands between the wire and the master:
---    collision   "superpose" (default) lets the AND of the waveforms through; "break" holds the line at SPACE instead
---    break_time  seconds of that break (default 50 ms, at least 22 bits)
---    damaged     "deliver" (default) or "drop": characters with a wrong parity or stop bit never reach the master
---    echo        true: the master hears itself
---    bit_flips   probability with which a bit of an answer is turned over
---    lost        probability with which a character of an answer is lost
---    noise       { before = hex, after = hex } around each answer, { between = seconds } at which a byte of noise comes on the
---                average, as chance has it, answers or not
---    ghosts      probability with which something that nobody sent (E5, or a few bytes) comes where nobody answers
---
---A meter: who it is
---  address       primary address 0..250 (default 0, as from the factory)
---  id            8 hex digits; manufacturer: three letters or a number 0..65535; version, medium: 0..255. What is missing is
---                taken from the header of the first telegram, if that is of CI 72, else it is zero.
---  fabrication   8 hex digits: it knows enhanced selection by fabrication number (record 0C 78)
---  status, access_no  0..255, for the headers of telegrams made of records; access_no counts on with every new answer
---  telegrams     array, in the order of a readout; each one of
---    { records = { ... } }  as mbus.encode takes them. Header and the 1F of "more follow" are made; manufacturer = hex
---                           digits behind the records, after 0F (or 1F)
---    { data = hex }         what stands behind CI, header included; ci (default 0x72) and c (default 0x08) may be given
---    { frame = hex }        a whole frame, sent as it is
---  alarm         0..255: REQ_UD1 gets an alarm telegram (CI 71) with this byte instead of E5
---A meter: how it talks
---  delay         seconds from the end of the request to the answer, or { least, most }. Default { 0.03, 0.06 }, within
---                the 11 bits to 330 bits + 50 ms of EN 13757-2
---  late          seconds after the end of that window instead of a delay within it
---  baudrate      its own (default the bus's); baudrates = { ... }: what it can be switched to (default 300 to 9600);
---                fallback = seconds after which it returns to the rate before if nothing valid comes (default 120)
---  needs_nke     answers REQ_UD2 only after SND_NKE or a selection, for one readout
---  ignores_nke   does not answer SND_NKE and forgets nothing at it
---  ignores_fcb   answers every REQ_UD2 with the first telegram
---  shared_fcb    one frame count bit for its own address and 253
---  fcb_before_selection  answers a selection with an unchanged FCB with E5 without looking at it
---  mode2         MSB first: selected by CI 56 with the fields reversed, not by 52
---  short_ack     acknowledges with 10 00 A CS 16 instead of E5
---  deaf          never answers
---  babbles       sends its first telegram (or E5) unasked every so many seconds; babbles_until: seconds after which it stops
---  silent_after  number of answers, E5 included, after which it falls silent for ever
---  faults        what happens to its answers, see mbus.simulator.faults
local core = require "mbus.core"
local Error = require "mbus.error"
local capture = require "mbus.capture"

---A bus as the simulator wants it: checked, complete, telegrams as bytes.
---@class mbus.simulator.Description
---@field name string       "house", the name of the file, or "table"
---@field baudrate integer  may be changed before mbus.simulator.new; so may seed, the meters and the converter
---@field seed integer
---@field meters table[]
---@field converter table
---@field gap number?
local Description = {}

local RATES = { 300, 600, 1200, 2400, 4800, 9600, 19200, 38400 }

-- A violation is thrown as a table of its own and caught in check, so that bugs stay errors.
local Violation = {}

local function fail(path, allowed, value)
  local got = ""
  if type(value) == "string" then
    got = (", not %q"):format(value)
  elseif type(value) == "number" or type(value) == "boolean" then
    got = ", not " .. tostring(value)
  elseif value ~= nil then
    got = ", not a " .. type(value)
  end
  error(setmetatable({ message = path .. ": " .. allowed .. got }, Violation), 0)
end

-- Each checker takes (value, path) and returns the value as the simulator wants it, or fails.

local function integer(least, most)
  return function(value, path)
    if math.type(value) ~= "integer" or value < least or value > most then
      fail(path, ("a whole number from %d to %d is needed"):format(least, most), value)
    end
    return value
  end
end

local function number(least, most)
  return function(value, path)
    if type(value) ~= "number" or not (value >= least and value <= most) then
      fail(path, ("a number from %g to %g is needed"):format(least, most), value)
    end
    return value
  end
end

local function flag(value, path)
  if type(value) ~= "boolean" then fail(path, "true or false is needed", value) end
  return value
end

local function choice(allowed)
  return function(value, path)
    for _, one in ipairs(allowed) do
      if value == one then return value end
    end
    return fail(path, "one of " .. table.concat(allowed, ", ") .. " is needed", value)
  end
end

local function bytes(least, most)
  return function(value, path)
    local text = type(value) == "string" and core.unhex(value)
    if not text or #text < least or #text > most then
      fail(path, ("hex digits of %d to %d bytes are needed"):format(least, most), value)
    end
    return text
  end
end

local function digits(value, path)
  if math.type(value) == "integer" and value >= 0 and value <= 99999999 then value = ("%08d"):format(value) end
  if type(value) ~= "string" or not value:find("^%x%x%x%x%x%x%x%x$") then fail(path, "8 hex digits are needed", value) end
  return value:upper()
end

-- Three letters of five bits each (EN 62056-21).
local function manufacturer(value, path)
  if math.type(value) == "integer" and value >= 0 and value <= 0xFFFF then return value end
  if type(value) ~= "string" or not value:find("^[A-Z][A-Z][A-Z]$") then
    fail(path, "three capital letters or a number from 0 to 65535 are needed", value)
  end
  local a, b, c = value:byte(1, 3)
  return (a - 64) << 10 | (b - 64) << 5 | (c - 64)
end

local function seconds_or_range(value, path)
  if type(value) == "number" then return number(0, 3600)(value, path) end
  if type(value) ~= "table" or #value ~= 2 then fail(path, "seconds or { least, most } are needed", value) end
  local least = number(0, 3600)(value[1], path .. "[1]")
  return { least, number(least, 3600)(value[2], path .. "[2]") }
end

local function array(of)
  return function(value, path)
    if type(value) ~= "table" then fail(path, "an array is needed", value) end
    local checked = {}
    for i, item in ipairs(value) do checked[i] = of(item, ("%s[%d]"):format(path, i)) end
    for key in pairs(value) do
      if not checked[key] then fail(path, ("an array has no field %q"):format(tostring(key))) end
    end
    return checked
  end
end

local function sorted_names(fields)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

local function fields(schema)
  return function(value, path)
    if type(value) ~= "table" then fail(path, "a table is needed", value) end
    local checked = {}
    for name, item in pairs(value) do
      if not schema[name] then
        fail(path, ("no field %q; allowed are %s"):format(tostring(name), sorted_names(schema)))
      end
      checked[name] = schema[name](item, (path ~= "" and path .. "." or "") .. name)
    end
    return checked
  end
end

local function record(value, path)
  if type(value) ~= "table" then fail(path, "a table is needed", value) end
  local ok, encoded = Error.pcall(core.record, value)
  if not ok then fail(path, (tostring(encoded):gsub("^.-bad argument #1 to '[^']*' %((.*)%)$", "%1"))) end
  return encoded
end

local telegram_fields = fields {
  frame = bytes(1, 1024),
  data = bytes(0, 252),
  ci = integer(0, 255),
  c = integer(0, 255),
  records = array(record),
  manufacturer = bytes(0, 240),
}

local HEADER = 12 -- id, manufacturer, version, medium, access number, status, configuration

local function telegram(value, path)
  local checked = telegram_fields(value, path)
  local forms = (checked.frame and 1 or 0) + (checked.data and 1 or 0) + (checked.records and 1 or 0)
  if forms ~= 1 then fail(path, "exactly one of frame, data and records is needed") end
  if checked.records then
    checked.records = table.concat(checked.records)
    local size = HEADER + #checked.records + 1 + #(checked.manufacturer or "")
    if size > 252 then fail(path, ("a telegram holds 252 bytes, these need %d"):format(size)) end
  end
  return checked
end

local meter_fields = fields {
  address = integer(0, 250),
  id = digits,
  manufacturer = manufacturer,
  version = integer(0, 255),
  medium = integer(0, 255),
  fabrication = digits,
  status = integer(0, 255),
  access_no = integer(0, 255),
  telegrams = array(telegram),
  alarm = integer(0, 255),
  delay = seconds_or_range,
  late = number(0, 3600),
  baudrate = choice(RATES),
  baudrates = array(choice(RATES)),
  fallback = number(0, 86400),
  needs_nke = flag,
  ignores_nke = flag,
  ignores_fcb = flag,
  shared_fcb = flag,
  fcb_before_selection = flag,
  mode2 = flag,
  short_ack = flag,
  deaf = flag,
  babbles = number(0.001, 86400),
  babbles_until = number(0, 1e9),
  silent_after = integer(0, 1000000000),
  faults = fields {
    checksum = flag,
    truncate = integer(0, 261),
    address = integer(0, 255),
    leading = bytes(1, 64),
    trailing = bytes(1, 64),
    gap = number(0, 60),
    stale = flag,
    bit_flips = number(0, 1),
    lost = number(0, 1),
    cut = number(0, 1),
    glued = flag,
    answers = integer(1, 1000000000),
    acknowledgements = flag,
  },
}

-- Id, manufacturer, version and medium as they stand in a header of CI 72.
local function header_of(first)
  local ci, data
  if first and first.data then
    ci, data = first.ci or 0x72, first.data
  elseif first and first.frame then
    local frame = core.frame(first.frame)
    ci, data = frame and frame.ci, frame and frame.data
  end
  return ci == 0x72 and #data >= 8 and data or "\0\0\0\0\0\0\0\0"
end

local function meter(value, path)
  local checked = meter_fields(value, path)
  checked.address = checked.address or 0
  checked.telegrams = checked.telegrams or {}
  local id, man, version, medium = ("<I4I2BB"):unpack(header_of(checked.telegrams[1]))
  checked.id = checked.id or ("%08X"):format(id)
  checked.manufacturer = checked.manufacturer or man
  checked.version = checked.version or version
  checked.medium = checked.medium or medium
  return checked
end

local bus = fields {
  baudrate = choice(RATES),
  seed = integer(math.mininteger, math.maxinteger),
  gap = number(0, 60),
  meters = array(meter),
  converter = fields {
    collision = choice { "superpose", "break" },
    break_time = number(0, 10),
    damaged = choice { "deliver", "drop" },
    echo = flag,
    bit_flips = number(0, 1),
    lost = number(0, 1),
    noise = fields { before = bytes(1, 64), after = bytes(1, 64), between = number(0.001, 86400) },
    ghosts = number(0, 1),
  },
}

---@param value any      what a description file returns
---@param name? string   file or other name for messages
---@return mbus.simulator.Description? description
---@return mbus.Error? err  kind "invalid", naming the path of the field and what is allowed
function Description.check(value, name)
  if getmetatable(value) == Description then return value end
  local ok, result = pcall(bus, value, "")
  if not ok then
    if getmetatable(result) ~= Violation then error(result, 0) end
    local message = result.message:gsub("^: ", "")
    return nil, Error.new("invalid", (name and name .. ": " or "") .. message)
  end
  result.name = name or "table"
  result.baudrate = result.baudrate or 2400
  result.seed = result.seed or 1
  result.meters = result.meters or {}
  result.converter = result.converter or {}
  return setmetatable(result, Description)
end

-- All that a description can use: no files, no programs, no modules.
local function environment()
  local env = { assert = assert, error = error, ipairs = ipairs, pairs = pairs, select = select, tonumber = tonumber,
    tostring = tostring, type = type, math = {}, string = {}, table = {} }
  for name in pairs(env) do
    if type(env[name]) == "table" then
      for key, item in pairs(_G[name]) do env[name][key] = item end
    end
  end
  return env
end

local function open_error(path, message, code)
  local kinds = { [2] = "not_found", [13] = "permission" } -- ENOENT, EACCES
  return Error.new(kinds[code] or "io", ("%s: %s"):format(path, message:gsub("^.*: ", "")))
end

-- A capture of another bus is a description too.
local function read_capture(text, path)
  local captured, err = capture.parse(text)
  if not captured then return nil, Error.new("invalid", ("%s: %s"):format(path, err.message)) end
  return Description.check(require("mbus.simulator.script").description(captured), path)
end

---@param path string  of a description, or of a capture (see mbus.capture)
---@return mbus.simulator.Description? description
---@return mbus.Error? err  kinds "not_found", "permission", "io", "invalid"
function Description.read(path)
  local file, message, code = io.open(path, "rb")
  if not file then return nil, open_error(path, message, code) end
  local text, read_message, read_code = file:read("a")
  file:close()
  if not text then return nil, open_error(path, read_message, read_code) end
  if capture.is_capture(text) then return read_capture(text, path) end
  local chunk, syntax = load(text, "@" .. path, "t", environment())
  if not chunk then return nil, Error.new("invalid", syntax) end
  local ok, value = pcall(chunk)
  if not ok then return nil, Error.new("invalid", tostring(value)) end
  if type(value) ~= "table" then
    return nil, Error.new("invalid", path .. ": the file must return a table, it returns " .. type(value))
  end
  return Description.check(value, path)
end

return Description
