---Data records that go to a meter: made of tables or bytes, and compared with what the meter shows.
local core = require "mbus.core"

local M = {}

local NO_HEADER = 0x78 -- CI of user data without a header
local CI_SEND = 0x51
local MAX = 252
local ACTIONS = 0x0D -- VIFE 01 to 0D of a master command something else than to take the value (EN 13757-3, object actions)

local function with_data(record, data)
  local changed = {}
  for name, value in pairs(record) do changed[name] = value end
  changed.data = data
  return changed
end

local function reason(message) return (tostring(message):gsub("^.-bad argument #1 to '[^']*' %((.*)%)$", "%1")) end

-- What is missing in a record would be taken from the one behind it.
local function check_whole(level, i, bytes, is_last)
  local telegram = #bytes <= MAX and core.telegram(core.long(0x53, 0, CI_SEND, bytes)) -- there, actions may lack data
  if not telegram then return end
  if telegram.error then error(("record %d: %s"):format(i, telegram.error.message), level + 1) end
  if telegram.manufacturer_data and not is_last then error(("record %d takes all that follows"):format(i), level + 1) end
end

---The bytes of records. What cannot be a record raises.
---@param level integer         of the caller, for `error`
---@param records table|string  bytes; or an array of tables as mbus.encode.record takes them, and of bytes
---@param data? string          data field where a table has none
---@return string bytes
function M.encode(level, records, data)
  if type(records) == "string" then records = { records } end
  if type(records) ~= "table" or #records == 0 then error("an array of records is needed", level + 1) end
  local parts = {}
  for i, record in ipairs(records) do
    local bytes = record
    if type(record) == "table" then
      local ok, made = pcall(core.record, data and with_data(record, data) or record)
      if not ok then error(("record %d: %s"):format(i, reason(made)), level + 1) end
      bytes = made
    elseif type(record) ~= "string" then
      error(("record %d: a table, or bytes"):format(i), level + 1)
    else
      check_whole(level + 1, i, bytes, i == #records)
    end
    parts[i] = bytes
  end
  local all = table.concat(parts)
  if #all > MAX then error(("records of %d bytes do not fit a frame, which holds %d"):format(#all, MAX), level + 1) end
  return all
end

---What the bytes mean.
---@param bytes string
---@return table[] records
---@return boolean whole  that is all that is in them
function M.decode(bytes)
  local records = {}
  local telegram = core.telegram(core.long(0x08, 0, NO_HEADER, bytes))
  if not telegram then return records, false end
  for _, record in telegram:records() do records[#records + 1] = record end
  return records, not (telegram.error or telegram.manufacturer_data)
end

---Is it a command instead of a value?
---@param record table
---@return boolean
function M.is_action(record)
  local vif = record.raw_vif_hex
  for i = 3, #vif - 1, 2 do
    local code = tonumber(vif:sub(i, i + 1), 16) & 0x7F
    if vif:sub(1, 2):lower() ~= "fd" and vif:sub(1, 2):lower() ~= "fb" or i > 3 then
      if code <= ACTIONS then return true end
    end
  end
  return record.raw_data_hex == ""
end

local function same_place(one, other)
  return one.storage == other.storage and one.tariff == other.tariff and one.subunit == other.subunit
    and one["function"] == other["function"]
end

---Is `shown` the record of the meter that `sent` was written to?
---@param sent table
---@param shown table
---@return boolean
function M.is_same(sent, shown)
  return same_place(sent, shown) and sent.raw_vif_hex:lower() == shown.raw_vif_hex:lower()
end

---Does a selection want this record? A selection names a quantity; 7E is any, all ones any storage, tariff and subunit.
---@param selection table
---@param shown table
---@return boolean
function M.is_selected(selection, shown)
  if selection.quantity ~= "any_vif" and selection.quantity ~= shown.quantity then return false end
  return same_place(selection, shown) or selection.tariff > 0 and (selection.tariff + 1) & selection.tariff == 0
    and (selection.storage + 1) & selection.storage == 0
end

return M
