---What can go wrong with an answer between the meter and the wire. `faults` of a meter in a description:
---
---  stale         true: the answer to the request before; nothing at the first
---  address       0..255: another A field, with a checksum that fits
---  checksum      true: a checksum that does not fit
---  truncate      number of bytes after which the answer ends
---  leading, trailing  hex: garbage before and after
---  gap           seconds between the characters
---  bit_flips     probability with which a bit is turned over
---  lost          probability with which a character is lost
---  cut           probability with which the answer ends anywhere
---  glued         true: the same answer again behind it, without a pause
---  answers       only the first so many answers are struck (default all)
---  acknowledgements  true: E5 and short frames too, not only telegrams
local core = require "mbus.core"

local M = {}

local function replace_address(bytes, address)
  local frame = core.frame(bytes)
  if not frame or not frame.a then return bytes end
  if frame.type == "short" then return core.short(frame.c, address) end
  return core.long(frame.c, address, frame.ci, frame.data)
end

local function break_checksum(bytes)
  if #bytes < 2 then return bytes end
  local sum = bytes:byte(-2)
  return bytes:sub(1, -3) .. string.char((sum + 1) & 0xFF) .. bytes:sub(-1)
end

-- A character that is lost leaves no gap: what follows it comes earlier, as from a full buffer.
---@param bytes string
---@param probability number
---@param random mbus.simulator.Random
---@return string
function M.lose(bytes, probability, random)
  return (bytes:gsub(".", function() return random:number() < probability and "" or nil end))
end

local function cut(bytes, probability, random)
  if random:number() >= probability then return bytes end
  return bytes:sub(1, math.floor(random:number() * #bytes))
end

---@param faults table  as above
---@param state table   what lasts from answer to answer; begins as {}
---@param bytes string  the answer
---@param random mbus.simulator.Random
---@return string? bytes    nil: no answer
---@return table? options   gap and bit_flips for mbus.simulator.Line
function M.apply(faults, state, bytes, random)
  if #bytes <= 5 and not faults.acknowledgements then return bytes end
  local struck = (state.struck or 0) + 1
  if struck > (faults.answers or struck) then return bytes end
  state.struck = struck
  if faults.stale then bytes, state.before = state.before, bytes end
  if not bytes then return nil end
  if faults.address then bytes = replace_address(bytes, faults.address) end
  if faults.checksum then bytes = break_checksum(bytes) end
  if faults.truncate then bytes = bytes:sub(1, faults.truncate) end
  if faults.lost then bytes = M.lose(bytes, faults.lost, random) end
  if faults.cut then bytes = cut(bytes, faults.cut, random) end
  if faults.glued then bytes = bytes .. bytes end
  return (faults.leading or "") .. bytes .. (faults.trailing or ""), { gap = faults.gap, bit_flips = faults.bit_flips }
end

return M
