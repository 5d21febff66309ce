---Telegrams, readouts and errors as JSON.
---
---    local json = require "mbus.format.json"
---    print(json.telegram(mbus.decode(bytes)))                     -- one line
---    print(json.readout(bus:read(5), { indent = true }))
---
---Keys come in a fixed order. Numbers keep every digit: what the meter sent as an integer and a power of ten is
---written as exactly that decimal number, a real32 as the shortest text that reads back as the same number.
---
---The text is put together here, not by dkjson, which would keep 14 digits of a number, and take eight times as long: one
---concatenation makes a whole object.
local core = require "mbus.core"
local decode = require "mbus.decode"
local number = require "mbus.format.number"
local quotestring = require("dkjson").quotestring

local concat, find, math_type = table.concat, string.find, math.type

local M = {}

--- Scalars ------------------------------------------------------------------------------------------------------

local function quote(text)
  return find(text, "^[#-[%]^-~ !]*$") and '"' .. text .. '"' or quotestring(text)
end

local function number_text(value)
  if math_type(value) == "integer" then return ("%d"):format(value) end
  if value ~= value or value == math.huge or value == -math.huge then return "null" end
  return number.shortest(value)
end

local TEXT = { ["nil"] = function() return "null" end, boolean = tostring, number = number_text, string = quote }

local function scalar(value) return TEXT[type(value)](value) end

local MOST_KNOWN = 1000

-- Names and small integers come again and again, and are looked up faster than made. What meters send may be anything, so
-- this is emptied before it grows large.
local known, count = {}, 0

local function learn(_, value)
  if value == nil then return "null" end
  if count == MOST_KNOWN then
    for old in next, known do known[old] = nil end
    count = 0
  end
  local text = scalar(value)
  known[value], count = text, count + 1
  return text
end

setmetatable(known, { __index = learn })

---The value of a record, nothing lost and no zeros added.
local function value_text(record, value)
  local decimal = math_type(value) == "float" and record.raw and core.decimal(record)
  if not decimal then return scalar(value) end
  if decimal:byte(-1) ~= 48 or not find(decimal, ".", 1, true) then return decimal end
  return (decimal:gsub("%.?0+$", ""))
end

--- Structures ---------------------------------------------------------------------------------------------------

-- A member that is left out where there is nothing to tell; `name` is all that stands before the value.
local function optional(name, value) return value == nil and "" or name .. known[value] end

local function names(list)
  if list[1] == nil then return "[]" end
  local texts = {}
  for i, name in ipairs(list) do texts[i] = known[name] end
  return "[" .. concat(texts, ",") .. "]"
end

local function record_text(record)
  return '{"index":' .. known[record.index] .. ',"function":' .. known[record["function"]]
    .. ',"storage":' .. known[record.storage] .. ',"tariff":' .. known[record.tariff]
    .. ',"subunit":' .. known[record.subunit] .. ',"quantity":' .. known[record.quantity]
    .. ',"unit":' .. known[record.unit] .. ',"type":' .. known[record.type]
    .. ',"value":' .. value_text(record, record.value) .. ',"modifiers":' .. names(record.modifiers)
    .. ',"error":' .. known[record.error] .. optional(',"action":', record.action) .. ',"flags":' .. names(record.flags)
    .. ',"raw_dif_hex":' .. known[record.raw_dif_hex] .. ',"raw_vif_hex":' .. known[record.raw_vif_hex]
    .. ',"raw_data_hex":' .. quote(record.raw_data_hex)
    .. ',"telegram":' .. known[record.telegram] .. ',"position":' .. known[record.position]
    .. (record.raw == nil and "" or ',"raw":' .. scalar(record.raw))
    .. optional(',"exponent":', record.exponent) .. optional(',"factor":', record.factor)
    .. optional(',"addend":', record.addend) .. "}"
end

-- Of a telegram or readout; what could not be read has none.
local function records(owner)
  local texts = {}
  if owner.records then
    for _, record in owner:records() do texts[#texts + 1] = record_text(record) end
  end
  return "[" .. concat(texts, ",") .. "]"
end

local function failure(err)
  if not err then return "null" end
  return '{"kind":' .. scalar(err.kind) .. ',"code":' .. scalar(err.code or err.kind) .. ',"text":' .. scalar(err.message)
    .. ',"offset":' .. scalar(err.offset) .. "}"
end

-- What a caller may want to tell apart without knowing our kinds of error.
local function kind(err)
  if not err then return "valid" end
  return (err.kind == "encrypted" or err.kind == "unsupported") and err.kind or "error"
end

local function frame(telegram)
  local form = telegram.type
  if not form then return "null" end
  return '{"type":' .. known[form] .. optional(',"c":', telegram.c) .. optional(',"a":', telegram.a)
    .. optional(',"ci":', telegram.ci) .. "}"
end

local function header(telegram)
  local form, mode = telegram.header, telegram.security_mode
  if (form or "none") == "none" then return "null" end
  return '{"type":' .. known[form] .. ',"id":' .. scalar(telegram.id) .. ',"manufacturer":' .. known[telegram.manufacturer]
    .. ',"version":' .. known[telegram.version] .. ',"medium":' .. known[telegram.medium]
    .. ',"access_no":' .. known[telegram.access_no] .. ',"status":' .. known[telegram.status]
    .. ',"signature":' .. scalar(telegram.signature) .. optional(',"security_mode":', mode ~= 0 and mode or nil) .. "}"
end

local function application_error(err)
  if not err then return "" end
  return ',"application_error":{"code":' .. scalar(err.code) .. ',"name":' .. scalar(err.name) .. "}"
end

local function selection(wanted)
  if not wanted then return "" end
  return ',"selection":{"id":' .. scalar(wanted.id) .. ',"manufacturer_code":' .. scalar(wanted.manufacturer_code)
    .. ',"version":' .. scalar(wanted.version) .. ',"medium":' .. scalar(wanted.medium) .. "}"
end

local function telegram_text(telegram, with_records)
  local err, data = decode.problem(telegram), telegram.manufacturer_data
  return '{"kind":' .. known[kind(err)] .. ',"schema":1,"valid":' .. tostring(err == nil) .. ',"error":' .. failure(err)
    .. ',"frame":' .. frame(telegram) .. ',"header":' .. header(telegram)
    .. (with_records and ',"records":' .. records(telegram) or "")
    .. ',"more_records_follow":' .. tostring(telegram.more_records_follow or false)
    .. ',"manufacturer_data_hex":' .. scalar(data and core.hex(data, ""):lower())
    .. application_error(telegram.application_error) .. optional(',"alarm_status":', telegram.alarm_status)
    .. selection(telegram.selection) .. "}"
end

local function readout_text(readout, err)
  local telegrams = {}
  for i, telegram in ipairs(readout.telegrams) do telegrams[i] = telegram_text(telegram, false) end
  return '{"address":' .. scalar(readout.address) .. ',"valid":' .. tostring(err == nil) .. ',"error":' .. failure(err)
    .. optional(',"id":', readout.id) .. optional(',"manufacturer":', readout.manufacturer)
    .. optional(',"version":', readout.version) .. optional(',"medium":', readout.medium)
    .. optional(',"medium_name":', readout.medium_name) .. optional(',"access_no":', readout.access_no)
    .. optional(',"status":', readout.status) .. optional(',"secondary_address":', readout.secondary_address)
    .. ',"telegrams":[' .. concat(telegrams, ",") .. '],"records":' .. records(readout) .. "}"
end

--- For people ---------------------------------------------------------------------------------------------------

---A line of JSON spread over several: between its strings stand only marks, numbers and words.
local function spread(line)
  local out, pad, from = {}, "\n", 1
  local function mark(c)
    if c == "," then return c .. pad end
    if c == ":" then return ": " end
    local opens = c == "{" or c == "["
    pad = opens and pad .. "  " or pad:sub(1, -3)
    return opens and c .. pad or pad .. c
  end
  local function marks(text)
    return (text:gsub("[%[%]{},:]%]?", function(some) return some == "[]" and some or some:gsub(".", mark) end))
  end
  while true do
    local open = find(line, '"', from, true)
    out[#out + 1] = marks(line:sub(from, (open or 0) - 1))
    if not open then return concat(out) end
    from = open + 1
    repeat
      local before, found = line:match('^[^"\\]*()(.)', from)
      from = before + (found == "\\" and 2 or 1) -- with what it escapes
    until found == '"'
    out[#out + 1] = line:sub(open, from - 1)
  end
end

local function finish(line, options) return options and options.indent and spread(line) or line end

--- What others call ---------------------------------------------------------------------------------------------

---@class mbus.format.json.Options
---@field indent? boolean  over several lines, for people; default one line

---@param telegram mbus.Telegram
---@param options? mbus.format.json.Options
---@return string
function M.telegram(telegram, options) return finish(telegram_text(telegram, true), options) end

---The object of a telegram that could not be read at all.
---@param err mbus.Error
---@param good_frame? table  the frame, if at least that was good: type, c, a, ci
---@param options? mbus.format.json.Options
---@return string
function M.failure(err, good_frame, options)
  local read = good_frame or {}
  return M.telegram({ error = err, type = read.type, c = read.c, a = read.a, ci = read.ci }, options)
end

---All telegrams of one meter: its identity, the telegrams without records, and all records in one list.
---@param whole mbus.Readout
---@param options? mbus.format.json.Options
---@param err? mbus.Error  why the readout is not whole, if the reading stopped before its end
---@return string
function M.readout(whole, options, err) return finish(readout_text(whole, err or whole.error), options) end

---A meter that could not be read.
---@param address integer|string
---@param err mbus.Error
---@param options? mbus.format.json.Options
---@return string
function M.unread(address, err, options)
  return finish(readout_text({ address = address, telegrams = {} }, err), options)
end

return M
