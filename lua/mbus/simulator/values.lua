---What a simulated meter remembers of commands: records written to it, its clock once that was set, which records it is to
---send. A record is taken if the meter sends one with the same DIB and VIB; a clock runs on from where it was set.
local clock = require "mbus.clock"
local core = require "mbus.core"

---@class mbus.simulator.Values
---@field written table<string, string>  data by DIB and VIB
---@field clock? table                   seconds, when they were set, summer_time
---@field selection? table[]             records that were asked for
local Values = {}
Values.__index = Values

local NO_HEADER = 0x78
local SELECTION, GLOBAL = 0x08, 0x7F -- DIF: data field 8; readout of everything
local CLOCKS = { ["046d"] = clock.type_f, ["066d"] = clock.type_i }

---@return mbus.simulator.Values
function Values.new() return setmetatable({ written = {} }, Values) end

local function records_of(ci, data)
  local telegram, records = core.telegram(core.long(0x08, 0, ci, data)), {}
  if not telegram then return records end
  for _, record in telegram:records() do records[#records + 1] = record end
  return records
end

local function key_of(record) return (record.raw_dif_hex .. record.raw_vif_hex):lower() end

local function is_selection(record) return tonumber(record.raw_dif_hex:sub(1, 2), 16) & 0x0F == SELECTION end

local function set_clock(self, record, time)
  local set = record.value and clock.parse(record.value)
  if not set then return end
  local summer = false
  for _, flag in ipairs(record.flags or {}) do summer = summer or flag == "summer_time" end
  self.clock = { seconds = clock.seconds(set), time = time, summer_time = summer }
end

---@param data string  records, as they stand behind CI 51
---@param time number  seconds
function Values:write(data, time)
  if data:byte() == GLOBAL then
    self.selection = nil
    return
  end
  local selection = {}
  for _, record in ipairs(records_of(NO_HEADER, data)) do
    if is_selection(record) then
      selection[#selection + 1] = record
    elseif CLOCKS[key_of(record)] then
      self.clock_key = key_of(record)
      set_clock(self, record, time)
    else
      self.written[key_of(record)] = core.unhex(record.raw_data_hex)
    end
  end
  if selection[1] then self.selection = selection end
end

-- Records of a meter may be of another type than the clock that was sent: then nothing was set.
local function present(self, record, time)
  local key = key_of(record)
  local encode = CLOCKS[key]
  if not (encode and self.clock and self.clock_key == key) then return self.written[key] end
  local now = clock.at(self.clock.seconds + math.max(0, time - self.clock.time))
  now.summer_time = self.clock.summer_time
  return encode(now)
end

local FRAME = 7 -- bytes before the data of a frame

---A telegram with what was written in its place.
---@param ci integer
---@param data string
---@param time number
---@return string data
function Values:patch(ci, data, time)
  if not self.clock and not next(self.written) then return data end
  for _, record in ipairs(records_of(ci, data)) do
    local value = present(self, record, time)
    if value and #value == #record.raw_data_hex // 2 then
      local at = record.offset - FRAME + (#record.raw_dif_hex + #record.raw_vif_hex) // 2
      data = data:sub(1, at) .. value .. data:sub(at + #value + 1)
    end
  end
  return data
end

local function is_all_ones(number) return number > 0 and (number + 1) & number == 0 end

local function is_wanted(record, selection)
  for _, one in ipairs(selection) do
    local same = one.storage == record.storage and one.tariff == record.tariff and one.subunit == record.subunit
      and one["function"] == record["function"]
    local any = is_all_ones(one.tariff) and is_all_ones(one.storage)
    if (same or any) and (one.quantity == "any_vif" or one.raw_vif_hex:lower() == record.raw_vif_hex:lower()) then return true end
  end
  return false
end

---The records of a telegram that were asked for.
---@param ci integer
---@param data string
---@return string records
function Values:chosen(ci, data)
  local parts = {}
  for _, record in ipairs(records_of(ci, data)) do
    if is_wanted(record, self.selection) then
      parts[#parts + 1] = core.unhex(record.raw_dif_hex .. record.raw_vif_hex .. record.raw_data_hex)
    end
  end
  return table.concat(parts)
end

---After an application reset.
function Values:unselect() self.selection = nil end

return Values
