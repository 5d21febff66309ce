---The frames that a master sends, by the names of the standard (EN 13757-2, IEC 60870-5-2).
local core = require "mbus.core"
local address = require "mbus.address"

local M = {}

local C_SND_NKE, C_REQ_UD2, C_SND_UD = 0x40, 0x5B, 0x53
local FCB = 0x20
local CI_SELECT = 0x52

---Resets the link of a meter; to 253 it deselects.
---@param a integer  A field, 0..255
---@return string bytes
function M.snd_nke(a) return core.short(C_SND_NKE, a) end

---Asks for class 2 data, the normal readout.
---@param a integer    A field, 0..250, 253 or 254
---@param fcb integer  frame count bit, 0 or 1: 5B or 7B
---@return string bytes
function M.req_ud2(a, fcb) return core.short(C_REQ_UD2 | fcb * FCB, a) end

---Selects the meters that match a secondary address (EN 13757-7).
---@param digits string  16 hex digits, F and FF as wildcards
---@param c? integer     C field; 0x53 by default, 0x73 for meters that compare the frame count bit first
---@return string bytes
function M.select(digits, c)
  return core.long(c or C_SND_UD, address.SELECTED, CI_SELECT, address.bytes(digits))
end

return M
