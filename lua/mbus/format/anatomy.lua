---The anatomy of a data record: its bytes part by part, each with its role and what it contributes to the value.
---
---    for _, part in ipairs(anatomy.parts(record, telegram)) do print(part.size, part.role, part.meaning) end
---
---Nothing here knows the tables of the standard. What a VIF or VIFE means is asked of the decoder: the record is decoded
---once more with only the codes up to that one, and what has changed is what the code does.
local core = require "mbus.core"
local number = require "mbus.format.number"
local text = require "mbus.format.text"

local M = {}

---@class mbus.format.anatomy.Part
---@field size integer    bytes; 0: a remark on what came before
---@field role string     "DIF", "DIFE", "VIF", "VIFE", "unit", "LVAR", "data"
---@field kind string     "dib", "vib" or "data"
---@field meaning string  for people

--- Words --------------------------------------------------------------------------------------------------------

local function words(name) return (name:gsub("_", " ")) end

local function power(exponent) return "10^" .. exponent end

local function unhex(digits) return core.unhex(digits) or "" end

local function has(list, item)
  for _, entry in ipairs(list) do
    if entry == item then return true end
  end
  return false
end

local COUNTED_IN = { [60] = "minutes", [3600] = "hours", [86400] = "days" }
local PER_4096 = 244140625

---@return string?  what one step of the number stands for: "10^-3 m3", "hours"
local function step_of(state)
  if state.type ~= "number" then return nil end
  local unit = state.unit and text.printable(state.unit)
  if state.factor == PER_4096 then return "1/4096" .. (unit and " " .. unit or "") end
  if state.factor then return COUNTED_IN[state.factor] or ("%d %s"):format(state.factor, unit or "") end
  if state.exponent == 0 then return unit end
  return power(state.exponent) .. (unit and " " .. unit or "")
end

--- DIB ----------------------------------------------------------------------------------------------------------

local FIELD = {
  [0] = "no data", "8-bit integer", "16-bit integer", "24-bit integer", "32-bit integer", "real32", "48-bit integer",
  "64-bit integer", "selected for readout", "2-digit BCD", "4-digit BCD", "6-digit BCD", "8-digit BCD", "variable length",
  "12-digit BCD", "special",
}

local function dif(code, record)
  local meaning = FIELD[code & 0x0F] .. ", " .. (record["function"] == "error" and "during an error" or record["function"])
  return code & 0x40 ~= 0 and meaning .. ", storage + 1" or meaning
end

-- EN 13757-3, 6.3: 4 bits of the storage number, 2 of the tariff, 1 of the subunit, the lowest first.
local function dife(code, nth)
  local adds = {}
  local function add(name, value)
    if value > 0 then adds[#adds + 1] = ("%s + %d"):format(name, value) end
  end
  add("storage", (code & 0x0F) << (1 + 4 * nth))
  add("tariff", (code >> 4 & 3) << (2 * nth))
  add("subunit", (code >> 6 & 1) << nth)
  return #adds > 0 and table.concat(adds, ", ") or "adds nothing"
end

local function add_dib(parts, record)
  for i, code in ipairs { unhex(record.raw_dif_hex):byte(1, -1) } do
    local meaning = i == 1 and dif(code, record) or dife(code, i - 2)
    parts[i] = { size = 1, role = i == 1 and "DIF" or "DIFE", kind = "dib", meaning = meaning }
  end
end

--- VIB: where its parts are -------------------------------------------------------------------------------------

local EXTENSION, PLAIN_TEXT = 0x80, 0x7C
local POINTER = { [0xFB] = true, [0xFD] = true }
local FC = 0xFC

-- Length of a chain of VIFEs from `first` on, nil if it has no end there.
local function chain_length(vib, first)
  for i = first, #vib do
    if vib:byte(i) & EXTENSION == 0 then return i - first + 1 end
  end
end

-- The VIF with the bytes that a table pointer takes along.
local function true_vif(vib)
  local size = 1
  while size < #vib and size < 3 and POINTER[vib:byte(size)] and (size == 1 or vib:byte(1) == 0xFD) do size = size + 1 end
  return size
end

-- A plain-text unit stands before the VIFEs or behind them (EN 13757-3, Annex C.2).
local function split_plain_text(vib)
  local size = 1 + (vib:byte(2) or 0)
  local extended = vib:byte(1) & EXTENSION ~= 0
  if not extended or chain_length(vib, 2 + size) == #vib - 1 - size then
    return vib:sub(2, 1 + size), vib:sub(2 + size), true
  end
  local chain = chain_length(vib, 2) or #vib - 1
  return vib:sub(2 + chain), vib:sub(2, 1 + chain), false
end

---@return string vif, string? unit, string vifes, boolean? unit_first
local function split(vib)
  if vib:byte(1) & ~EXTENSION == PLAIN_TEXT then return vib:sub(1, 1), split_plain_text(vib) end
  local size = true_vif(vib)
  return vib:sub(1, size), nil, vib:sub(size + 1)
end

-- VIFEs one by one; FC takes the byte behind it along.
local function each_vife(vifes)
  local at = 1
  return function()
    if at > #vifes then return nil end
    local first = at
    at = at + ((vifes:byte(at) == FC and at < #vifes) and 2 or 1)
    return first, at - 1
  end
end

--- VIB: what its parts do ---------------------------------------------------------------------------------------

-- In which the codes have the meaning that they have in this telegram: C, CI and what stands before the records.
local function setting(telegram)
  local ci = telegram.ci or 0x78
  local mode2 = ci == 0x76 or ci == 0x55
  if (telegram.c or 0) & 0x40 ~= 0 then return 0x53, mode2 and 0x55 or 0x51, "" end
  if mode2 then return 0x08, 0x76, ("\0"):rep(12) end
  return 0x08, 0x78, ""
end

local function without_extension(codes)
  return codes:sub(1, -2) .. string.char(codes:byte(-1) & ~EXTENSION)
end

local DATA_MAX = 252 -- bytes of user data in a frame

---Decodes the data of the record with another VIB.
local function probe(record, telegram, vib)
  local c, ci, head = setting(telegram)
  local field, data = unhex(record.raw_dif_hex):byte(1) & 0x0F, unhex(record.raw_data_hex)
  if data == "" then field, data = 4, "\0\0\0\0" end
  local content = head .. string.char(field) .. vib .. data
  local whole = #content <= DATA_MAX and core.telegram(core.long(c, 0, ci, content))
  return whole and whole:record(0) or { quantity = "reserved", modifiers = {} }
end

local function scaling(name)
  local exponent = name:match("^multiplied_1e(.*)$")
  if exponent then return "× " .. power(exponent) end
  exponent = name:match("^added_1e(.*)$")
  return exponent and "+ " .. power(exponent)
end

local IS_TIME = { date = true, datetime = true, time = true }

-- What takes the place of number, unit and exponent of the VIF.
local function replacement(name, before, after)
  if name:find("_exceed_count$") then return "; the data is a count" end
  if name:find("^duration_of") then return "; the data is a duration in " .. (step_of(after) or "s") end
  if IS_TIME[after.type] and not IS_TIME[before.type] then return "; the data is a date or time" end
end

local function vife(before, after, is_private)
  if is_private then return "the manufacturer's own" end
  local name = #after.modifiers > #before.modifiers and after.modifiers[#after.modifiers]
  if not name and after.action ~= before.action then return "action: " .. words(after.action) end
  if not name and after.error ~= before.error then return "record error: " .. words(after.error) end
  if not name then return "no record error" end
  if name == "manufacturer_specific" then return "from here on the manufacturer's own" end
  local replaced = replacement(name, before, after)
  if replaced then return words(name) .. replaced end
  local changed = after.unit ~= before.unit and after.unit and ", the unit is " .. text.printable(after.unit) or ""
  return (scaling(name) or words(name)) .. changed
end

local function vif(state)
  local name = state.quantity == "reserved" and "reserved code" or words(state.quantity)
  local step = step_of(state)
  return step and name .. " in " .. step or name
end

local function add(parts, size, role, kind, meaning)
  parts[#parts + 1] = { size = size, role = role, kind = kind, meaning = meaning }
end

local function add_vib(parts, record, telegram)
  local code, unit, vifes, unit_first = split(unhex(record.raw_vif_hex))
  local base = unit and without_extension(code) .. unit or without_extension(code)
  local before = probe(record, telegram, base)
  local is_private = false
  local function add_unit()
    add(parts, #unit, "unit", "vib", ("%d characters: %s"):format(#unit - 1, text.printable(before.unit or "")))
  end
  add(parts, #code, "VIF", "vib", unit and "unit in plain text" or vif(before))
  if unit and unit_first then add_unit() end
  local root = unit and string.char(code:byte() | EXTENSION) .. unit or code:sub(1, -2) .. string.char(code:byte(-1) | EXTENSION)
  for first, last in each_vife(vifes) do
    local after = probe(record, telegram, root .. without_extension(vifes:sub(1, last)))
    add(parts, last - first + 1, "VIFE", "vib", vife(before, after, is_private))
    is_private = is_private or vifes:byte(first) & ~EXTENSION == 0x7F
    before = after
  end
  if unit and not unit_first then add_unit() end
end

--- Data ---------------------------------------------------------------------------------------------------------

local function lvar(code)
  if code <= 0xBF then return ("%d characters or bytes follow"):format(code) end
  if code <= 0xCF then return ("BCD number, %d digits"):format(2 * (code & 15)) end
  if code <= 0xDF then return ("negative BCD number, %d digits"):format(2 * (code & 15)) end
  local size = code <= 0xEF and code & 15 or code <= 0xF4 and 4 * (code - 0xEC) or code == 0xF5 and 48 or 64
  return ("binary, %d bytes"):format(size)
end

-- EN 1434-3: mode 2, and the media of it in the fixed structure.
local MODE_2 = { [0x55] = true, [0x56] = true, [0x76] = true, [0x77] = true }

local function is_high_byte_first(telegram)
  local medium = telegram.header == "fixed" and telegram.medium or 0
  return MODE_2[telegram.ci] or medium >= 0x0A and medium <= 0x0E
end

-- Most significant byte first, as people write numbers.
local function in_order(data, telegram) return is_high_byte_first(telegram) and data or data:reverse() end

local function is_bcd(field, code)
  if field == 0x0D then return code >= 0xC0 and code <= 0xDF end
  return field >= 9
end

local function thousandths(addend) return (("%.3f"):format(addend / 1000):gsub("0+$", ""):gsub("%.$", "")) end

---@return string  " × 10^-1 + 0.1"; what leads from the number on the wire to the value
local function steps(record)
  local out = {}
  if record.factor == PER_4096 then
    out[1] = " / 4096"
  else
    if record.exponent ~= 0 then out[1] = " × " .. power(record.exponent) end
    if record.factor then out[#out + 1] = (" × %d"):format(record.factor) end
  end
  if record.addend then out[#out + 1] = " + " .. thousandths(record.addend) end
  return table.concat(out)
end

-- The number as it is on the wire, and as people count, if that is something else.
local function coded(record, data, field, code)
  if field == 5 then return "real32", record.value and number.plain(record.raw) or tostring(record.raw) end
  local digits = core.hex(data, "")
  if not is_bcd(field, code) then return digits .. "h", tostring(record.raw) end
  return "BCD " .. digits .. (has(record.flags, "bcd_negative") and ", F is a minus" or ""), nil
end

local function calculation(record, data, field, code)
  local shown, counted = coded(record, data, field, code)
  if record.value == nil then return counted and shown .. " = " .. counted or shown end
  local scaled = steps(record)
  if scaled ~= "" then shown = (counted and shown .. " = " .. counted or shown) .. scaled end
  return shown .. " = " .. number.text(record) .. (record.unit and " " .. text.printable(record.unit) or "")
end

-- Bits of the types F, G, I and J (EN 13757-3, Annex A), bytes in the order of the tables there.
local function day_month_year(a, b)
  return ("day %d, month %d, year %d"):format(a & 31, b & 15, a >> 5 | (b & 0xF0) >> 1)
end

local CLOCK = {
  [2] = function(a, b) return "type G: " .. day_month_year(a, b) end,
  [3] = function(a, b, c) return ("type J: second %d, minute %d, hour %d"):format(a & 63, b & 63, c & 31) end,
  [4] = function(a, b, c, d) return ("type F: minute %d, hour %d, %s"):format(a & 63, b & 31, day_month_year(c, d)) end,
  [6] = function(a, b, c, d, e)
    return ("type I: second %d, minute %d, hour %d, %s"):format(a & 63, b & 63, c & 31, day_month_year(d, e))
  end,
}

local function clock(record, data)
  local explain = CLOCK[#data]
  return (explain and explain(data:reverse():byte(1, -1)) or "date") .. (record.value and " = " .. record.value or "")
end

local SHOW = {
  number = calculation,
  string = function(record, _, _, _, telegram)
    local order = is_high_byte_first(telegram) and "first" or "last"
    return ('%s character first: "%s"'):format(order, text.printable(record.value))
  end,
  date = clock, datetime = clock, time = clock,
}

local FLAG = {
  bcd_invalid = "digits above 9", not_a_number = "not a number", date_invalid = "no such date, or not set",
  time_invalid = "the meter says that its time is not valid", summer_time = "summer time",
  value_invalid = 'the code for "not available"', opaque = "only the manufacturer knows what it is",
  address_block = "an address, not a number", data_field_mismatch = "the data type does not go with the VIF",
  not_printable = "with control characters",
}
local NO_VALUE = { "bcd_invalid", "not_a_number", "date_invalid", "time_invalid", "value_invalid" }

local function remark(record)
  local out, is_valid = {}, not record.error
  for _, flag in ipairs(record.flags) do
    out[#out + 1] = FLAG[flag]
    is_valid = is_valid and not has(NO_VALUE, flag)
  end
  if record.error then out[#out + 1] = "record error: " .. words(record.error) end
  if record.text and not is_valid then out[#out + 1] = 'shown as "' .. record.text .. '"' end
  if #out == 0 then return nil end
  return (is_valid and "" or "no value: ") .. table.concat(out, ", ")
end

local function profile(record, telegram)
  local elements = telegram:profile(record.position)
  if not elements or #elements == 0 then return nil end
  local values = {}
  for i, element in ipairs(elements) do values[i] = number.text(element) or "--" end
  return ("profile of %d values: %s %s"):format(#values, table.concat(values, ", "), elements[1].unit or "")
end

local function is_profile(record)
  for _, name in ipairs(record.modifiers) do
    if name:find("compact_profile", 1, true) then return true end
  end
end

local function add_data(parts, record, telegram, is_begun, role)
  local data = unhex(record.raw_data_hex)
  local field = record.raw_dif_hex ~= "" and tonumber(record.raw_dif_hex:sub(1, 2), 16) & 0x0F
    or telegram.status and telegram.status & 1 ~= 0 and 0x04 or 0x0C
  local code = field == 0x0D and data:byte(1) or nil
  if code then
    add(parts, 1, "LVAR", "data", lvar(code))
    data = data:sub(2)
  end
  local show = (record.value or record.type ~= "string") and SHOW[record.type]
  local meaning = show and show(record, in_order(data, telegram), field, code, telegram) or "bytes as they are"
  if #data > 0 then add(parts, #data, role or "data", "data", meaning) end
  local said = remark(record)
  if said and #data > 0 then add(parts, 0, "", "data", said) end
  said = not is_begun and is_profile(record) and profile(record, telegram)
  if said then add(parts, 0, "", "data", said) end
end

--- What others call ---------------------------------------------------------------------------------------------

---@param record mbus.Record
---@param telegram mbus.Telegram  that it is of
---@param is_begun? boolean  the record is none of the telegram's: it was begun there and not finished
---@return mbus.format.anatomy.Part[]  in the order of the bytes; their sizes add up to the record's
function M.parts(record, telegram, is_begun)
  local parts = {}
  if record.raw_dif_hex == "" then -- fixed structure: a counter, its unit stands in the header
    add_data(parts, record, telegram, is_begun, "counter")
    return parts
  end
  add_dib(parts, record)
  add_vib(parts, record, telegram)
  add_data(parts, record, telegram, is_begun)
  return parts
end

---@param record mbus.Record
---@return string  what the record says, in a line: "energy, storage 1 = 11783000 Wh"
function M.summary(record)
  local out = { words(record.quantity) }
  for _, name in ipairs(record.modifiers) do
    if not scaling(name) then out[#out + 1] = words(name) end
  end
  if record["function"] ~= "instantaneous" then out[#out + 1] = record["function"] end
  for _, name in ipairs { "storage", "tariff", "subunit" } do
    if record[name] ~= 0 then out[#out + 1] = ("%s %d"):format(name, record[name]) end
  end
  local summary, value = table.concat(out, ", "), number.text(record) or record.value
  if record.type == "none" then return summary end
  if value == nil then return summary .. ": no value" end
  local unit = record.unit and " " .. text.printable(record.unit) or ""
  return summary .. " = " .. text.printable(value) .. unit
end

return M
