---Addresses of meters, as people write them and as the bus wants them (EN 13757-2 chapter 5, EN 13757-7 selection).
---
---    address.parse(5)                     primary
---    address.parse "005"                  primary, decimal
---    address.parse "31892747"             secondary, identification number alone
---    address.parse "31892747FFFF2804"     secondary: identification, manufacturer, version, medium
---
---The 16 digits are those that a telegram shows as `secondary_address`: eight of the identification number as
---printed on the meter, then manufacturer (low byte first), version and medium. F stands for any digit in the
---identification number; behind it only whole bytes FF stand for anything.
local Error = require "mbus.error"

local M = {}

---A field of the meter selected before (network layer, EN 13757-2).
M.SELECTED = 253
---Every meter answers; good for a bus with one meter.
M.TEST = 254
---Every meter listens, none answers.
M.BROADCAST = 255

---@class mbus.Address
---@field a integer        A field of the frames: 0..250, 254, or 253 for a secondary address
---@field digits? string   the 16 hex digits of a secondary address
---@field wildcard? boolean  true if more than one meter could match
---@field text integer|string  as it goes into messages: 5, "31892747FFFFFFFF"

local RESERVED = {
  [251] = "251 is reserved", [252] = "252 is reserved",
  [253] = "253 means the meter selected before: give its secondary address instead",
  [255] = "255 is for everybody, and nobody answers it",
}

local function refuse(value, reason)
  return nil, Error.new("invalid", ("bad address %q: %s"):format(tostring(value), reason))
end

local function primary(number, value)
  if RESERVED[number] then return refuse(value, RESERVED[number]) end
  if number < 0 or number > 255 then return refuse(value, "a primary address is 0 to 250, or 254 for any meter") end
  return { a = number, text = number }
end

local function secondary(text, value)
  local wrong = text:find("%X")
  if wrong then
    return refuse(value, ("%q is no hex digit (F is the wildcard of secondary addresses)"):format(text:sub(wrong, wrong)))
  end
  local digits = text:upper() .. ("F"):rep(16 - #text)
  local wildcard = digits:sub(1, 8):find("F") or digits:sub(9):gsub("..", "%0 "):find("FF ")
  return { a = M.SELECTED, digits = digits, wildcard = wildcard ~= nil, text = digits }
end

local function parse_text(text)
  local trimmed = text:match("^%s*(.-)%s*$")
  if trimmed == "" then return refuse(text, "it is empty") end
  if #trimmed == 8 or #trimmed == 16 then return secondary(trimmed, text) end
  if trimmed:find("^%d%d?%d?$") then return primary(math.tointeger(tonumber(trimmed, 10)), text) end
  local shape = "a primary address is a number, a secondary one has 8 or 16 hex digits"
  if trimmed:find("^%x+$") then return refuse(text, ("it has %d digits; %s"):format(#trimmed, shape)) end
  return refuse(text, shape)
end

---@param value integer|string  0..250, 254, the same as decimal text, or 8 or 16 hex digits with F as wildcard
---@return mbus.Address? address
---@return mbus.Error? err  kind `invalid`, with the reason
function M.parse(value)
  if type(value) == "string" then return parse_text(value) end
  if type(value) ~= "number" then error("an address is a number or a string, not " .. type(value), 2) end
  local number = math.tointeger(value)
  if not number then return refuse(value, "it is no whole number") end
  return primary(number, value)
end

---The eight bytes of a selection: identification (low byte first), manufacturer, version, medium.
---@param digits string  16 hex digits
---@return string
function M.bytes(digits)
  local id = digits:sub(1, 8):gsub("(..)(..)(..)(..)", "%4%3%2%1")
  return ((id .. digits:sub(9)):gsub("..", function(byte) return string.char(tonumber(byte, 16)) end))
end

local function same(mask, digits, first, last, width)
  local any = ("F"):rep(width)
  for i = first, last, width do
    local wanted = mask:sub(i, i + width - 1)
    if wanted ~= any and wanted ~= digits:sub(i, i + width - 1) then return false end
  end
  return true
end

---Whether a mask selects a meter: digit by digit in the identification number, byte by byte behind it.
---@param mask string    16 hex digits with wildcards
---@param digits string  16 hex digits of a meter
---@return boolean
function M.matches(mask, digits) return same(mask, digits, 1, 8, 1) and same(mask, digits, 9, 16, 2) end

return M
