---mbus set-address: another primary or secondary address for a meter.
local console = require "mbus.cli.console"
local manage = require "mbus.cli.manage"

local M = {}

M.summary = "Give a meter another primary or secondary address."

function M.define(command)
  manage.define(command)
  command:argument("new", "0 to 250: primary address. 8 digits: identification number. 16 digits: complete secondary address.")
    :argname("<new>")
  command:epilog [[
The meter is read first, nobody may have the new address, and at last the
same meter must answer there.

Examples:
  mbus set-address /dev/ttyUSB0 0 5
  mbus set-address /dev/ttyUSB0 3189274724232804 17
  mbus set-address /dev/ttyUSB0 5 12345678 --dry-run]]
end

local function primary(args, new)
  return manage.tell(args, function(result)
    local name = result.secondary_address and "meter " .. result.secondary_address or "the meter"
    if result.previous == new then return ("%s has the address %d already"):format(name, new) end
    return ("%s has the address %d now, before it had %d"):format(name, new, result.previous)
  end, "set_address", manage.address(args.address), new, {})
end

local function secondary(args)
  return manage.tell(args, function(result)
    if result.previous == result.secondary_address then
      return ("the meter has the secondary address %s already"):format(result.previous)
    end
    return ("the meter has the secondary address %s now, before it had %s"):format(result.secondary_address,
      result.previous or "none that it shows")
  end, "set_secondary", manage.address(args.address), args.new, {})
end

function M.run(args)
  if #args.new == 8 or #args.new == 16 then return secondary(args) end
  local new = manage.address(args.new)
  if math.type(new) then return primary(args, new) end
  console.complain(("bad new address '%s': 0 to 250, or 8 or 16 digits"):format(args.new))
  return console.USAGE
end

return M
