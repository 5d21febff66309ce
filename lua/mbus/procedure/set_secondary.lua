---Gives a meter another identification number, or a complete secondary address (EN 13757-3, records 0C 79 and 07 79). The
---meter is read first; nobody may be selected by the new address; at last the meter must show it.
local Address = require "mbus.address"
local Error = require "mbus.error"
local arguments = require "mbus.procedure.arguments"
local exchange = require "mbus.procedure.exchange"
local request = require "mbus.request"
local Target = require "mbus.procedure.target"

local CI_SEND = 0x51

-- What the meter will be selected by: the new digits, and of the old address what stays.
local function whole_address(digits, telegram)
  if #digits == 16 then return digits end
  return digits .. (telegram.secondary_address or ("F"):rep(16)):sub(9)
end

local function check_free(link, whole)
  local silent, err = exchange.probe(link, request.select(whole, link.settings.select_c))
  if silent == nil then return nil, err end
  if silent then
    link.state.deselected = true
    return true
  end
  Target.deselect(link, false)
  return nil, Error.new("busy", ("the secondary address %s is in use"):format(whole), { code = "address_in_use" })
end

local function is_new(telegram, digits)
  local shown = telegram.secondary_address or telegram.id
  return shown and shown:sub(1, #digits) == digits:sub(1, #shown)
end

local function result_of(telegram, previous, whole)
  return { secondary_address = telegram.secondary_address or whole, previous = previous, address = telegram.a,
    telegram = telegram }
end

local function change(target, digits)
  local link, selected = target.link, target.address.digits ~= nil
  local before, ok, err, read_error, after
  before, err = target:first()
  if not before then return nil, err end
  local previous = before.secondary_address or before.id
  local whole = whole_address(digits, before)
  if previous == whole then return result_of(before, previous, whole) end
  ok, err = check_free(link, whole)
  if ok and selected then ok, err = target:restart() end
  if not ok then return nil, err end
  err = select(2, target:command(CI_SEND, request.identification_record(digits)))
  if link.broken or err and err.kind == "rejected" then return nil, err end
  if selected then target:move(assert(Address.parse(whole))) end
  after, read_error = target:first()
  if link.plan then return {} end
  local found = after and is_new(after, digits) and result_of(after, previous, whole)
  return Target.verdict(err, found, ("acknowledged, but the meter does not have the address %s"):format(whole), read_error)
end

local function run(link, address, digits)
  return Target.with(link, address, function(target) return change(target, digits) end)
end

local function check_digits(digits)
  if #digits ~= 8 and #digits ~= 16 or digits:find("%X") then
    return arguments.refuse("bad new secondary address %q: 8 digits of an identification number, or all 16", digits)
  end
  if digits:sub(1, 8):find("%D") then
    return arguments.refuse("bad new secondary address %q: an identification number has decimal digits, no wildcards", digits)
  end
  if digits:sub(9):gsub("..", "%0 "):upper():find("FF ", 1, true) then
    return arguments.refuse("bad new secondary address %q: a byte FF is a wildcard, no part of an address", digits)
  end
  return digits:upper()
end

local function prepare(level, address, digits, options)
  local parsed, err = arguments.address(level + 1, address)
  if not parsed then return nil, err end
  if type(digits) ~= "string" then error("the new secondary address is a string of digits", level + 1) end
  digits, err = check_digits(digits)
  if not digits then return nil, err end
  return options or {}, parsed, digits
end

return { prepare = prepare, run = run }
