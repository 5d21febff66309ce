---Tables that a user wrote, with anything in any place: configs, exports, descriptions of a bus, records, states of scans.
local choices = require "spec.robust.choices"
local config = require "mbus.gateway.config"
local core = require "mbus.core"
local Description = require "mbus.simulator.description"
local export = require "mbus.freeclient.config"
local json = require "dkjson"
local mbus = require "mbus"
local promise = require "spec.robust.promise"

-- --- gateway configs

local CONFIG = { connections = {
  { name = "house", type = "serial", port = "/dev/ttyUSB0", baudrate = 2400, parity = "even", data_bits = 8, period = 300000,
    options = { nke = true, margin = 0.1, keys = { ["12345678"] = ("00"):rep(16) } }, bindings = {
      { name = "energy", tag = "house/energy", address = 5, index = 1, unit = "Wh",
        transformation = { type = "scaling", factor = 0.001, unit = "kWh" } },
      { name = "flow", address = "3189274724232804", find = { quantity = "volume_flow", modifiers = { "average" } }, report = "change",
        transformation = { { type = "limit", min = 0, max = 10 }, { type = "default", value = 0 } } },
      { name = "address", address = 7, access = "W", write = { quantity = "bus_address", data = "int8" }, dead_band = 1 },
    } },
  { name = "spare", type = "tcp", host = "10.0.0.5", port = 10001, master = "house", regain_interval = 1000 },
  { name = "third", type = "tcp://[fe80::1]:10001?keepalive=0", master = "spare", bindings = {} },
} }

local function check_problems(err)
  promise.that(type(err.problems) == "table" and #err.problems > 0, "a refusal without problems")
  for _, problem in ipairs(err.problems) do
    promise.that(type(problem.path) == "string" and type(problem.message) == "string", "a problem without place or text")
  end
end

local function check_config(choose)
  local value = choose:change(CONFIG)
  local checked, err = config.check(value, { source = "x.lua" })
  promise.result(checked, err)
  if err then check_problems(err) end
  if type(value) ~= "table" or getmetatable(value) then return false end -- no part of that can be trusted
  local tolerant = promise.that(config.check(value, { tolerant = true }), "a tolerant check refuses a table")
  promise.that((#tolerant.problems == 0) == (checked ~= nil), "tolerant and strict do not agree")
  for _, connection in ipairs(tolerant.connections) do
    promise.that(type(connection.name) == "string" and type(connection.url) == "string", "a connection without name or url")
    promise.result(require("mbus.transport").parse(connection.url))
  end
  return checked ~= nil
end

-- Lua text, as it is read from a file.
local CONFIG_TEXT = [[
-- a config
local meters = { 5, 7, "3189274724232804" }
local bindings = {}
for i, address in ipairs(meters) do bindings[i] = { name = "m" .. i, address = address, index = 0 } end
return { connections = { { name = ("house"):upper(), type = "serial", port = "/dev/ttyUSB0", bindings = bindings } } }
]]

local function with_file(text, fn)
  local open = io.open
  io.open = function() return { read = function() return text end, close = function() end } end -- luacheck: ignore 122
  local results = table.pack(pcall(fn))
  io.open = open -- luacheck: ignore 122
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

local function check_text(choose)
  local text = choose:bend(CONFIG_TEXT)
  local value, err = with_file(text, function() return config.read("x.lua") end)
  return promise.result(value, err) ~= nil
end

-- --- exports of a BACRouter

local EXPORT = { type = 1, name = "house", description = "a bus", enable = true, resource = "RS485-1", baudrate = "2400", parity = "even",
  tag = "update_interval=5000, force_reset=true, timeout=100", script = { ["bus.lua"] = "return 1" }, fcdevices = {
    { name = "heat", tag = 'addr="f57072162440f102"', enable = true, fcpoints = {
      { name = "energy", object_type = "ai", tag = "id=0, scale=0.1, offset=2", description = "of the year" },
      { name = "state", object_type = "mv", tag = "id=7", value_type = 0, number_of_states = 3, state_texts = { "a", "b", "c" } },
      { name = "off", object_type = "bo", tag = "id=3", enable = false } } },
    { name = "water", tag = "addr=5, timeout=300", fcpoints = { { name = "volume", tag = "id=1" } } } } }
local SERVED = { type = "tcp", name = "far", server = "10.0.0.5:10001", tag = "", fcdevices = EXPORT.fcdevices }

local function plain(value) -- what JSON can hold
  if type(value) ~= "table" then
    local kind = type(value)
    return (kind == "string" or kind == "boolean" or kind == "number" and value == value and math.abs(value) < math.huge) and value or nil
  end
  if getmetatable(value) then return {} end
  local result = {}
  for key, item in pairs(value) do result[key == true and "true" or key] = plain(item) end
  return result
end

local function check_export(choose)
  local document = choose:one_of { EXPORT, { buses = { EXPORT, SERVED } }, { EXPORT, EXPORT } }
  local text = json.encode(plain(choose:change(document)))
  if choose:below(4) == 0 then text = choose:bend(text) end
  promise.result(export.buses(text, "x.json"))
  local value, err = export.decode(text, "x.json")
  if not promise.result(value, err) then
    if err.problems then promise.that(type(err.problems[1]) == "string", "a refusal without problems") end
    return false
  end
  local checked, refusal = config.check(value)
  promise.that(checked, "what is made of an export is refused: %s", refusal)
  return true
end

-- --- descriptions of a bus

local BUS = { baudrate = 2400, seed = 3, gap = 0.05, converter = { collision = "break", echo = false, noise = { between = 10 } }, meters = {
  { address = 5, id = "12345678", manufacturer = "ABC", version = 1, medium = 7, delay = { 0.03, 0.06 }, faults = { lost = 0.1, answers = 2 },
    telegrams = { { records = { { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8" },
      { quantity = "datetime", value = "2024-02-29T12:00", data = "datetime" } }, manufacturer = "01 02" } } },
  { address = 6, telegrams = { { data = "47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01" }, { frame = "E5" } }, delay = 0.05 },
  { address = 7, fabrication = "87654321", mode2 = true, babbles = 5, babbles_until = 10, baudrates = { 300, 2400 }, alarm = 3 } } }

local function check_description(choose)
  local value = choose:change(BUS)
  local described, err = Description.check(value, "x.lua")
  if not promise.result(described, err) then return false end
  promise.that(described == Description.check(described), "a description is not its own description")
  local bus <close> = promise.that(mbus.open(promise.that(mbus.simulator.new(value))))
  promise.result(bus:read(choose:one_of { 5, 6, 7, "12345678" }, { retries = 0 }))
  return true
end

-- --- records

local RECORDS = {
  { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8", storage = 3, tariff = 1, subunit = 2 },
  { quantity = "energy", unit = "Wh", value = 1000, data = "int32", ["function"] = "maximum", flags = { "summer_time" } },
  { quantity = "datetime", value = "2024-02-29T12:00", data = "datetime" }, { quantity = "date", value = "2024-02-29" },
  { quantity = "plain_text", unit = "pcs", value = 7 }, { vif = "\x13", raw = 7, data = "int16" },
  { quantity = "customer", value = "abc", data = "text" }, { quantity = "flow_temperature", unit = "°C", value = 21.5, data = "real32" },
  { quantity = "volume", unit = "m3", value = 5, modifiers = { "backward_flow" }, data = "binary" },
  { raw_dif_hex = "0C", raw_vif_hex = "13", raw_data_hex = "AB CD EF 01" },
}

local function check_record(choose)
  local wanted = choose:change(choose:one_of(RECORDS))
  if type(wanted) ~= "table" then return false end
  local ok, bytes = pcall(core.record, wanted)
  if not ok then
    promise.that(type(bytes) == "string" and not bytes:find("memory"), "not a word of what is wrong: %s", tostring(bytes))
    return false
  end
  if #bytes > 252 then return false end
  local telegram = promise.that(core.telegram(core.long(0x08, 1, 0x78, bytes)), "no telegram")
  promise.that(not telegram.error and #telegram == 1, "a record that cannot be read")
  local record = telegram:record(0)
  if getmetatable(wanted) then return true end
  promise.that(rawget(wanted, "quantity") == nil or wanted.vif or wanted.raw_vif_hex or record.quantity == wanted.quantity, "another quantity")
  promise.that(math.type(wanted.storage) ~= "integer" or record.storage == wanted.storage, "another storage number")
  if math.type(wanted.value) == "integer" and type(record.value) == "number" and not (wanted.vif or wanted.raw_vif_hex)
    and wanted.data ~= "real32" then
    promise.that(record.value == wanted.value, "%s is read as %s", wanted.value, record.value)
  end
  return true
end

-- --- states of scans

local STATES = {}

local function scan(options)
  local meters = {}
  for i = 1, 3 do
    meters[i] = { address = i, id = ("1234567%d"):format(i), manufacturer = "ABC", version = 1, medium = 7,
      telegrams = { { records = { { quantity = "volume", value = i, data = "int8" } } } } }
  end
  local bus <close> = promise.that(mbus.open(promise.that(mbus.simulator.new { meters = meters })))
  local search, err = bus:scan(options)
  if not search then return nil, err, 0 end
  local count = 0
  while count < 100 do
    local found = search()
    if not found then break end
    count = count + 1
  end
  return search.result, search.error, count
end

local function state_of(secondary)
  if STATES[secondary] then return STATES[secondary] end
  local states = {}
  scan { secondary = secondary, range = not secondary and "1-4" or nil,
    save = function(state) states[#states + 1] = json.encode(state) end }
  STATES[secondary] = states
  return states
end

local function check_state(choose)
  local secondary = choose:below(2) == 1
  local states = state_of(secondary)
  local state = json.decode(choose:one_of(states))
  state = json.decode(json.encode(plain(choose:change(state))) or "{}")
  local options = { secondary = secondary, range = not secondary and "1-4" or nil, resume = state }
  if type(state) ~= "table" then return false end
  local ok, result, err, count = pcall(scan, options)
  promise.that(ok, "a state breaks the scan: %s", result)
  promise.result(result, err)
  promise.that(count < 100, "meters without end")
  return result ~= nil
end

local readers = { check_config, check_text, check_export, check_description, check_record, check_state }

local function run(input)
  local choose = choices.new(input)
  return choose:one_of(readers)(choose)
end

local seeds = {}
for kind = 0, #readers - 1 do
  seeds["valid-" .. kind] = string.char(kind)
  for i = 1, 12 do seeds[("changed-%d-%d"):format(kind, i)] = string.char(kind, i % 10, 1 + i % 3, i * 7, i, i * 3, 1, i % 6, i, i * 11, 2, 5, i, 9) end
end

-- What was found: the name of a port with a control character in an export.
seeds["found-port"] = "\x02uno\xA7t\x94enoghu oo"
-- And names that are too long together.
seeds["found-name"] = "\x02\x00\x02\x46\x0A\x1E\x01\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x04\x0A\x6E\x02\x05\x0A\x09"
-- Or that of a port alone.
seeds["found-resource"] = "\x02\x00\x02\x46\x0A\x1E\x01\x66\x66\x4D\x66\x66\x66\x72\x65\x72\x65\x73\x6F\x6C\x75\x74\x69\x6F\x6E\x73\x6F"

-- A port whose name begins with a control character.
seeds["found-control"] = "\x02uno\xA7t\x94*hegnSSSSSSSSumio"

-- Connections that have a metatable, and a host that is no UTF-8.
seeds["found-endless"] = "\x42\x32\x55\x05date7\x10\x00\xB7\x02<<<<<<<<\x09euT"
seeds["found-host"] = "\x02\x07\x16\xFF\xFF\xFF\xFF\xFF\x16\x16\x16bcd8\xFF\xFF\xD8\x16\xE8&\x00a\x8BBhundred_uxx\x07\x02"

-- A quantity whose name goes on behind a NUL.
seeds["found-nul"] = "\x04\x3F\x09\x1B\x01\x64\x64\x02\x09\x05\x05\x05\x43\x05"

-- A record whose raw data is not as long as its DIF says.
seeds["found-length"] = "\x04\x27\x61\xFD\x0E\xD2\x5A\x55\x00\x00\x02\x01\x74\x61" .. ("\x86"):rep(17)
  .. "\xE7\xEE\xEE\xEE\x05\xF8\xFC\xFF\x1A\xFA\x09"

-- A bus whose name is a control character, and a state of a scan that has a list with a hole.
seeds["found-blank"] = "\x02\x75\x2F\x6E\x6F\xA7\x74\x94\x41\x2A\x68\x96\x67\x6E\x75\x20\x6F\x6F"
seeds["found-hole"] = "\x77" .. ("\xFF"):rep(13) .. "\x62\xAF\x04\x42\x01\x77\x62\xAF\x65\x09"

return { seeds = seeds, run = run, least = 0.3 }
