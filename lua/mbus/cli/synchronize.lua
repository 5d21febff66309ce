---mbus synchronize: the synchronize action, to all meters or one.
local manage = require "mbus.cli.manage"
local bus_options = require "mbus.cli.bus"

local M = {}

M.summary = "Send the synchronize action to all meters or one."

function M.define(command)
  bus_options.define(command)
  command:argument("address", "One meter; without it, all."):args("?"):argname("<address>")
  command:flag("--old", "CI 54 as older meters know it, instead of 5C.")
  manage.define_dry_run(command)
  command:epilog [[
Examples:
  mbus synchronize /dev/ttyUSB0
  mbus synchronize /dev/ttyUSB0 5 --old]]
end

function M.run(args)
  local address = args.address and manage.address(args.address) or 255
  return manage.tell(args, function()
    return address == 255 and "sent to all meters" or "the meter has acknowledged it"
  end, "synchronize", address, { ci = args.old and 0x54 or nil })
end

return M
