---Scenarios for memory.c: each returns a text that is the same whenever it runs. An error that the world caused would be in
---it; that memory ran out raises.
local core = require "mbus.core"
local mbus = require "mbus"

local M = {}

local HEAT = assert(core.unhex("68 5E 5E 68 08 00 72 47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01 0C 12 91 72 64 02"
  .. "0C 2A 00 00 00 00 0B 3A 00 00 00 0A 5A 22 05 0A 5E 23 04 0A 62 99 00 04 6D 21 16 0A 39 4C 05 30 78 11 00 44 6D 00 00 1E 14"
  .. "44 ED 7E 00 00 3F 1C 8C 01 05 20 30 69 01 84 01 6D 00 00 FF 2C 0B 26 02 03 16 F5 16"))
local KEY = ("\1"):rep(16)

local function bus_of(count)
  local meters = {}
  for i = 1, count do
    meters[i] = { address = i, id = ("%08d"):format(i), manufacturer = "ABC", version = 1, medium = 7, delay = 0.03,
      telegrams = { { records = { { quantity = "volume", unit = "m3", value = i, data = "bcd8" } } },
        { records = { { quantity = "energy", unit = "Wh", value = 1000 * i, data = "int32" } } } } }
  end
  return assert(mbus.open(assert(mbus.simulator.new { meters = meters })))
end

local function text_of(readout)
  local lines = { readout.id }
  for _, record in readout:records() do lines[#lines + 1] = record.quantity .. "=" .. tostring(record.value) end
  return table.concat(lines, " ")
end

---Frames, records as tables and one by one, text of all formats, texts from hex.
function M.decode()
  local telegram = assert(mbus.decode(HEAT, { formats = {} }))
  local parts = { telegram.secondary_address }
  for _, record in telegram:records() do
    parts[#parts + 1] = ("%s %s %s"):format(record.quantity, record.value, record.unit)
  end
  for index, quantity, value in telegram:each() do parts[#parts + 1] = ("%d %s %s"):format(index, quantity, value) end
  parts[#parts + 1] = require("mbus.format.json").telegram(telegram, {})
  local events = core.deframer():feed("\x10\x40" .. HEAT .. ("\0"):rep(150))
  parts[#parts + 1] = #events .. core.hex(events[#events].bytes)
  return table.concat(parts, "\n")
end

---Explains, and prints as a table.
function M.format()
  local telegram = assert(mbus.decode(HEAT))
  return require("mbus.format.table").telegram(telegram, {}) .. require("mbus.format.annotated").bytes(HEAT, {})
end

---Records to bytes, encrypted and back.
function M.encode()
  local security, encode = require "mbus.security", mbus.encode
  local records = encode.record { quantity = "volume", unit = "m3", value = 12.5, data = "bcd8" }
    .. encode.record { quantity = "datetime", value = "2024-02-29T13:45", data = "datetime" }
  local ci, data = assert(security.encrypt(records, KEY, { address = "1234567824400107", access_no = 1 }))
  local plain, err = security.decrypt(core.long(0x53, 1, ci, data), KEY)
  if not plain then return tostring(err) end
  local mac = require("mbus.aes").cmac(KEY, data)
  return core.hex(plain .. mac)
end

---Opens a bus, reads a meter of two telegrams by both kinds of address, misses one, and closes.
function M.read()
  local bus <close> = bus_of(2)
  local lines = {}
  for i, address in ipairs { 1, "00000002", 9 } do
    local readout, err = bus:read(address, { retries = 0 })
    lines[i] = readout and text_of(readout) or tostring(err)
  end
  return table.concat(lines, "\n")
end

local function addresses(count, options)
  local bus <close> = bus_of(count)
  local lines = {}
  for meter in bus:scan(options) do lines[#lines + 1] = tostring(meter.address) end
  return table.concat(lines, " ")
end

---Scans a bus by primary addresses: two are there, one is not.
function M.scan() return addresses(2, { range = "1-3" }) end

---Scans it by secondary ones, with a collision to resolve.
function M.search() return addresses(2, { secondary = true }) end

---Values into a meter, and out of it.
function M.write()
  local bus <close> = bus_of(1)
  local done, err = bus:set_address(1, 7)
  if not done then return tostring(err) end
  return text_of(assert(bus:read(7)))
end

---What a stranger wrote, with a limit of its own to its memory.
function M.sandbox()
  local code = "local t = {} for i = 1, 20 do t[i] = ('x'):rep(i) end return #t"
  local chunk = assert(require("mbus.gateway.sandbox").load(code, "@x"))
  local ok, value = require("mbus.gateway.sandbox").call(chunk)
  return tostring(ok) .. tostring(value)
end

local MASTER = { "mbus", "mbus.bus", "mbus.encode", "mbus.security", "mbus.simulator", "mbus.format.json", "mbus.format.xml" }

local function modules(belongs)
  for _, name in ipairs(MASTER) do require(name) end
  local list = {}
  for name in pairs(package.loaded) do
    if name:find "^mbus" and name ~= "mbus.core" and belongs(name) then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

-- Loads modules of a master anew: what is half loaded must not stay.
local function reloading(belongs)
  local list
  return function()
    list = list or modules(belongs)
    for _, name in ipairs(list) do package.loaded[name] = nil end
    local loaded = {}
    for i, name in ipairs(list) do loaded[i] = name .. type(require(name)) end
    return table.concat(loaded, " ")
  end
end

local function is_procedure(name) return name:find "^mbus%.procedure%." end

local function is_scan(name) return name:find "^mbus%.procedure%.scan" end

local function is_below(name) return name:find "%..*%." end

-- All of them, in parts: the time goes with the square of what is loaded.
M.load = reloading(function(name) return not is_below(name) end)
M.loadproc = reloading(function(name) return is_procedure(name) and not is_scan(name) end)
M.loadscan = reloading(is_scan)
M.loadmore = reloading(function(name) return is_below(name) and not is_procedure(name) end)

---A pseudo-terminal as a serial port: what libserialport allocates may be missing too.
function M.serial()
  local serial = require "mbus.serial"
  local pty <close>, path = assert(serial.pty())
  local port <close>, problem = serial.open(path, { baudrate = 2400 })
  if not port then return tostring(problem) .. " memory?" end
  local ports, trouble = serial.ports()
  if not ports then return tostring(trouble) end
  pty:write("abc")
  return port:read(10) or ""
end

return M
