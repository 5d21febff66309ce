---Telegrams and readouts as XML, in the shape of libmbus' normalized MBusData document, so that what reads that goes on.
---
---    local xml = require "mbus.format.xml"
---    print(xml.telegram(mbus.decode(bytes)))
---    print(xml.readout(bus:read(5), { time = os.time() }))
---
---Elements, attributes, their order and the record ids are those of libmbus, and so are the names of units, quantities and
---media where it has one. On purpose different are
---
--- * numbers: all digits that the meter sends and no others, where libmbus prints six places and the rounding of its double;
--- * the encoding, which is the UTF-8 that it says it is; characters that XML cannot carry are replaced by ?;
--- * values that libmbus gets wrong: no Value where there is none (an unset date, letters among BCD digits, "not
---   available", a record error, which libmbus prints as numbers or as 2000-00-00); VIFEs that scale, and those that turn a
---   number into a date, a duration or a count; units that a VIFE extends (Wh/h); months and years, which stay what they are;
--- * quantities and units that are new since 2004 or that libmbus calls "Reserved" or leaves out with the whole record; the
---   duration of a tariff is called so and not "Storage interval";
--- * the fixed structure: the status bits that say BCD or binary, actual or stored; the unit "same as the other, historic"
---   is the unit of the other counter with the function "Stored value";
--- * ProductName, which libmbus looks up in a list of its own and which no meter sends, is there and empty.
---
---The Z behind a date and time is kept, because programs look for it; meters send local time.
local decode = require "mbus.decode"
local Error = require "mbus.error"
local number = require "mbus.format.number"

local M = {}

local DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'

---@class mbus.format.xml.Options
---@field time? integer  when it was read, in seconds since 1970: gives every record a Timestamp

--- Text ---------------------------------------------------------------------------------------------------------

local ENTITY = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["\r"] = "&#13;" }

-- XML 1.0, 2.2 has no room for most control characters, and none for bytes that are no UTF-8.
local function escape(content)
  local text = tostring(content)
  if not utf8.len(text) then text = text:gsub("[\x80-\xFF]", "?") end
  text = text:gsub("\xEF\xBF[\xBE\xBF]", "?"):gsub("[\0-\8\11\12\14-\31]", "?")
  return (text:gsub('[&<>"\r]', ENTITY))
end

local function add(out, name, content)
  out[#out + 1] = ("        <%s>%s</%s>"):format(name, escape(content), name)
end

local function add_known(out, name, content)
  if content ~= nil then add(out, name, content) end
end

local function comment(text) return "    <!-- " .. escape(text):gsub("%-%-+", "-") .. " -->" end

--- Slave --------------------------------------------------------------------------------------------------------

local MEDIUM = {
  [0] = "Other", "Oil", "Electricity", "Gas", "Heat: Outlet", "Steam", "Warm water (30-90°C)", "Water",
  "Heat Cost Allocator", "Compressed Air", "Cooling load meter: Outlet", "Cooling load meter: Inlet", "Heat: Inlet",
  "Heat / Cooling load meter", "Bus/System", "Unknown Medium", "Irrigation Water", "Water Logger", "Gas Logger",
  "Gas Converter", "Calorific value", "Hot water (>90°C)", "Cold water", "Dual water", "Pressure", "A/D Converter",
  "Smoke Detector", "Ambient Sensor", "Gas Detector",
  [0x20] = "Breaker: Electricity", [0x21] = "Valve: Gas or Water", [0x25] = "Customer Unit: Display Device",
  [0x28] = "Waste Water", [0x29] = "Garbage", [0x36] = "Radio Converter: System", [0x37] = "Radio Converter: Meter",
}

-- Of the fixed structure.
local FIXED_MEDIUM = {
  [0] = "Other", "Oil", "Electricity", "Gas", "Heat", "Steam", "Hot Water", "Water", "H.C.A.", "Reserved", "Gas Mode 2",
  "Heat Mode 2", "Hot Water Mode 2", "Water Mode 2", "H.C.A. Mode 2", "Reserved",
}

local function capital(text) return (text:gsub("^%l", string.upper)) end

local function medium(telegram)
  local names = telegram.header == "fixed" and FIXED_MEDIUM or MEDIUM
  return names[telegram.medium] or telegram.medium_name and capital(telegram.medium_name)
end

-- EN 13757-3, application errors. The accent in two of them is libmbus'.
local APPLICATION_ERROR = {
  [0] = "Unspecified error", "Unimplemented CI-Field", "Buffer too long, truncated", "Too many records",
  "Premature end of record", "More than 10 DIFE´s", "More than 10 VIFE´s", "Reserved", "Application busy", "Too many readouts",
}

local function application_error(failure)
  return APPLICATION_ERROR[failure.code] or capital((failure.name:gsub("_", " ")))
end

local function hex(format, value) return value and format:format(value) end

local function add_slave(out, telegram)
  out[#out + 1] = "    <SlaveInformation>"
  -- As a number, which it seldom is not: without the zeros in front.
  add_known(out, "Id", telegram.id and telegram.id:gsub("^0+(%x)", "%1"))
  add_known(out, "Manufacturer", telegram.manufacturer)
  add_known(out, "Version", telegram.version)
  if telegram.manufacturer then add(out, "ProductName", "") end
  add_known(out, "Medium", medium(telegram))
  add_known(out, "AccessNumber", telegram.access_no)
  add_known(out, "Status", hex("%02X", telegram.status))
  add_known(out, "Signature", hex("%04X", telegram.signature))
  if telegram.application_error then add(out, "Error", application_error(telegram.application_error)) end
  out[#out + 1] = "    </SlaveInformation>\n"
end

--- Names of records ---------------------------------------------------------------------------------------------

local FUNCTION = {
  instantaneous = "Instantaneous value", maximum = "Maximum value", minimum = "Minimum value",
  error = "Value during error state",
}

-- Where libmbus' name is not ours with blanks and a capital.
local QUANTITY = {
  date = "Time point (date)", datetime = "Time point (date & time)", hca = "H.C.A.",
  averaging_duration = "Averaging Duration", actuality_duration = "Actuality Duration",
  fabrication_number = "Fabrication No", identification = "(Enhanced) Identification", bus_address = "Bus Address",
  any_vif = "Any VIF", access_number = "Access Number (transmission count)", medium = "Device type",
  parameter_set_id = "Parameter set identification", model_version = "Model / Version",
  access_code_user = "Access Code User", access_code_operator = "Access Code Operator",
  access_code_system_operator = "Access Code System Operator", access_code_developer = "Access Code Developer",
  digital_output = "Digital Output", digital_input = "Digital Input", baud_rate = "Baudrate",
  first_storage_number = "First storage # for cyclic storage", last_storage_number = "Last storage # for cyclic storage",
  storage_block_size = "Size of storage block", duration_since_readout = "Duration since last readout",
  tariff_start = "Start of tariff", tariff_duration = "Duration of tariff", tariff_period = "Period of tariff",
  day_change_time = "Time point of day change", parameter_activation = "State of parameter activation",
  duration_since_cumulation = "Duration since last cumulation", battery_operating_time = "Operating time battery",
  battery_change = "Date and time of battery change", temperature_limit = "Cold / Warm Temperature Limit",
  cumulated_max_power = "Cumul count max power", rf_level = "RF level",
}

-- Ours to libmbus', of what comes before any "/h" and the like.
local UNIT = {
  m3 = "m^3", ft3 = "feet^3", gal = "American gallon", hca = "Units for H.C.A.", currency = "Currency units", Bd = "Baud",
  bittime = "Bittimes",
}

local WITH_DASH = { date = true, datetime = true, time = true } -- types

local function unit_of(record)
  local unit = record.unit
  if record.quantity == "reserved" then return "Reserved" end
  if not unit then return (WITH_DASH[record.type] or WITH_DASH[record.quantity]) and "-" or "" end
  local base, rest = unit:match("^([^/*]*)(.*)$")
  return (UNIT[base] or base) .. rest:gsub("m3", "m^3")
end

-- A unit in plain text is, for libmbus, the quantity.
local function names_of(record)
  if record.quantity == "plain_text" then return "-", record.unit or "" end
  return unit_of(record), QUANTITY[record.quantity] or capital((record.quantity:gsub("_", " ")))
end

--- Values -------------------------------------------------------------------------------------------------------

local function spaced(digits) return (digits:upper():gsub("%x%x", "%0 "):gsub(" $", "")) end

local function value_of(record)
  if record.value == nil then return "" end
  if record.type == "datetime" then return record.value .. "Z" end
  if record.type == "bytes" then return spaced(record.value) end
  if record.type == "string" then return (record.value:gsub("%z+$", "")) end
  return number.text(record) or record.value
end

--- Fixed structure ----------------------------------------------------------------------------------------------

-- Nine units of each kind, code 02 on (EN 1434-3); libmbus leaves powers of ten in the unit here.
local FIXED_UNITS = {
  { "Wh", "kWh", "MWh" }, { "kJ", "MJ", "GJ" }, { "W", "kW", "MW" }, { "kJ/h", "MJ/h", "GJ/h" }, { "ml", "l", "m^3" },
  { "ml/h", "l/h", "m^3/h" },
}
local FIXED_UNIT = {
  [0x00] = "h,m,s", [0x01] = "D,M,Y", [0x38] = "1e-3 °C", [0x39] = "units for HCA", [0x3F] = "without units",
}
local SAME_AS_OTHER = 0x3E

local function fixed_unit(code)
  if code < 0x02 or code > 0x37 then return FIXED_UNIT[code] or "reserved" end
  local kind, step = FIXED_UNITS[(code - 2) // 9 + 1], (code - 2) % 9
  return ({ [0] = "", "10 ", "100 " })[step % 3] .. kind[step // 3 + 1]
end

local function code_of(record) return tonumber(record.raw_vif_hex, 16) end

---@param other? mbus.Record  the counter beside this one
local function add_fixed_record(out, record, other)
  local code = code_of(record)
  if code == SAME_AS_OTHER and other then code = code_of(other) end
  add(out, "Function", record.storage > 0 and "Stored value" or "Actual value")
  add(out, "Unit", fixed_unit(code))
  add(out, "Value", record.type == "number" and record.value ~= nil and record.raw or value_of(record))
end

--- Records ------------------------------------------------------------------------------------------------------

local function add_variable_record(out, record)
  local unit, quantity = names_of(record)
  add(out, "Function", FUNCTION[record["function"]])
  add(out, "StorageNumber", record.storage)
  if #record.raw_dif_hex > 2 then -- there are DIFEs
    add(out, "Tariff", record.tariff)
    add(out, "Device", record.subunit)
  end
  add(out, "Unit", unit)
  add(out, "Quantity", quantity)
  add(out, "Value", value_of(record))
end

---DIF 0F or 1F with all behind it, which libmbus counts as a record.
local function add_manufacturer_data(out, telegram)
  add(out, "Function", telegram.more_records_follow and "More records follow" or "Manufacturer specific")
  add(out, "StorageNumber", 0)
  add(out, "Unit", "")
  add(out, "Quantity", "")
  add(out, "Value", spaced((telegram.manufacturer_data:gsub(".", function(c) return ("%02X"):format(c:byte()) end))))
end

local function add_record(out, place, write, ...)
  local frame = place.frame and (' frame="%d"'):format(place.frame) or ""
  out[#out + 1] = ('    <DataRecord id="%d"%s>'):format(place.id, frame)
  write(out, ...)
  if place.time then add(out, "Timestamp", os.date("!%Y-%m-%dT%H:%M:%SZ", place.time)) end
  out[#out + 1] = "    </DataRecord>\n"
  place.id = place.id + 1
end

local function add_records(out, telegram, place)
  local is_fixed = telegram.header == "fixed"
  for position, record in telegram:records() do
    if is_fixed then
      add_record(out, place, add_fixed_record, record, telegram:record(1 - position))
    else
      add_record(out, place, add_variable_record, record)
    end
  end
  if telegram.manufacturer_data then add_record(out, place, add_manufacturer_data, telegram) end
  local problem = decode.problem(telegram)
  if problem then out[#out + 1] = comment(tostring(Error.wrap(problem))) end
end

--- Elements -----------------------------------------------------------------------------------------------------

local function element(out) return "<MBusData>\n\n" .. table.concat(out, "\n") .. "\n</MBusData>\n" end

---@param err? mbus.Error  why there are not all of them
local function telegrams_element(telegrams, options, err)
  local out, place = {}, { id = 0, time = options and options.time }
  add_slave(out, telegrams[1])
  for number_of_frame, telegram in ipairs(telegrams) do
    place.frame = #telegrams > 1 and number_of_frame - 1 or nil
    add_records(out, telegram, place)
  end
  if err then out[#out + 1] = comment(err.message .. "; this is not the whole readout") end
  return element(out)
end

local function error_element(err)
  local out = { "    <SlaveInformation>" }
  add(out, "Error", err)
  out[#out + 1] = "    </SlaveInformation>\n"
  return element(out)
end

--- What others call ---------------------------------------------------------------------------------------------

---@param telegram mbus.Telegram
---@param options? mbus.format.xml.Options
---@return string  a document, several lines
function M.telegram(telegram, options) return DECLARATION .. telegrams_element({ telegram }, options) end

---All telegrams of one meter in one document; ids count through, and `frame` tells the telegram where there are several.
---@param whole mbus.Readout
---@param options? mbus.format.xml.Options
---@param err? mbus.Error  why the readout is not whole, if the reading stopped before its end
---@return string  a document, several lines
function M.readout(whole, options, err) return DECLARATION .. telegrams_element(whole.telegrams, options, err) end

---What could not be read, in the form that libmbus has for a meter's refusal.
---@param err mbus.Error
---@return string  a document, several lines
function M.failure(err) return DECLARATION .. error_element(err) end

---Writes any number of telegrams and readouts as one document. XML has one root, so several results are put into an
---element MBus; a single one is the document that it would be alone. So the first one waits for the second, or the end.
---@param put fun(text: string)
---@param options? mbus.format.xml.Options
---@return table  of functions: telegram(telegram), readout(readout, err), failure(err), unread(address, err), finish()
function M.stream(put, options)
  local count, waiting = 0, nil
  local function take(text)
    count = count + 1
    if count == 1 then
      waiting = text
    else
      put(count == 2 and DECLARATION .. "<MBus>\n" .. waiting .. text or text)
    end
  end
  return {
    telegram = function(telegram) take(telegrams_element({ telegram }, options)) end,
    readout = function(whole, err) take(telegrams_element(whole.telegrams, options, err)) end,
    failure = function(err) take(error_element(err)) end,
    unread = function(_, err) take(error_element(err)) end,
    finish = function()
      if count > 1 then return put "</MBus>\n" end
      put(DECLARATION .. (waiting or "<MBus/>\n"))
    end,
  }
end

return M
