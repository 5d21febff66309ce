---Lists of meters, as a scan finds them: a table for people, JSON, CSV. Each meter is written as soon as it is known.
---
---    local list = require("mbus.format.meters").stream("table", io.write)
---    for meter in bus:scan() do list.meter(meter) end
---    list.finish()
local text = require "mbus.format.text"

local M = {}

M.formats = { "table", "json", "jsonl", "csv" }

--- Table -------------------------------------------------------------------------------------------------------

local function words(name) return (name:gsub("_", " ")) end

local function remark(meter)
  if meter.collision then return "several meters answer" end
  if meter.error then return meter.error.message end
  return meter.fabrication and "fabrication number " .. meter.fabrication or ""
end

-- What the last column says: the medium, and what is wrong.
local function last_cell(meter)
  local parts = { meter.medium_name and words(meter.medium_name) }
  local note = remark(meter)
  if note ~= "" then parts[#parts + 1] = note end
  return table.concat(parts, "; ")
end

local function cell(name)
  return function(meter) return tostring(meter[name] or "") end
end

-- Widths are fixed, since the meters to come are not known.
local ADDRESS = { "Address", 7, cell "address", right = true }
local SECONDARY = { "Secondary address", 17, function(meter) return meter.secondary_address or "" end }
local SELECTED = { "Secondary address", 17, cell "address" }
local PRIMARY = { "Primary", 7, cell "primary_address", right = true }
local BAUD = { "Baud", 5, cell "baudrate", right = true }
local REST = {
  { "Id", 8, cell "id" },
  { "Maker", 5, function(meter) return text.printable(meter.manufacturer or "") end },
  { "Version", 7, cell "version", right = true },
  { "Medium", 6, last_cell },
}

local function columns_of(options)
  local columns = options.secondary and { SELECTED, PRIMARY } or { ADDRESS, SECONDARY }
  for _, column in ipairs(REST) do columns[#columns + 1] = column end
  if options.speeds then table.insert(columns, 3, BAUD) end
  return columns
end

local function join(columns, content)
  local cells = {}
  for i, column in ipairs(columns) do cells[i] = text.pad(content(column), column[2], column.right) end
  return (table.concat(cells, "  "):gsub("%s+$", "")) .. "\n"
end

local function table_stream(put, options)
  local columns, begun = columns_of(options), false
  return {
    meter = function(meter)
      if not begun then
        local title = join(columns, function(column) return column[1] end)
        put(options.colour and "\27[1m" .. title:sub(1, -2) .. "\27[0m\n" or title)
      end
      begun = true
      put(join(columns, function(column) return column[3](meter) end))
    end,
    finish = function() end,
  }
end

--- JSON ---------------------------------------------------------------------------------------------------------

local KEYS = { "address", "id", "manufacturer", "version", "medium", "medium_name", "secondary_address", "primary_address",
  "fabrication", "baudrate", "collision", "error" }
local ORDER = table.move({ "kind", "text" }, 1, 2, #KEYS + 1, table.move(KEYS, 1, #KEYS, 1, {}))
local OPTIONAL = { fabrication = true }

local function members(meter)
  local null = require("dkjson").null
  local object = {}
  for _, key in ipairs(KEYS) do
    local value = meter[key]
    if value == nil and not OPTIONAL[key] then value = null end
    object[key] = value
  end
  object.collision = meter.collision == true
  object.error = meter.error and { kind = meter.error.kind, text = meter.error.message } or null
  return object
end

---One meter as a JSON object on one line.
---@param meter mbus.FoundMeter
---@return string
function M.json(meter)
  local object = require("dkjson").encode(members(meter), { keyorder = ORDER })
  if not meter.readout then return object end
  local readout = require("mbus.format.json").readout(meter.readout, nil, meter.error)
  return object:sub(1, -2) .. ',"readout":' .. readout .. "}"
end

local function json_stream(put)
  local count = 0
  return {
    meter = function(meter)
      count = count + 1
      put((count == 1 and "[\n" or ",\n") .. M.json(meter))
    end,
    finish = function() put(count == 0 and "[]\n" or "\n]\n") end,
  }
end

local function jsonl_stream(put)
  return { meter = function(meter) put(M.json(meter) .. "\n") end, finish = function() end }
end

--- CSV ----------------------------------------------------------------------------------------------------------

-- RFC 4180.
local function quote(value)
  local content = text.printable(tostring(value))
  return content:find('[,"]') and '"' .. content:gsub('"', '""') .. '"' or content
end

local function csv_row(value_of)
  local cells = {}
  for i, key in ipairs(KEYS) do cells[i] = quote(value_of(key)) end
  return table.concat(cells, ",") .. "\r\n"
end

local function csv_stream(put)
  local begun = false
  local function begin()
    if not begun then put(csv_row(function(key) return key end)) end
    begun = true
  end
  return {
    meter = function(meter)
      begin()
      put(csv_row(function(key)
        if key == "error" then return meter.error and meter.error.kind or "" end
        local value = meter[key]
        return value == nil and (key == "collision" and "false" or "") or value
      end))
    end,
    finish = begin,
  }
end

--- What others call ---------------------------------------------------------------------------------------------

local STREAMS = { table = table_stream, json = json_stream, jsonl = jsonl_stream, csv = csv_stream }

---@class mbus.format.meters.Options
---@field secondary? boolean  table: addresses are secondary ones
---@field speeds? boolean     table: show the baud rate, since there are several
---@field colour? boolean     table: bold heading

---@param format "table"|"json"|"jsonl"|"csv"
---@param put fun(text: string)
---@param options? mbus.format.meters.Options
---@return table  of functions: meter(meter), finish()
function M.stream(format, put, options)
  local start = STREAMS[format] or error("unknown format: " .. tostring(format), 2)
  return start(put, options or {})
end

return M
