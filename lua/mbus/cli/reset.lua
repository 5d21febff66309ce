---mbus reset: application reset, or SND_NKE.
local console = require "mbus.cli.console"
local manage = require "mbus.cli.manage"

local M = {}

M.summary = "Reset the application of a meter, or its link; deselect."

local function byte(text)
  local value = math.tointeger(tonumber(text))
  if not value or value < 0 or value > 255 then return nil, ("'%s' is no number from 0 to 255 (0x10 is 16)"):format(text) end
  return value
end

function M.define(command)
  manage.define(command, true)
  command:mutex(
    command:option("--subcode", "What the next readouts are to hold, as in EN 13757-3: 0x10 user data, 0x20 simple billing, …")
      :convert(byte):argname("<n>"),
    command:flag("--link", "Reset only the link (SND_NKE). To 253: deselect the meter that was selected."))
  command:epilog [[
An application reset ends a selection of records. The meter is read at once.

Examples:
  mbus reset /dev/ttyUSB0 5
  mbus reset /dev/ttyUSB0 5 --subcode 0x10
  mbus reset /dev/ttyUSB0 253 --link]]
end

local function reset_link(args)
  local address = manage.address(args.address)
  if not math.type(address) then
    console.complain(("bad address '%s': SND_NKE goes to 0 to 250, 253, 254 or 255"):format(args.address))
    return console.USAGE
  end
  return manage.tell(args, function()
    if address == 253 then return "no meter is selected now" end
    return address == 255 and "sent to all meters" or ("address %d acknowledges"):format(address)
  end, "normalise", address, {})
end

function M.run(args)
  if args.link then return reset_link(args) end
  return manage.tell(args, function(result)
    if result == true then return "sent to all meters" end
    local telegram = result.telegram
    return ("done; meter %s sends %d records%s"):format(telegram.secondary_address or telegram.id or args.address, #telegram,
      telegram.more_records_follow and " and more" or "")
  end, "reset", manage.address(args.address), args.subcode, {})
end

return M
