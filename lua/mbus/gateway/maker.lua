---Writes a config out of readouts: one connection, and for every record of every meter a binding that is ready to be used.
local number = require "mbus.format.number"
local text = require "mbus.format.text"

local M = {}

local function quoted(value) return (("%q"):format(text.printable(value)):gsub("\\\n", "\\n")) end

local function slug(value) return (tostring(value):lower():gsub("[^%w]+", "_"):gsub("^_+", ""):gsub("_+$", "")) end

-- What a record is called: its quantity, and whatever tells it from others of the same quantity.
local function base_name(meter, record)
  local parts = { meter, slug(record.quantity or "record") }
  if record["function"] ~= "instantaneous" then parts[#parts + 1] = record["function"] end
  for _, modifier in ipairs(record.modifiers or {}) do parts[#parts + 1] = slug(modifier) end
  if record.tariff > 0 then parts[#parts + 1] = ("tariff%d"):format(record.tariff) end
  if record.subunit > 0 then parts[#parts + 1] = ("subunit%d"):format(record.subunit) end
  if record.storage > 0 then parts[#parts + 1] = ("storage%d"):format(record.storage) end
  return table.concat(parts, "_")
end

local function unique(name, used)
  local candidate, count = name, 1
  while used[candidate] do
    count = count + 1
    candidate = ("%s_%d"):format(name, count)
  end
  used[candidate] = true
  return candidate
end

-- A unit that a config can hold: a plain-text one may have control characters in it.
local function unit_of(record)
  return record.unit and text.printable(record.unit) == record.unit and record.unit or nil
end

-- What finds this record and no other one, or nil. Modifiers, where others differ in them alone.
local function find_for(readout, record)
  if not record.quantity then return nil end
  local wanted = { quantity = record.quantity, unit = unit_of(record), storage = record.storage, tariff = record.tariff,
    subunit = record.subunit, ["function"] = record["function"] }
  if #(record.modifiers or {}) > 0 or #readout:select(wanted) > 1 then wanted.modifiers = record.modifiers or {} end
  return readout:find(wanted).index == record.index and wanted or nil
end

local function list_text(list)
  if #list == 0 then return "{}" end
  local parts = {}
  for i, item in ipairs(list) do parts[i] = quoted(item) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function setting_text(value)
  if type(value) == "table" then return list_text(value) end
  if type(value) ~= "number" then return quoted(value) end
  return math.type(value) == "integer" and ("%d"):format(value) or ("%.14g"):format(value)
end

local FIND = { "quantity", "unit", "function", "storage", "tariff", "subunit", "modifiers" }

local function find_text(wanted)
  if not wanted then return "none: others look the same" end
  local parts = {}
  for _, name in ipairs(FIND) do
    local key = name == "function" and '["function"]' or name
    local value = wanted[name]
    if value ~= nil then
      parts[#parts + 1] = ("%s = %s"):format(key, setting_text(value))
    end
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function value_text(record)
  local value = number.text(record) or record.value
  if value == nil then return "no value" end
  return text.printable(tostring(value)) .. (record.unit and " " .. text.printable(record.unit) or "")
end

local function address_text(address)
  return math.type(address) and ("%d"):format(address) or quoted(address)
end

-- A binding has one way to its record; the others stand beside it, to be copied.
local function add_binding(lines, address, readout, record, name)
  local unit = unit_of(record) and (", unit = %s"):format(quoted(record.unit)) or ""
  local quantity = record.quantity and (", quantity = %s"):format(quoted(record.quantity)) or ""
  lines[#lines + 1] = ("        { name = %s, address = %s, telegram = %d, index = %d%s%s }, -- %s"):format(quoted(name),
    address_text(address), record.telegram, record.position, quantity, unit, value_text(record))
  lines[#lines + 1] = ("        -- or: id = %d, or: find = %s"):format(record.index, find_text(find_for(readout, record)))
end

-- A meter at 0 or 254 is bound by its secondary address.
local function address_of(meter)
  local readout = meter.readout
  local address = meter.address
  if math.type(address) and address >= 1 and address <= 250 then return address end
  return type(address) == "string" and not address:find("F") and address or readout.secondary_address
end

local function add_meter(lines, meter, used)
  local readout, address = meter.readout, address_of(meter)
  local id = readout.id or tostring(meter.address)
  lines[#lines + 1] = ""
  lines[#lines + 1] = ("        -- meter %s, %s, %s, version %s%s"):format(id, text.printable(readout.manufacturer or "unknown"),
    text.printable(readout.medium_name or "unknown"), readout.version or "unknown",
    readout.secondary_address and ", secondary address " .. readout.secondary_address or "")
  if not address then
    lines[#lines + 1] = "        -- left out: it is at address 0 and has no secondary address"
    return
  end
  for _, record in readout:records() do
    add_binding(lines, address, readout, record, unique(base_name("m" .. slug(id), record), used))
  end
end

local OPTIONS = { "margin", "gap", "max_telegrams", "nke" }

-- Habits of the bus that differ from what is usual.
local function add_options(lines, options)
  local parts = {}
  for _, key in ipairs(OPTIONS) do
    if options[key] ~= nil then parts[#parts + 1] = ("%s = %s"):format(key, setting_text(options[key])) end
  end
  if #parts > 0 then lines[#lines + 1] = "      options = { " .. table.concat(parts, ", ") .. " }," end
end

local MORE = {
  '      -- title = "cellar",',
  '      -- master = "other",            this is the backup of the connection "other"',
  "      -- group_requests = true,       one readout of a meter serves all its bindings",
  "      -- line_delay_ratio = 1,        multiplies every timeout",
  "      -- offline_interval = 300000,   how often a meter is tried that does not answer",
  "      -- shutdown_timeout = 10000,    what may pass until the bus is left in order",
  '      -- report = "change",           values are told when they change, not at every poll',
}

local function add_settings(lines, options)
  if options.baudrate then lines[#lines + 1] = ("      baudrate = %d,"):format(options.baudrate) end
  lines[#lines + 1] = ("      period = %d, -- below 60000 it empties battery meters"):format(options.period)
  lines[#lines + 1] = ("      timeout = %s,"):format(setting_text(options.timeout or 3000))
  lines[#lines + 1] = ("      attempts = %d,"):format(options.attempts or 3)
  add_options(lines, options.options or {})
  if options.has_keys then
    lines[#lines + 1] = '      -- keys are not written by themselves: options = { keys = { ["12345678"] = "32 hex digits" } }'
  end
  table.move(MORE, 1, #MORE, #lines + 1, lines)
end

---@param found table[]    {address, readout} of each meter
---@param options table    url, name, period (ms); baudrate?, timeout? (ms), attempts?; options? as in the config; has_keys?;
---missed?: texts about who answered and is not in here
---@return string  Lua source of the config
function M.config(found, options)
  local lines = {
    ("-- Made by `mbus config make %s` on %s: %d %s."):format(text.printable(options.url), os.date("%Y-%m-%d"), #found,
      #found == 1 and "meter" or "meters"),
    "-- Run it:    mbus poll FILE          Check it:  mbus config check FILE",
    "-- Times are milliseconds. Delete the bindings that nobody needs, or set disabled = true.",
  }
  for _, missed in ipairs(options.missed or {}) do lines[#lines + 1] = "-- not in here: " .. text.printable(missed) end
  table.move({
    "return {",
    "  connections = {",
    "    {",
    ("      name = %s,"):format(quoted(options.name)),
    ("      url = %s,"):format(quoted(options.url)),
  }, 1, 5, #lines + 1, lines)
  add_settings(lines, options)
  table.move({
    "      bindings = {",
    "        -- telegram and index, or id, or find choose the record; access is \"R\", \"W\" or \"RW\".",
    "        -- transformation = { type = \"scaling\", factor = 0.001, unit = \"kWh\" } and others can be added.",
  }, 1, 3, #lines + 1, lines)
  local used = {}
  for _, meter in ipairs(found) do add_meter(lines, meter, used) end
  table.move({ "      },", "    },", "  },", "}", "" }, 1, 5, #lines + 1, lines)
  return table.concat(lines, "\n")
end

return M
