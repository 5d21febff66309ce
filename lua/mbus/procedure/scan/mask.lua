---Masks of the secondary search (EN 13757-7) and how they are split. A mask is the 16 hex digits of a selection; 24 with the
---8 digits of the fabrication number behind them for an enhanced selection.
---
---In the identification and fabrication number each digit can be fixed or F, in manufacturer, version and medium only a
---whole byte, FF being any: a meter that has FF there cannot be told apart by it.
local Address = require "mbus.address"
local request = require "mbus.request"

local M = {}

local ID = { 8, 7, 6, 5, 4, 3, 2, 1 } -- serial numbers of one site differ at their end
local FABRICATION = { 24, 23, 22, 21, 20, 19, 18, 17 }
local MEDIUM, VERSION, MANUFACTURER_HIGH, MANUFACTURER_LOW = 15, 13, 11, 9
local BYTES = { MEDIUM, VERSION, MANUFACTURER_HIGH, MANUFACTURER_LOW }

---A way to split a mask: the children that have each of these texts at `position`.
---@class mbus.scan.Axis
---@field position integer
---@field values string[]
---@field more? string[]  unusual values, asked for where the usual ones do not account for what the mask showed

local function digits(first, last)
  local values = {}
  for value = first, last do values[#values + 1] = ("%X"):format(value) end
  return values
end

local DECIMAL, HEX, ALL = digits(0, 9), digits(10, 14), digits(0, 14)

local MEDIA = { 0x02, 0x03, 0x04, 0x06, 0x07, 0x08, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A,
  0x1B, 0x1C, 0x20, 0x21, 0x25, 0x28, 0x31, 0x32, 0x33, 0x36, 0x37 }

local function range(first, last)
  local values = {}
  for value = first, last do values[#values + 1] = value end
  return values
end

-- Three letters give a high byte from 04 to 6B.
local LIKELY = { [MEDIUM] = MEDIA, [VERSION] = {}, [MANUFACTURER_HIGH] = range(0x04, 0x6B), [MANUFACTURER_LOW] = {} }

-- All values of a byte but FF: those of meters found so far, then likely ones, then the rest.
local function byte_values(position, found)
  local values, seen = {}, { FF = true }
  local function add(text)
    if not seen[text] then values[#values + 1] = text end
    seen[text] = true
  end
  for _, meter in ipairs(found) do
    if meter.secondary_address then add(meter.secondary_address:sub(position, position + 1)) end
  end
  for _, value in ipairs(LIKELY[position]) do add(("%02X"):format(value)) end
  for value = 0, 254 do add(("%02X"):format(value)) end
  return values
end

-- How badly a digit or byte tells the meters found so far apart: how often two drawn at random have the same.
local function likeness(position, width, found)
  local counts, sum = {}, 0
  for _, meter in ipairs(found) do
    local digits_ = meter.secondary_address or meter.id
    local text = digits_ and digits_:sub(position, position + width - 1)
    if text then counts[text] = (counts[text] or 0) + 1 end
  end
  for _, count in pairs(counts) do sum = sum + count * count end
  return sum
end

-- Of the positions that are free the one that tells most, and of equals the first.
local function best(mask, positions, width, found)
  local chosen, least
  for _, position in ipairs(positions) do
    if mask:sub(position, position + width - 1) == ("F"):rep(width) then
      local value = likeness(position, width, found)
      if not chosen or value < least then chosen, least = position, value end
    end
  end
  return chosen
end

---The position at which a mask is split next.
---@param mask string
---@param found table[]  meters: the digit that tells most of them apart is taken
---@return integer? position  nil: nothing is left that could be fixed
function M.position(mask, found)
  return best(mask, ID, 1, found) or best(mask, BYTES, 2, found)
    or best(#mask == 16 and mask .. "FFFFFFFF" or mask, FABRICATION, 1, {})
end

---@param position integer
---@param found table[]  meters
---@param hex? boolean    search for digits A to E in identification numbers too
---@return mbus.scan.Axis axis
function M.axis(position, found, hex)
  if position > 16 then return { position = position, values = ALL } end
  if position > 8 then return { position = position, values = byte_values(position, found) } end
  return { position = position, values = hex and ALL or DECIMAL, more = not hex and HEX or nil }
end

---@param mask string
---@param position integer
---@param value string
---@return string
function M.child(mask, position, value)
  if position > #mask then mask = mask .. ("F"):rep(8) end
  return mask:sub(1, position - 1) .. value .. mask:sub(position + #value)
end

---Are all eight digits of the identification number fixed?
---@param mask string
---@return boolean
function M.is_exact(mask) return not mask:sub(1, 8):find("F") end

---The selection of a mask.
---@param mask string
---@param c integer  C field, 0x53 or 0x73
---@return string bytes
function M.selection(mask, c)
  local fabrication = mask:sub(17)
  local record = fabrication ~= "" and "\x0C\x78" .. Address.bytes(fabrication) or nil
  return request.select(mask:sub(1, 16), c, record)
end

---A list of masks with one more. From `first` on none of them lies within another one.
---@param masks string[]
---@param mask string
---@param first integer
---@return string[]
function M.join(masks, mask, first)
  local joined = table.move(masks, 1, first - 1, 1, {})
  for i = first, #masks do
    if Address.matches(masks[i], mask) then return masks end
    if not Address.matches(mask, masks[i]) then joined[#joined + 1] = masks[i] end
  end
  joined[#joined + 1] = mask
  return joined
end

---The mask that fixes what two meters have in common.
---@param one string    16 hex digits
---@param other string
---@return string
function M.common(one, other)
  local id = one:sub(1, 8):gsub("()(.)", function(at, digit) return other:sub(at, at) == digit and digit or "F" end)
  local rest = one:sub(9):gsub("()(..)", function(at, byte) return other:sub(at + 8, at + 9) == byte and byte or "FF" end)
  return id .. rest
end

return M
