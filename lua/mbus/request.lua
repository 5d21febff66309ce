---The frames that a master sends, by the names of the standard (EN 13757-2, -3, -7; IEC 60870-5-2).
---
---A command (SND_UD) takes a frame count bit last: 0 for C = 53, which is also what frames without an answer have, 1 for
---73. On the bus the procedures choose it; a frame built by hand has 53 if nothing is said.
local core = require "mbus.core"
local address = require "mbus.address"

local M = {}

local C_SND_NKE, C_REQ_UD1, C_REQ_UD2, C_SND_UD = 0x40, 0x5A, 0x5B, 0x53
local FCB = 0x20
local CI_RESET, CI_SEND, CI_SELECT, CI_SELECT_MODE2 = 0x50, 0x51, 0x52, 0x56
---CI fields of the synchronize action: EN 13757-3:2018, and the older suggestion of the user group.
M.SYNCHRONIZE, M.SYNCHRONIZE_OLD = 0x5C, 0x54

---CI field by line speed (EN 13757-3, baud rate switch).
M.BAUDRATES = { [300] = 0xB8, [600] = 0xB9, [1200] = 0xBA, [2400] = 0xBB, [4800] = 0xBC, [9600] = 0xBD, [19200] = 0xBE,
  [38400] = 0xBF }

---Resets the link of a meter; to 253 it deselects.
---@param a integer  A field, 0..255
---@return string bytes
function M.snd_nke(a) return core.short(C_SND_NKE, a) end

---Asks for class 2 data, the normal readout.
---@param a integer    A field, 0..250, 253 or 254
---@param fcb integer  frame count bit, 0 or 1: 5B or 7B
---@return string bytes
function M.req_ud2(a, fcb) return core.short(C_REQ_UD2 | fcb * FCB, a) end

---Asks for class 1 data: alarms.
---@param a integer    A field, 0..250, 253 or 254
---@param fcb integer  frame count bit, 0 or 1: 5A or 7A
---@return string bytes
function M.req_ud1(a, fcb) return core.short(C_REQ_UD1 | fcb * FCB, a) end

---Any command.
---@param a integer     A field, 0..255
---@param ci integer
---@param data? string  behind CI, up to 252 bytes
---@param fcb? integer
---@return string bytes
function M.snd_ud(a, ci, data, fcb) return core.long(C_SND_UD | (fcb or 0) * FCB, a, ci, data) end

---Selects the meters that match a secondary address (EN 13757-7).
---@param digits string  16 hex digits, F and FF as wildcards
---@param c? integer     C field; 0x53 by default, 0x73 for meters that compare the frame count bit first
---@param records? string  further records that must match: enhanced selection, as 0C 78 and a fabrication number
---@return string bytes
function M.select(digits, c, records)
  return core.long(c or C_SND_UD, address.SELECTED, CI_SELECT, address.bytes(digits) .. (records or ""))
end

---Selection for meters of EN 1434-3's mode 2: each field with its most significant byte first.
---@param digits string  16 hex digits, F as wildcard
---@param c? integer     C field, default 53
---@param records? string
---@return string bytes
function M.select_mode2(digits, c, records)
  local bytes = address.bytes(digits)
  local swapped = bytes:sub(1, 4):reverse() .. bytes:sub(5, 6):reverse() .. bytes:sub(7)
  return core.long(c or C_SND_UD, address.SELECTED, CI_SELECT_MODE2, swapped .. (records or ""))
end

---Resets the application of a meter: its own choice of records, from the first telegram.
---@param a integer
---@param subcode? integer  0..255: what the next readouts are to hold (EN 13757-3, application select)
---@param fcb? integer
---@return string bytes
function M.application_reset(a, subcode, fcb)
  return M.snd_ud(a, CI_RESET, subcode and string.char(subcode) or "", fcb)
end

---Sends data records: values to write, or to select.
---@param a integer
---@param records string
---@param fcb? integer
---@return string bytes
function M.write(a, records, fcb) return M.snd_ud(a, CI_SEND, records, fcb) end

---@param new integer  0..250
---@return string record
function M.primary_address_record(new) return "\x01\x7A" .. string.char(new) end

---@param digits string  8 decimal digits of an identification number, or 16 digits of a complete secondary address
---@return string record
function M.identification_record(digits)
  local bytes = address.bytes(digits)
  return (#digits == 8 and "\x0C\x79" or "\x07\x79") .. bytes
end

---@param a integer
---@param new integer  0..250
---@param fcb? integer
---@return string bytes
function M.set_primary_address(a, new, fcb)
  if math.type(new) ~= "integer" or new < 0 or new > 250 then error("a meter may have the primary addresses 0 to 250", 2) end
  return M.write(a, M.primary_address_record(new), fcb)
end

-- Without wildcards.
local function is_own(digits)
  if type(digits) ~= "string" or not digits:find "^%d%d%d%d%d%d%d%d" then return false end
  if #digits == 8 then return true end
  local parsed = #digits == 16 and address.parse(digits)
  return parsed and not parsed.wildcard
end

---@param a integer
---@param digits string  8 decimal digits, or 16 of the complete address
---@param fcb? integer
---@return string bytes
function M.set_secondary_address(a, digits, fcb)
  if not is_own(digits) then error("a meter may have 8 decimal digits, and 8 hex ones without FF behind them", 2) end
  return M.write(a, M.identification_record(digits), fcb)
end

---Switches the line speed of a meter. The acknowledgement still comes at the old one.
---@param a integer
---@param baudrate integer  300 600 1200 2400 4800 9600 19200 38400
---@param fcb? integer
---@return string bytes
function M.set_baudrate(a, baudrate, fcb)
  return M.snd_ud(a, M.BAUDRATES[baudrate] or error("no such baud rate: " .. tostring(baudrate), 2), "", fcb)
end

---What it does is up to the meters.
---@param a? integer   default 255, all at the same moment
---@param ci? integer  M.SYNCHRONIZE (default) or M.SYNCHRONIZE_OLD
---@param fcb? integer
---@return string bytes
function M.synchronize(a, ci, fcb) return M.snd_ud(a or address.BROADCAST, ci or M.SYNCHRONIZE, "", fcb) end

return M
