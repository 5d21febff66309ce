---Telegrams and readouts as CSV for spreadsheets and databases: RFC 4180, UTF-8, one row a record.
---
---    local csv = require "mbus.format.csv"
---    io.write(csv.telegram(mbus.decode(bytes)))              -- header line and rows
---    local out = csv.stream(io.write)                        -- many of them: the header line comes once
---    out.readout(bus:read(5))
---
---What is no record has no row: a telegram that cannot be read, the manufacturer's data. Lists (modifiers, flags) are
---joined by blanks. A control character other than tab and line ends would be outside the format: it is written as \x1B.
local number = require "mbus.format.number"

local M = {}

local LINE_END = "\r\n"

--- Values -------------------------------------------------------------------------------------------------------

local function list(name)
  return function(record) return table.concat(record[name], " ") end
end

local function field(name)
  return function(record) return record[name] end
end

local function of(name)
  return function(_, owner) return owner[name] end
end

local function value(record) return number.text(record) or record.value end

-- Title and, from a record and what it belongs to, the content.
local COLUMNS = {
  { "address", of "address" }, { "id", of "id" }, { "manufacturer", of "manufacturer" }, { "version", of "version" },
  { "medium", of "medium_name" }, { "telegram", field "telegram" }, { "index", field "index" },
  { "function", field "function" }, { "storage", field "storage" }, { "tariff", field "tariff" },
  { "subunit", field "subunit" }, { "quantity", field "quantity" }, { "value", value }, { "unit", field "unit" },
  { "type", field "type" }, { "text", field "text" }, { "modifiers", list "modifiers" }, { "error", field "error" },
  { "flags", list "flags" }, { "raw_dif_hex", field "raw_dif_hex" }, { "raw_vif_hex", field "raw_vif_hex" },
  { "raw_data_hex", field "raw_data_hex" },
}

--- Text ---------------------------------------------------------------------------------------------------------

local function escape(code) return ("\\x%02X"):format(code) end

local function without_controls(text)
  text = text:gsub("[\0-\8\11\12\14-\31\127]", function(c) return escape(c:byte()) end)
  return (text:gsub("\xC2([\x80-\x9F])", function(c) return escape(c:byte()) end))
end

-- RFC 4180, 2.5 to 2.7. Blanks at an end are quoted too, for what reads the file and trims.
local function quote(content)
  if content == nil then return "" end
  local text = without_controls(tostring(content))
  if text:find('[,"\r\n]') or text:find("^[ \t]") or text:find("[ \t]$") then return '"' .. text:gsub('"', '""') .. '"' end
  return text
end

local function line(cells) return table.concat(cells, ",") .. LINE_END end

local function title()
  local cells = {}
  for c, column in ipairs(COLUMNS) do cells[c] = column[1] end
  return line(cells)
end

local function row(record, owner)
  local cells = {}
  for c, column in ipairs(COLUMNS) do cells[c] = quote(column[2](record, owner)) end
  return line(cells)
end

---@param source mbus.Telegram|mbus.Readout
local function rows(source, owner)
  local lines = {}
  for _, record in source:records() do lines[#lines + 1] = row(record, owner) end
  return table.concat(lines)
end

-- The address of a readout is the one that was asked for, that of a telegram is in its A field.
local function with_address(telegram)
  return setmetatable({ address = telegram.a }, { __index = function(_, key) return telegram[key] end })
end

--- What others call ---------------------------------------------------------------------------------------------

---@class mbus.format.csv.Options
---@field header? boolean  false: no header line, for rows that go behind others

local function titled(text, options) return options and options.header == false and text or title() .. text end

---@param telegram mbus.Telegram
---@param options? mbus.format.csv.Options
---@return string  lines that end with CR LF
function M.telegram(telegram, options) return titled(rows(telegram, with_address(telegram)), options) end

---@param whole mbus.Readout
---@param options? mbus.format.csv.Options
---@return string  lines that end with CR LF
function M.readout(whole, options) return titled(rows(whole, whole), options) end

---Writes any number of telegrams and readouts as one file.
---@param put fun(text: string)
---@return table  of functions: telegram(telegram), readout(readout), failure(), unread(), finish()
function M.stream(put)
  put(title())
  local rest = { header = false }
  return {
    telegram = function(telegram) put(M.telegram(telegram, rest)) end,
    readout = function(whole) put(M.readout(whole, rest)) end,
    failure = function() end,
    unread = function() end,
    finish = function() end,
  }
end

return M
