---One value of one meter: finds its record in a readout, transforms it, and tells it.
---
---The record that a binding saw first is the one it stays with: if another stands at its place later, of other quantity,
---unit, function, storage, tariff, subunit or modifiers (such as the phase), the value is bad, never silently that of another
---record.
local Error = require "mbus.error"
local Transformation = require "mbus.gateway.transformation"

local M = {}

---@class mbus.gateway.Binding
---@field name string
---@field title? string
---@field tag? string
---@field access "R"|"W"|"RW"
---@field address integer|string  as the config says it, 16 digits if secondary
---@field value any               nil while it is bad
---@field unit? string
---@field quality "good"|"uncertain"|"bad"
---@field error? string
---@field error_time? number      seconds since 1970, of the last error
---@field meter_time? string      date and time of the meter's clock, with the last value
---@field time? number            seconds since 1970, of the last value
---@field raw any                 the record's value, before the transformation
---@field record? table           the last one, of a binding that is written
---@field seen? table             which record it saw first
---@field stopped boolean
local Binding = {}
Binding.__index = Binding
Binding.stopped, Binding.failures, Binding.quality = false, 0, "bad" -- until something else is known

-- What makes a record another one.
local IDENTITY = { "quantity", "unit", "function", "storage", "tariff", "subunit" }

---@param settings table  checked
---@param connection table
---@return mbus.gateway.Binding
function M.new(settings, connection)
  return setmetatable({
    settings = settings, connection = connection, name = settings.name, title = settings.title, tag = settings.tag,
    access = settings.access, address = settings.address.text,
    chain = settings.transformation and Transformation.new(settings.transformation),
    polls = 0,
  }, Binding)
end

---Goes on where a binding with the same settings was, when a config is loaded again.
---@param old mbus.gateway.Binding
function Binding:inherit(old)
  for _, field in ipairs { "value", "unit", "quality", "error", "error_time", "meter_time", "time", "raw", "stopped", "polls",
    "failures", "seen", "record" } do
    self[field] = old[field]
  end
  if self.chain and old.chain then self.chain = Transformation.new(self.settings.transformation, old.chain.states) end
end

---@return string  "connection/binding"
function Binding:full_name() return self.connection.name .. "/" .. self.name end

function Binding:is_read() return self.access ~= "W" and not self.settings.disabled and not self.stopped end

-- ------------------------------------------------------------------ its record

-- Record by its place in one telegram.
local function by_index(settings, readout)
  local telegram = readout.telegrams[(settings.telegram or 0) + 1]
  if not telegram then
    return nil, ("telegram %d is beyond the readout, which has %d"):format(settings.telegram, #readout.telegrams)
  end
  local record = telegram:record(settings.index)
  if record then return record end
  return nil, ("index %d is beyond telegram %d, which has %d records"):format(settings.index, settings.telegram or 0, #telegram)
end

-- Record by its number over all telegrams. A DIF 0F or 1F counts as one, as in libmbus.
local function by_id(settings, readout)
  local base = 0
  for _, telegram in ipairs(readout.telegrams) do
    local record = settings.id >= base and settings.id - base < #telegram and telegram:record(settings.id - base)
    if record then return record end
    base = base + #telegram + (telegram.manufacturer_data and 1 or 0)
  end
  if settings.id < base then return nil, ("id %d is data of the manufacturer, no record"):format(settings.id) end
  return nil, ("id %d is beyond the readout, which has %d records"):format(settings.id, base)
end

local function described(wanted)
  local parts = {}
  for name, value in pairs(wanted) do
    parts[#parts + 1] = name .. " " .. (type(value) == "table" and table.concat(value, ",") or tostring(value))
  end
  table.sort(parts)
  return table.concat(parts, ", ")
end

local function by_find(settings, readout)
  local record = readout:find(settings.find)
  if record then return record end
  return nil, "no record with " .. described(settings.find)
end

local function find_record(settings, readout)
  if settings.find then return by_find(settings, readout) end
  if settings.id then return by_id(settings, readout) end
  if settings.index then return by_index(settings, readout) end
  return nil, "it is only written"
end

local UNKNOWN = { manufacturer_specific = true, reserved = true }

-- The VIF of a record whose meaning the standard leaves open: that of its maker, which has many under one name.
local function own_vif(record)
  if UNKNOWN[record.quantity] then return record.raw_vif_hex end
  for _, modifier in ipairs(record.modifiers) do
    if UNKNOWN[modifier] then return record.raw_vif_hex end
  end
end

-- What a record is, whatever its value.
local function identity_of(record)
  local identity = { modifiers = table.concat(record.modifiers, ", "), vif = own_vif(record) }
  for _, name in ipairs(IDENTITY) do identity[name] = record[name] end
  return identity
end

local identities = setmetatable({}, { __mode = "v" }) -- by all that is in them: shared by bindings to such records

local function shared(identity)
  local key = ("%s;%s;%s;%d;%d;%d;%s;%s"):format(identity.quantity, identity.unit, identity["function"], identity.storage,
    identity.tariff, identity.subunit, identity.modifiers, identity.vif)
  identities[key] = identities[key] or identity
  return identities[key]
end

local function has_modifiers(record, text)
  if not record.modifiers[1] then return text == "" end
  return text ~= "" and table.concat(record.modifiers, ", ") == text
end

local function is_that(record, seen)
  return record.quantity == seen.quantity and record.unit == seen.unit and record["function"] == seen["function"]
    and record.storage == seen.storage and record.tariff == seen.tariff and record.subunit == seen.subunit
    and has_modifiers(record, seen.modifiers) and own_vif(record) == seen.vif
end

local function differs(identity, wanted)
  for _, name in ipairs(IDENTITY) do
    if wanted[name] ~= nil and identity[name] ~= wanted[name] then
      return ("%s %s instead of %s %s"):format(name, identity[name], name, wanted[name])
    end
  end
end

-- What was absent has to be absent.
local function has_changed(identity, seen)
  local reason = differs(identity, seen)
  if reason then return reason end
  if identity.unit ~= seen.unit then return ("unit %s instead of none"):format(identity.unit) end
  if identity.modifiers == seen.modifiers then return ("VIF %s instead of %s"):format(identity.vif, seen.vif) end
  return ("with %s instead of %s"):format(identity.modifiers ~= "" and identity.modifiers or "no modifiers",
    seen.modifiers ~= "" and seen.modifiers or "none")
end

---The record of this binding, or why there is none.
---@param readout mbus.Readout
---@return table? record
---@return string? reason
function Binding:find(readout)
  local settings = self.settings
  local record, reason = find_record(settings, readout)
  if not record then
    return nil, readout.error and ("%s: %s"):format(reason, readout.error.message) or reason
  end
  local seen = self.seen
  if seen and is_that(record, seen) then return record end -- the settings had nothing against it
  local identity = identity_of(record)
  reason = differs(identity, settings) or seen and has_changed(identity, seen)
  if reason then return nil, "another record is at its place: " .. reason end
  self.seen = shared(identity)
  return record
end

-- Where its record is, if that can be told without looking at it.
local function place(settings, readout)
  local telegrams = readout.telegrams
  if settings.index then return telegrams[(settings.telegram or 0) + 1], settings.index end
  if settings.id then return telegrams[1], settings.id end -- beyond that one telegram:plain finds nothing
  for _, telegram in ipairs(telegrams) do
    local position = telegram:position(settings.find)
    if position then return telegram, position end
  end
end

-- Value and unit of the record that it saw first, if that is at its place and there is nothing else to say of it: nearly
-- always, and then nobody needs a table of it. nil: have a closer look.
local function plain_value(self, readout)
  local seen = self.seen
  if not seen or seen.vif or seen.modifiers ~= "" then return nil end
  if self.access ~= "R" or self.chain and self.chain.has_functions then return nil end
  local telegram, position = place(self.settings, readout)
  if not telegram then return nil end
  local quantity, value, unit, fn, storage, tariff, subunit = telegram:plain(position)
  if quantity == seen.quantity and unit == seen.unit and fn == seen["function"] and storage == seen.storage
    and tariff == seen.tariff and subunit == seen.subunit then
    return value, unit
  end
end

-- ------------------------------------------------------------------ its value

local DOUBTFUL = { time_invalid = true }

-- What a record says of its own value.
local function judge(record)
  if record.error then return "bad", "the meter reports: " .. tostring(record.error):gsub("_", " ") end
  for _, flag in ipairs(record.flags) do
    if flag == "value_invalid" then return "bad", "the meter marks the value as not available" end
    if DOUBTFUL[flag] then return "uncertain", "the meter marks its time as invalid" end
  end
  if record.value == nil then
    return "bad", record.flags[1] and "no valid value: " .. record.flags[1]:gsub("_", " ") or "the record has no value"
  end
  return "good"
end

-- Bits of the status byte: permanent and temporary error (EN 13757-3).
local METER_ERROR = 0x08 | 0x10

-- What is to be told, as the meter says it.
local function news_of(self, quality, text, time)
  return { binding = self, connection = self.connection, value = nil, unit = nil, quality = quality, error = text, time = time,
    meter_time = nil, raw = nil }
end

local function news_of_value(self, value, unit, readout, time, quality, text)
  local status = quality == "good" and readout.status or 0
  if status & METER_ERROR ~= 0 then
    quality, text = "uncertain", ("the meter reports an error (status %02Xh)"):format(status)
  end
  local news = news_of(self, quality, text, time)
  if quality ~= "bad" then news.value = value end
  news.unit, news.raw = unit, value
  return news
end

local function transform(self, news, now, record, readout)
  if not self.chain then return end
  local context = { name = self.name, tag = self.tag, unit = news.unit, address = self.address, meter_time = news.meter_time,
    secondary_address = readout and readout.secondary_address, previous = self.value, time = now, record = record }
  self.chain:apply(news, context, now)
end

local function moved(self, news)
  if news.quality ~= self.quality or news.error ~= self.error or news.unit ~= self.unit then return true end
  local dead_band = self.settings.dead_band or 0
  local value, told = news.value, self.told
  if math.type(value) and math.type(told) then return math.abs(value - told) > dead_band end
  return value ~= told
end

-- Takes over what is to be told. Returns nil where nothing has changed.
local function settle(self, news)
  local always = (self.settings.report or self.connection.settings.report) == "poll"
  local tells = always or self.told_quality == nil or moved(self, news)
  self.value, self.unit, self.quality, self.error = news.value, news.unit, news.quality, news.error
  self.raw, self.time = news.raw, news.time
  if news.meter_time then self.meter_time = news.meter_time end
  if news.error then self.error_time = news.time end
  if not tells then return nil end
  if not always then self.told, self.told_quality = news.value, news.quality end
  return news
end

local function settle_poll(self, news)
  self.polls = self.polls + 1
  if news.quality == "bad" then self.failures = self.failures + 1 end
  return settle(self, news)
end

---Takes its value out of a readout.
---@param readout mbus.Readout
---@param now number          seconds on the clock of the gateway
---@param time number         seconds since 1970
---@param meter_time? string
---@return table? news        {binding, connection, value, unit, quality, error, time, meter_time, raw}
function Binding:take(readout, now, time, meter_time)
  local value, unit = plain_value(self, readout)
  local news, record, reason
  if value ~= nil then
    news = news_of_value(self, value, unit, readout, time, "good")
  else
    record, reason = self:find(readout)
    news = record and news_of_value(self, record.value, record.unit, readout, time, judge(record))
      or news_of(self, "bad", reason, time)
  end
  news.meter_time = meter_time
  if record and self.access ~= "R" then self.record = record end -- as the model for writing
  transform(self, news, now, record, readout)
  return settle_poll(self, news)
end

---There is no readout.
---@param text string
---@param now number
---@param time number
---@return table? news
function Binding:fail(text, now, time)
  local news = news_of(self, "bad", text, time)
  transform(self, news, now)
  return settle_poll(self, news)
end

---It is not polled any more.
---@param text string  "shutdown"
---@param time number
---@return table? news
function Binding:halt(text, time)
  if self.chain then self.chain:interrupt() end
  return settle(self, news_of(self, "bad", text, time))
end

---Forgets errors, counters, the state of the transformation and which record it saw first.
function Binding:clear()
  self.polls, self.failures, self.error_time, self.seen = 0, 0, nil, nil
  if self.quality ~= "bad" then self.error = nil end
  if self.chain then self.chain:clear() end
end

-- ------------------------------------------------------------------ writing

local function invalid(self, ...)
  return nil, Error.new("invalid", self:full_name() .. ": " .. string.format(...), { address = self.address })
end

-- As the meter reports it: the same DIF and VIF, storage, tariff and subunit.
local function like_reported(record, value)
  local copy = {}
  for key, field in pairs(record) do copy[key] = field end
  copy.value, copy.raw, copy.text, copy.flags, copy.raw_data_hex = value, nil, nil, nil, nil
  return copy
end

local function as_told(settings, reported, value)
  local record = reported and not settings.vif and like_reported(reported, value) or {}
  local vif = settings.vif
  if settings.quantity or settings.unit or vif then record.raw_vif_hex, record.modifiers, record.exponent = nil, nil, nil end
  for key, field in pairs(settings) do record[key] = field end
  if settings.data then record.raw_dif_hex = nil end
  if vif then
    record.vif = require("mbus.core").unhex(vif)
    record.raw = math.type(value) == "float" and math.tointeger(value) or value
  else
    record.value = value
  end
  return record
end

---The data record that sets a value.
---@param value any    as the binding gives it, behind its transformation
---@return string? record  bytes
---@return mbus.Error? err  kind `invalid`
function Binding:encode(value)
  local settings = self.settings.write
  if self.chain then
    local inverted, reason = self.chain:invert(value)
    if inverted == nil then return invalid(self, "%s", reason) end
    value = inverted
  end
  if not self.record and not (settings and (settings.vif or settings.quantity)) then
    return invalid(self, "the meter has not shown this record yet, and the binding does not say how to write it")
  end
  local record = settings and as_told(settings, self.record, value) or like_reported(self.record, value)
  local ok, bytes = pcall(require("mbus.core").record, record)
  if ok then return bytes end
  return invalid(self, "%s", (tostring(bytes):gsub("^.-bad argument #1 to '[^']*' %((.*)%)$", "%1")))
end

-- The least difference of two values of a record; a real32 has none.
local function step_of(record)
  return math.type(record.raw) ~= "float" and 10.0 ^ (record.exponent or 0) * (record.factor or 1) or nil
end

local REAL = 2.0 ^ -23 -- relative difference of neighbours

-- A meter that counts in larger steps shows less than was written, rounded up or down; a real32 is near it. All else is equal.
local function is_near(written, shown)
  local one, other = written.value, shown.value
  local fine, coarse = step_of(written), step_of(shown)
  local slack = fine and coarse and 0 or REAL * math.max(math.abs(one), math.abs(other))
  if coarse and (not fine or coarse > fine) then slack = slack + coarse - (fine or 0) * (1 - 1e-9) end
  return math.abs(one - other) <= slack
end

local function is_same(written, shown)
  local one, other = written.value, shown.value
  if one == other then return true end
  if math.type(one) and math.type(other) then return is_near(written, shown) end
  -- A clock that was set to the minute shows seconds, too.
  return written.type == "datetime" and shown.type == "datetime" and other:sub(1, #one) == one
end

---Whether the meter shows what was written.
---@param bytes string  of the record, as `encode` gave them
---@param readout mbus.Readout
---@return boolean? same  nil: there is nothing to compare
---@return any shown
function Binding:compare(bytes, readout)
  local record = find_record(self.settings, readout)
  if not record then return nil end
  local frame = require("mbus.core").long(0x08, 0, 0x78, bytes)
  local telegram = require("mbus.core").telegram(frame)
  local written = telegram and telegram:record(0)
  if not written or written.quantity ~= record.quantity then return nil end
  return is_same(written, record), record.value
end

return M
