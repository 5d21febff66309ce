---All telegrams of one meter, in order, and their records as one list.
---
---    for _, record in readout:records() do print(record.index, record.quantity, record.value, record.unit) end
---    local energy = readout:find { quantity = "energy", storage = 0 }
---    print(readout.id, readout.manufacturer, #readout)
---
---What else a telegram has (id, manufacturer, version, medium, medium_name, status, ...) is that of the first one.
local problem = require("mbus.decode").problem

---@class mbus.Readout : mbus.Telegram
---@field address integer|string  as it was asked for
---@field telegrams mbus.Telegram[]
---@field error? mbus.Error  of the first telegram whose tail is damaged; the records before it are good
local Readout = {}
local methods = {}

---@param address? integer|string
---@param telegrams? mbus.Telegram[]
---@return mbus.Readout
function Readout.new(address, telegrams)
  return setmetatable({ address = address, telegrams = telegrams or {} }, Readout)
end

local function first_error(telegrams)
  for _, telegram in ipairs(telegrams) do
    local err = problem(telegram)
    if err then return err end
  end
end

function Readout:__index(key)
  if methods[key] then return methods[key] end
  local telegrams = rawget(self, "telegrams")
  if key == "error" then return first_error(telegrams) end
  return telegrams[1] and telegrams[1][key]
end

---Good records of all telegrams.
function Readout:__len()
  local count = 0
  for _, telegram in ipairs(self.telegrams) do count = count + #telegram end
  return count
end

function Readout:__tostring()
  return ("mbus.Readout: %s, %d telegrams, %d records"):format(self.address, #self.telegrams, #self)
end

-- Index of the first record behind a telegram. libmbus counts DIF 0F and 1F as a record, and so do we.
local function following(base, telegram)
  return base + #telegram + (telegram.manufacturer_data and 1 or 0)
end

-- Walks the telegrams: number from 0, index of the first record, telegram.
local function walk(telegrams)
  local number, base = -1, 0
  return function()
    local last = telegrams[number + 1]
    if last then base = following(base, last) end
    number = number + 1
    local telegram = telegrams[number + 1]
    if telegram then return number, base, telegram end
  end
end

local function placed(record, number, base)
  record.index, record.telegram = base + record.position, number
  return record
end

-- Chains the iterators that `start` makes of each telegram; `give` finishes what they return.
local function chain(telegrams, start, give)
  local next_telegram = walk(telegrams)
  local number, base, step, state, control
  local function advance(position, ...)
    if position then
      control = position
      return give(number, base, position, ...)
    end
    local telegram
    number, base, telegram = next_telegram()
    if not telegram then return nil end
    step, state, control = start(telegram)
    return advance(step(state, control))
  end
  return function()
    if not step then return advance(nil) end
    return advance(step(state, control))
  end
end

-- Where an index is: number of the telegram, index of its first record, telegram; of the first one if it is nowhere.
local function place_of(telegrams, index)
  for number, base, telegram in walk(telegrams) do
    if index < following(base, telegram) then return number, base, telegram end
  end
  return 0, 0, telegrams[1]
end

---@param index integer  from 0
---@return mbus.Record? record
function methods:record(index)
  local number, base, telegram = place_of(self.telegrams, index)
  local record = telegram and telegram:record(index - base)
  return record and placed(record, number, base)
end

---The records that a compact profile packs.
---@param index integer  of the profile; raises where there is no such record
---@return mbus.Record[]? records  each with its `time`
---@return mbus.Error? err    it is no profile
function methods:profile(index)
  local _, base, telegram = place_of(self.telegrams, index)
  if not telegram then error("no such record", 2) end
  return telegram:profile(index - base)
end

---@return fun(): integer?, mbus.Record?  index and record, in order
function methods:records()
  return chain(self.telegrams, function(telegram) return telegram:records() end, function(number, base, _, record)
    placed(record, number, base)
    return record.index, record
  end)
end

---Walks the records without making tables of them.
---@return fun(): ...  index, quantity, value, unit, function, storage, tariff, subunit
function methods:each()
  return chain(self.telegrams, function(telegram) return telegram:each() end, function(_, base, position, ...)
    return base + position, ...
  end)
end

---@param wanted mbus.Query
---@return mbus.Record? record  the first that fits
function methods:find(wanted)
  local base = 0
  for number, telegram in ipairs(self.telegrams) do
    local record = telegram:find(wanted)
    if record then return placed(record, number - 1, base) end
    base = following(base, telegram)
  end
end

local function presence(...) return select("#", ...) > 0, ... end

---@param wanted mbus.Query
---@return any value    of the first record that fits, without making a table of it; nil also if there is none
---@return string? unit
function methods:value(wanted)
  for _, telegram in ipairs(self.telegrams) do
    local is_there, value, unit = presence(telegram:value(wanted))
    if is_there then return value, unit end
  end
end

---@param wanted mbus.Query
---@return mbus.Record[] records  all that fit, in order
function methods:select(wanted)
  local found = {}
  for number, base, telegram in walk(self.telegrams) do
    for _, record in ipairs(telegram:select(wanted)) do
      found[#found + 1] = placed(record, number, base)
    end
  end
  return found
end

return Readout
