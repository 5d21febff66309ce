---Telegrams and readouts as a table for people: aligned, with names and units, as wide as a terminal.
---
---    local format = require "mbus.format.table"
---    io.write(format.telegram(mbus.decode(bytes)))
---    io.write(format.readout(bus:read(5), { width = 100 }))
local core = require "mbus.core"
local decode = require "mbus.decode"
local Error = require "mbus.error"
local text = require "mbus.format.text"

local M = {}

local DEFAULT_WIDTH = 80
local GAP = 2

---@class mbus.format.table.Options
---@field width? integer   columns to fit into, default 80
---@field colour? boolean  bold headings, default false

--- Words -------------------------------------------------------------------------------------------------------

local QUANTITY = {
  datetime = "date and time",
  any_vif = "any quantity",
  hca = "heat cost units",
  rf_level = "radio level",
  phase_u_u = "phase U-U",
  phase_u_i = "phase U-I",
}

-- Folded into value and unit already.
local function is_folded(modifier) return modifier:find("^multiplied_") end

local function words(name) return (name:gsub("_", " ")) end

local function quantity_of(record)
  local parts = { QUANTITY[record.quantity] or words(record.quantity or "unknown") }
  for _, modifier in ipairs(record.modifiers or {}) do
    if not is_folded(modifier) then parts[#parts + 1] = words(modifier) end
  end
  return table.concat(parts, ", ")
end

-- Flags that say something about the value that the value does not say itself.
local FLAG = {
  bcd_invalid = "invalid BCD digits",
  not_a_number = "not a number",
  date_invalid = "no valid date",
  time_invalid = "time not valid",
  summer_time = "summer time",
  value_invalid = "not available",
  data_field_mismatch = "unexpected data type",
}

local function details_of(record)
  local parts = {}
  if record["function"] ~= "instantaneous" then parts[1] = record["function"] end
  for _, name in ipairs { "storage", "tariff", "subunit" } do
    if (record[name] or 0) ~= 0 then parts[#parts + 1] = ("%s %d"):format(name, record[name]) end
  end
  for _, flag in ipairs(record.flags or {}) do parts[#parts + 1] = FLAG[flag] end
  if record.error then parts[#parts + 1] = "error: " .. words(record.error) end
  return table.concat(parts, ", ")
end

--- Values ------------------------------------------------------------------------------------------------------

---The shortest text that is the same real32.
local function real32(value)
  if value ~= value or value == math.huge or value == -math.huge then return "--" end
  for digits = 6, 9 do
    local short = ("%." .. digits .. "g"):format(value)
    if string.pack("f", tonumber(short)) == string.pack("f", value) then
      return short:find("e", 1, true) and math.abs(value) >= 1 and ("%.0f"):format(value) or short
    end
  end
end

local COUNTED_IN = { [60] = "min", [3600] = "h", [86400] = "d" }

---A duration in the unit that the meter counts in.
local function duration(record)
  local counted_in, raw = COUNTED_IN[record.factor], record.raw
  if not counted_in or record.exponent ~= 0 or record.addend then return nil end
  return math.type(raw) == "float" and real32(raw) or tostring(raw), counted_in
end

local function number(record)
  return record.raw and core.decimal(record) or math.type(record.value) == "integer" and ("%d"):format(record.value)
    or real32(record.value)
end

local function quoted(value)
  value = text.printable(value)
  return (value == "" or value:find("^ ") or value:find(" $")) and '"' .. value .. '"' or value
end

local function spaced(hex) return (hex:upper():gsub("%x%x", "%0 "):gsub(" $", "")) end

local SHOW = {
  number = number,
  string = function(record) return quoted(record.value) end,
  bytes = function(record) return spaced(record.value) end,
  datetime = function(record) return (record.value:gsub("T", " "):gsub("^(.* %d%d:%d%d):00$", "%1")) end,
}

local function has_flag(record, flag)
  for _, name in ipairs(record.flags or {}) do
    if name == flag then return true end
  end
end

---@return string value, string unit
local function value_of(record)
  local unit = text.printable(record.unit or "")
  if record.type == "none" then return "", unit end
  if record.value == nil or record.error or has_flag(record, "value_invalid") then return "--", unit end
  if unit == "s" then
    local value, counted_in = duration(record)
    if value then return value, counted_in end
  end
  local show = SHOW[record.type]
  return show and show(record) or tostring(record.value), unit
end

--- Table -------------------------------------------------------------------------------------------------------

local COLUMNS = {
  { title = "#", right = true, least = 3 },
  { title = "Quantity", least = 16 },
  { title = "Details", least = 12 },
  { title = "Value", right = true, least = 18 },
  { title = "Unit", least = 8 },
}

local VALUE = 4

local function cells_of(record)
  local value, unit = value_of(record)
  return { tostring(record.index), quantity_of(record), details_of(record), value, unit, is_number = record.type == "number" }
end

---Widths that the content wants; none for a column that is empty.
local function natural_widths(rows)
  local widths = {}
  for c, column in ipairs(COLUMNS) do
    local width = 0
    for _, row in ipairs(rows) do width = math.max(width, text.width(row[c])) end
    widths[c] = width > 0 and math.max(width, #column.title) or nil
  end
  return widths
end

local function total(widths)
  local sum = -GAP
  for c = 1, #COLUMNS do sum = sum + (widths[c] and widths[c] + GAP or 0) end
  return sum
end

---Widths that columns keep. A number stays in one line: its first digits alone are another number.
local function least_widths(rows)
  local least = {}
  for c, column in ipairs(COLUMNS) do least[c] = column.least end
  for _, row in ipairs(rows) do
    if row.is_number then least[VALUE] = math.max(least[VALUE], #row[VALUE]) end
  end
  return least
end

---Takes from the widest column that may shrink until all fit.
local function fit(widths, least, width)
  while total(widths) > width do
    local widest
    for c in ipairs(COLUMNS) do
      if widths[c] and widths[c] > least[c] and (not widest or widths[c] > widths[widest]) then widest = c end
    end
    if not widest then return end
    widths[widest] = widths[widest] - 1
  end
end

---@return string line  with no blanks at its end
local function join(cells, widths)
  local parts = {}
  for c, column in ipairs(COLUMNS) do
    if widths[c] then parts[#parts + 1] = text.pad(cells[c] or "", widths[c], column.right) end
  end
  return (table.concat(parts, (" "):rep(GAP)):gsub("%s+$", ""))
end

---The lines of a cell, as wide as the widest of them: a wrapped value stays in one block, flush right or not.
local function block(cell, width)
  local lines, widest = text.wrap(cell, width), 0
  for _, line in ipairs(lines) do widest = math.max(widest, text.width(line)) end
  for i, line in ipairs(lines) do lines[i] = text.pad(line, widest) end
  return lines
end

local function add_row(lines, cells, widths)
  local wrapped, height = {}, 1
  for c in ipairs(COLUMNS) do
    wrapped[c] = widths[c] and block(cells[c], widths[c]) or {}
    height = math.max(height, #wrapped[c])
  end
  for l = 1, height do
    local part = {}
    for c in ipairs(COLUMNS) do part[c] = wrapped[c][l] end
    lines[#lines + 1] = join(part, widths)
  end
end

local function bold(line, options) return options.colour and "\27[1m" .. line .. "\27[0m" or line end

local function add_table(lines, source, options)
  local rows, titles = {}, {}
  for _, record in source:records() do rows[#rows + 1] = cells_of(record) end
  if #rows == 0 then return end
  local widths = natural_widths(rows)
  fit(widths, least_widths(rows), options.width)
  for c, column in ipairs(COLUMNS) do titles[c] = column.title end
  lines[#lines + 1] = ""
  lines[#lines + 1] = bold(join(titles, widths), options)
  for _, row in ipairs(rows) do add_row(lines, row, widths) end
end

--- Head --------------------------------------------------------------------------------------------------------

local LABEL_WIDTH = 12

local function add_labelled(lines, label, value, options)
  for i, part in ipairs(text.wrap(value, options.width - LABEL_WIDTH)) do
    lines[#lines + 1] = text.pad(i == 1 and label or "", LABEL_WIDTH) .. part
  end
end

local C_FIELD = {
  [0x40] = "SND_NKE", [0x53] = "SND_UD", [0x73] = "SND_UD", [0x5A] = "REQ_UD1", [0x7A] = "REQ_UD1",
  [0x5B] = "REQ_UD2", [0x7B] = "REQ_UD2", [0x08] = "RSP_UD", [0x18] = "RSP_UD", [0x28] = "RSP_UD", [0x38] = "RSP_UD",
}

local FRAME = { ack = "acknowledgement E5", short = "short frame", control = "control frame", long = "long frame" }

local function frame_words(telegram)
  local parts = { FRAME[telegram.type] }
  if telegram.c then
    local name = C_FIELD[telegram.c]
    parts[#parts + 1] = ("C %02Xh"):format(telegram.c) .. (name and " (" .. name .. ")" or "")
    parts[#parts + 1] = ("address %d"):format(telegram.a)
  end
  if telegram.ci then parts[#parts + 1] = ("CI %02Xh"):format(telegram.ci) end
  return table.concat(parts, ", ")
end

---The identity of a meter; a short header has none.
local function add_identity(lines, telegram, options)
  local parts = {}
  if telegram.id then parts[#parts + 1] = telegram.id end
  if telegram.manufacturer then parts[#parts + 1] = text.printable(telegram.manufacturer) end
  if telegram.medium_name then parts[#parts + 1] = words(telegram.medium_name) end
  if telegram.version then parts[#parts + 1] = ("version %d"):format(telegram.version) end
  if #parts > 0 then lines[#lines + 1] = bold(text.pad("Meter", LABEL_WIDTH) .. table.concat(parts, ", "), options) end
end

local function add_head(lines, telegram, address, options)
  add_identity(lines, telegram, options)
  if (telegram.header or "none") ~= "none" then
    local secondary = telegram.secondary_address
    address = address or telegram.a
    local where = secondary and secondary ~= address and ("%s, secondary %s"):format(address, secondary) or tostring(address)
    add_labelled(lines, "Address", where, options)
  else
    add_labelled(lines, "Frame", frame_words(telegram), options)
  end
  if telegram.status then
    add_labelled(lines, "Status", ("%02Xh, %s; access number %d"):format(telegram.status,
      text.status(telegram.status, telegram.header == "fixed"), telegram.access_no), options)
  end
  if (telegram.security_mode or 0) ~= 0 then
    add_labelled(lines, "Security", ("mode %d"):format(telegram.security_mode), options)
  end
end

local function add_special(lines, telegram, options)
  local failure, selection = telegram.application_error, telegram.selection
  if failure then
    add_labelled(lines, "Error", ("application error %d, %s"):format(failure.code, words(failure.name)), options)
  end
  if telegram.alarm_status then add_labelled(lines, "Alarm", ("%02Xh"):format(telegram.alarm_status), options) end
  if selection then
    add_labelled(lines, "Selects", ("%s, manufacturer %04Xh, version %02Xh, medium %02Xh"):format(selection.id,
      selection.manufacturer_code, selection.version, selection.medium), options)
  end
end

local function add_tail(lines, telegram, options)
  local foot = {}
  if telegram.manufacturer_data and telegram.manufacturer_data ~= "" then
    add_labelled(foot, "Maker data", core.hex(telegram.manufacturer_data), options)
  end
  local problem = decode.problem(telegram)
  if problem then add_labelled(foot, "Problem", tostring(Error.wrap(problem)), options) end
  if #foot > 0 then
    lines[#lines + 1] = ""
    table.move(foot, 1, #foot, #lines + 1, lines)
  end
end

local function completed(options)
  options = options or {}
  return { width = options.width or DEFAULT_WIDTH, colour = options.colour }
end

--- What others call --------------------------------------------------------------------------------------------

---@param telegram mbus.Telegram
---@param options? mbus.format.table.Options
---@return string  several lines, each with its line end
function M.telegram(telegram, options)
  options = completed(options)
  local lines = {}
  add_head(lines, telegram, nil, options)
  add_special(lines, telegram, options)
  add_table(lines, telegram, options)
  add_tail(lines, telegram, options)
  if telegram.more_records_follow then
    lines[#lines + 1] = ""
    lines[#lines + 1] = "More records follow in the next telegram."
  end
  return table.concat(lines, "\n") .. "\n"
end

---@param readout mbus.Readout
---@param options? mbus.format.table.Options
---@param err? mbus.Error  why the readout is not whole, if the reading stopped before its end
---@return string  several lines, each with its line end
function M.readout(readout, options, err)
  options = completed(options)
  local lines = {}
  add_head(lines, readout.telegrams[1], readout.address, options)
  if #readout.telegrams > 1 then add_labelled(lines, "Telegrams", tostring(#readout.telegrams), options) end
  add_table(lines, readout, options)
  for _, telegram in ipairs(readout.telegrams) do
    add_special(lines, telegram, options)
    add_tail(lines, telegram, options)
  end
  if err then
    lines[#lines + 1] = ""
    add_labelled(lines, "Problem", ("%s; this is not the whole readout"):format(err.message), options)
  end
  return table.concat(lines, "\n") .. "\n"
end

return M
