---mbus set-baudrate: another line speed for a meter.
local manage = require "mbus.cli.manage"

local M = {}

M.summary = "Switch a meter to another line speed."

function M.define(command)
  manage.define(command, true)
  command:argument("new", "The new line speed in baud."):argname("<new>")
    :choices { "300", "600", "1200", "2400", "4800", "9600", "19200", "38400" }
  command:epilog [[
The meter is asked at the new speed at once. If it does not answer there,
it is looked for at the old one.

Examples:
  mbus set-baudrate /dev/ttyUSB0 5 9600
  mbus set-baudrate /dev/ttyUSB0 5 2400 --baudrate 9600]]
end

function M.run(args)
  return manage.tell(args, function(result)
    if not result.telegram then return ("all meters were told to switch to %d baud"):format(result.baudrate) end
    return ("the meter answers at %d baud now; read it with --baudrate %d"):format(result.baudrate, result.baudrate)
  end, "set_baudrate", manage.address(args.address), math.tointeger(tonumber(args.new)), {})
end

return M
