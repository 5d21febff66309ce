---Telegrams, readouts and errors as JSON.
---
---    local json = require "mbus.format.json"
---    print(json.telegram(mbus.decode(bytes)))                     -- one line
---    print(json.readout(bus:read(5), { indent = true }))
---
---Keys come in a fixed order. Numbers keep every digit: what the meter sent as an integer and a power of ten is
---written as exactly that decimal number, a real32 as the shortest text that reads back as the same number.
---
---The text is put together here, not by dkjson, which would keep 14 digits of a number, and take twice as long.
local core = require "mbus.core"
local quotestring = require("dkjson").quotestring

local M = {}

-- A writer appends the JSON of a value to the array `out`. `pad` is the line end with the indentation of what encloses
-- the value, nil for everything on one line; `owner` is the object that the value belongs to.

--- Scalars ------------------------------------------------------------------------------------------------------

local function quote(text)
  return text:find("[^ !#-%[%]-~]") and quotestring(text) or '"' .. text .. '"'
end

---@param value number
---@return string  the shortest decimal text that reads back as `value`
local function shortest(value)
  for digits = 15, 17 do
    local text = ("%." .. digits .. "g"):format(value)
    if tonumber(text) == value then return text end
  end
end

local function number_text(value)
  if math.type(value) == "integer" then return ("%d"):format(value) end
  if value ~= value or value == math.huge or value == -math.huge then return "null" end
  return shortest(value)
end

local TEXT = { ["nil"] = function() return "null" end, boolean = tostring, number = number_text, string = quote }

local function scalar(out, value) out[#out + 1] = TEXT[type(value)](value) end

---The value of a record, nothing lost and no zeros added.
local function exact(out, value, _, record)
  local decimal = math.type(value) == "float" and record.raw and core.decimal(record)
  if not decimal then return scalar(out, value) end
  out[#out + 1] = decimal:find(".", 1, true) and decimal:gsub("0+$", ""):gsub("%.$", "") or decimal
end

--- Structures ---------------------------------------------------------------------------------------------------

local function begin_item(out, pad, count)
  if count > 1 then out[#out + 1] = "," end
  if pad then out[#out + 1] = pad end
end

local function inner(pad) return pad and pad .. "  " end

local function absent(value) return value == nil end

---An object with these fields: { key, writer or nil for scalars, skip = tells for which values the field is left out }.
local function object(fields)
  for _, field in ipairs(fields) do
    field.name, field.write = '"' .. field[1] .. '":', field[2] or scalar
  end
  return function(out, value, pad)
    if value == nil then return scalar(out, nil) end
    local count, deeper = 0, inner(pad)
    out[#out + 1] = "{"
    for _, field in ipairs(fields) do
      local member = value[field[1]]
      if not (field.skip and field.skip(member)) then
        count = count + 1
        begin_item(out, deeper, count)
        out[#out + 1] = pad and field.name .. " " or field.name
        field.write(out, member, deeper, value)
      end
    end
    if pad then out[#out + 1] = pad end
    out[#out + 1] = "}"
  end
end

---An array of what an iterator gives as second value; `each(value, owner)` starts it.
local function array(write, each)
  return function(out, value, pad, owner)
    local count, deeper = 0, inner(pad)
    out[#out + 1] = "["
    for _, item in each(value, owner) do
      count = count + 1
      begin_item(out, deeper, count)
      write(out, item, deeper)
    end
    if pad and count > 0 then out[#out + 1] = pad end
    out[#out + 1] = "]"
  end
end

local strings = array(scalar, ipairs)

--- What we know -------------------------------------------------------------------------------------------------

local record = object {
  { "index" }, { "function" }, { "storage" }, { "tariff" }, { "subunit" }, { "quantity" }, { "unit" }, { "type" },
  { "value", exact }, { "modifiers", strings }, { "error" }, { "action", skip = absent }, { "flags", strings },
  { "raw_dif_hex" }, { "raw_vif_hex" }, { "raw_data_hex" }, { "telegram" }, { "position" },
  { "raw", skip = absent }, { "exponent", skip = absent }, { "factor", skip = absent },
}

-- Of a telegram or readout; what could not be read has none.
local records = array(record, function(_, owner)
  if owner.records then return owner:records() end
  return next, {}
end)

local failure = object {
  { "kind" },
  { "code", function(out, code, _, err) scalar(out, code or err.kind) end },
  { "text", function(out, _, _, err) scalar(out, err.message) end },
  { "offset" },
}

local function is_valid(out, _, _, owner) scalar(out, owner.error == nil) end

-- What a caller may want to tell apart without knowing our kinds of error.
local function kind(out, _, _, telegram)
  local err = telegram.error
  local known = err and (err.kind == "encrypted" or err.kind == "unsupported")
  scalar(out, known and err.kind or err and "error" or "valid")
end

local write_frame = object { { "type" }, { "c", skip = absent }, { "a", skip = absent }, { "ci", skip = absent } }

local function frame(out, _, pad, telegram) write_frame(out, telegram.type and telegram, pad) end

local write_header = object {
  { "type", function(out, _, _, telegram) scalar(out, telegram.header) end },
  { "id" }, { "manufacturer" }, { "version" }, { "medium" }, { "access_no" }, { "status" }, { "signature" },
  { "security_mode", skip = function(mode) return mode == nil or mode == 0 end },
}

local function header(out, form, pad, telegram)
  write_header(out, (form or "none") ~= "none" and telegram or nil, pad)
end

local function manufacturer_data(out, _, _, telegram)
  local data = telegram.manufacturer_data
  scalar(out, data and core.hex(data, ""):lower())
end

local selection = object { { "id" }, { "manufacturer_code" }, { "version" }, { "medium" } }
local application_error = object { { "code" }, { "name" } }

local function telegram_object(has_records)
  return object {
    { "kind", kind }, { "schema", function(out) scalar(out, 1) end }, { "valid", is_valid }, { "error", failure },
    { "frame", frame }, { "header", header },
    { "records", records, skip = function() return not has_records end },
    { "more_records_follow", function(out, more) scalar(out, more or false) end },
    { "manufacturer_data_hex", manufacturer_data },
    { "application_error", application_error, skip = absent },
    { "alarm_status", skip = absent },
    { "selection", selection, skip = absent },
  }
end

local telegram_with_records, telegram_alone = telegram_object(true), telegram_object(false)

local readout = object {
  { "address" }, { "valid", is_valid }, { "error", failure }, { "id", skip = absent }, { "manufacturer", skip = absent },
  { "version", skip = absent }, { "medium", skip = absent }, { "medium_name", skip = absent },
  { "access_no", skip = absent }, { "status", skip = absent }, { "secondary_address", skip = absent },
  { "telegrams", array(telegram_alone, ipairs) }, { "records", records },
}

local function encode(write, value, options)
  local out = {}
  write(out, value, options and options.indent and "\n" or nil)
  return table.concat(out)
end

--- What others call ---------------------------------------------------------------------------------------------

---@class mbus.format.json.Options
---@field indent? boolean  over several lines, for people; default one line

---@param telegram mbus.Telegram
---@param options? mbus.format.json.Options
---@return string
function M.telegram(telegram, options) return encode(telegram_with_records, telegram, options) end

---The object of a telegram that could not be read at all.
---@param err mbus.Error
---@param good_frame? table  the frame, if at least that was good: type, c, a, ci
---@param options? mbus.format.json.Options
---@return string
function M.failure(err, good_frame, options)
  local read = good_frame or {}
  return encode(telegram_with_records, { error = err, type = read.type, c = read.c, a = read.a, ci = read.ci }, options)
end

---All telegrams of one meter: its identity, the telegrams without records, and all records in one list.
---@param whole mbus.Readout
---@param options? mbus.format.json.Options
---@param err? mbus.Error  why the readout is not whole, if the reading stopped before its end
---@return string
function M.readout(whole, options, err)
  local cut = err and setmetatable({ error = err }, { __index = whole })
  return encode(readout, cut or whole, options)
end

---A meter that could not be read.
---@param address integer|string
---@param err mbus.Error
---@param options? mbus.format.json.Options
---@return string
function M.unread(address, err, options)
  return encode(readout, { address = address, error = err, telegrams = {} }, options)
end

return M
