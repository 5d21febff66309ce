---Makes bytes: data records, clocks, headers, telegrams, and every frame that a master sends. No I/O; what does not fit
---raises.
---
---    local encode = require "mbus.encode"                   -- also mbus.encode
---    encode.record { quantity = "volume", unit = "m3", value = 12.5, data = "bcd8" }
---    encode.write(5, { { quantity = "volume", unit = "m3", value = 0, data = "bcd8" } })
---    encode.select("12345678FFFFFFFF")
---    encode.clock(1, "2024-02-29T13:45", { type = "F" })
---
---A frame to a meter has C = 53; with 1 as last argument, the frame count bit, 73 (see mbus.request).
local Address = require "mbus.address"
local clock = require "mbus.clock"
local core = require "mbus.core"
local options_of = require "mbus.options"
local records = require "mbus.records"
local request = require "mbus.request"

---@class mbus.encode
local M = {
  ACK = core.ACK,
  record = core.record,
  short = core.short,
  long = core.long,
  snd_nke = request.snd_nke,
  req_ud1 = request.req_ud1,
  req_ud2 = request.req_ud2,
  snd_ud = request.snd_ud,
  application_reset = request.application_reset,
  set_primary_address = request.set_primary_address,
  set_secondary_address = request.set_secondary_address,
  set_baudrate = request.set_baudrate,
  synchronize = request.synchronize,
}

local ALL = "\x7F"
-- Options.
local SELECT = { fabrication = true, records = true, fcb = true, mode2 = true }
local CLOCK = { type = true, summer_time = true, hundred_years = true, fcb = true }
local TELEGRAM = { more = true, manufacturer_data = true }

---Data records, one behind the other.
---@param list table|string  bytes, or an array of tables as `record` takes them and of bytes
---@return string
function M.records(list)
  local bytes = records.encode(2, list)
  return bytes
end

---Writes values: CI 51.
---@param a integer
---@param list table|string  as for `records`
---@param fcb? integer
---@return string bytes
function M.write(a, list, fcb) return request.write(a, records.encode(2, list), fcb) end

---Chooses which records a meter sends.
---@param a integer
---@param list table|string  "all"; or an array of { quantity=, storage=, ... } without values, and of bytes
---@param fcb? integer
---@return string bytes
function M.select_records(a, list, fcb)
  return request.write(a, list == "all" and ALL or records.encode(2, list, "selection"), fcb)
end

-- 8 digits of a fabrication number, F is any.
local function fabrication_record(digits)
  if type(digits) ~= "string" or #digits ~= 8 or digits:find("%X") then
    error("a fabrication number has 8 hex digits, F as wildcard", 3)
  end
  return "\x0C\x78" .. Address.bytes(digits:upper())
end

---Selects by secondary address, and by further records that must match.
---@param mask string      8 or 16 hex digits, F and FF as wildcards
---@param options? table   fabrication: 8 digits; records: as for `records`, behind the address; fcb: 1 for C = 73; mode2:
---CI 56, most significant byte first, for old meters; it deselects all others
---@return string bytes
function M.select(mask, options)
  local address, err = Address.parse(mask)
  if not (address and address.digits) then error(tostring(err or "a selection has 8 or 16 hex digits"), 2) end
  options = options_of.check(options, SELECT, 2)
  local more = options.fabrication and fabrication_record(options.fabrication) or ""
  if options.records then more = more .. records.encode(2, options.records) end
  local c = options.fcb == 1 and 0x73 or 0x53
  if options.mode2 then return request.select_mode2(address.digits, c, more) end
  return request.select(address.digits, c, more)
end

---SND_NKE to 253.
---@return string bytes
function M.deselect() return request.snd_nke(Address.SELECTED) end

-- A copy: the table is the caller's.
local function with_summer_time(time, summer_time)
  local copy = {}
  for name, value in pairs(time) do copy[name] = value end
  copy.summer_time = summer_time
  return copy
end

---Sets the clock.
---@param a integer
---@param time string|mbus.Time  "2024-02-29T13:45:30"
---@param options? table  type: "F" (default) or "I"; summer_time: true; hundred_years: true; fcb
---@return string bytes
function M.clock(a, time, options)
  options = options_of.check(options, CLOCK, 2)
  local kind = options.type or "F"
  if kind ~= "F" and kind ~= "I" then error('option type: "F" or "I" expected', 2) end
  local parsed, err = time, nil
  if type(time) == "string" then parsed, err = clock.parse(time) end
  if not parsed then error(tostring(err), 2) end
  if not clock.is_settable(parsed) then error("no date and time from 1981 to 2080", 2) end
  if options.summer_time ~= nil then parsed = with_summer_time(parsed, options.summer_time) end
  return request.write(a, clock.record(parsed, kind, options.hundred_years), options.fcb)
end

-- Three letters, or the number itself (EN 62056-21).
local function manufacturer_code(value)
  if math.type(value) == "integer" and value >= 0 and value <= 0xFFFF then return value end
  if type(value) ~= "string" or not value:find("^%u%u%u$") then
    error("a manufacturer is three capital letters or a number below 65536", 3)
  end
  local a, b, c = value:byte(1, 3)
  return (a - 64) << 10 | (b - 64) << 5 | (c - 64)
end

local function short_header(fields)
  return ("<BBI2"):pack(fields.access_no or 0, fields.status or 0, fields.configuration or 0)
end

---A header of four bytes (CI 7A).
---@param fields? table  access_no, status, configuration: numbers, 0 by default
---@return string
function M.short_header(fields) return short_header(fields or {}) end

---A header of twelve bytes (CI 72).
---@param fields table  id: 8 hex digits; manufacturer: three letters or number; version, medium; and as in `short_header`
---@return string
function M.long_header(fields)
  local id = fields.id
  if type(id) ~= "string" or #id ~= 8 or id:find("%X") then error("an id has 8 hex digits", 2) end
  return ("<I4I2BB"):pack(tonumber(id, 16), manufacturer_code(fields.manufacturer or 0), fields.version or 0, fields.medium or 0)
    .. short_header(fields)
end

---What a meter sends: RSP_UD.
---@param a integer
---@param fields table   of the header: a long one if there is an id, a short one without; c (0x08) and ci as an exception
---@param list? table|string  as for `records`
---@param options? table  more: true, DIF 1F at the end, more telegrams follow; manufacturer_data: bytes behind DIF 0F
---@return string bytes
function M.telegram(a, fields, list, options)
  options = options_of.check(options, TELEGRAM, 2)
  local data = list and #list > 0 and records.encode(2, list) or ""
  local special = options.more and "\x1F" or options.manufacturer_data and "\x0F" or ""
  local header = fields.id and M.long_header(fields) or short_header(fields)
  return core.long(fields.c or 0x08, a, fields.ci or (fields.id and 0x72 or 0x7A),
    header .. data .. special .. (options.manufacturer_data or ""))
end

---A command that only the meter with this key understands: mode 5 (EN 13757-7, AES-128-CBC).
---@param a integer
---@param list table|string  as for `records`
---@param keys mbus.Keys
---@param options mbus.security.CommandOptions  address: 16 digits of the meter; access_no; and fcb
---@return string? bytes
---@return mbus.Error? err
function M.encrypted(a, list, keys, options)
  local ci, data = require("mbus.security").encrypt(records.encode(2, list), keys, options)
  if not ci then return nil, data end
  return request.snd_ud(a, ci, data, options.fcb)
end

-- Length and checksum of a frame that begins so.
local function completed_long(bytes)
  local body = bytes:sub(5)
  local l = bytes:byte(2)
  -- With its end or without: the length field tells, if both are equal.
  if bytes:byte(3) == l and l >= 3 and #body >= l then body = body:sub(1, l) end
  if #body < 3 or #body > 255 then return nil end
  return core.long(body:byte(1), body:byte(2), body:byte(3), body:sub(4))
end

---Fills in the checksum and the stop byte of a frame that lacks them or has wrong ones.
---@param bytes string  "10 C A", or "68 L L 68 C A CI data"; also with a checksum and 16 behind
---@return string? bytes  nil: it is no beginning of a frame
function M.complete(bytes)
  if bytes:byte() == 0x10 and #bytes >= 3 and #bytes <= 5 then return core.short(bytes:byte(2), bytes:byte(3)) end
  if bytes:find("^\x68..\x68...") then return completed_long(bytes) end
  return nil
end

return M
