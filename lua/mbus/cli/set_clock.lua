---mbus set-clock: date and time of a meter.
local manage = require "mbus.cli.manage"

local M = {}

M.summary = "Set the clock of a meter."

function M.define(command)
  manage.define(command, true)
  command:argument("time", "Local time such as 2024-02-29T13:45:30; without it that of this computer."):args("?")
    :argname("<time>")
  command:option("--type", "F (to the minute) or I (to the second); default: as the meter shows its own clock, else F.")
    :choices { "F", "I" }:argname("<type>")
  command:mutex(
    command:flag("--summer-time", "The given time is daylight saving time, and the meter is told so."),
    command:flag("--no-summer-time", "Do not tell the meter that it is daylight saving time."),
    command:flag("--standard-time", "Send standard time also in summer."))
  command:flag("--hundred-years", "Write the century into type F, for meters that insist on it.")
  command:epilog [[
Examples:
  mbus set-clock /dev/ttyUSB0 5
  mbus set-clock /dev/ttyUSB0 5 2024-02-29T13:45 --type F --dry-run
  mbus set-clock /dev/ttyUSB0 255]]
end

local function summer_time(args)
  if args.summer_time then return true end
  if args.no_summer_time then return false end
  return nil
end

function M.run(args)
  local options = { type = args.type, summer_time = summer_time(args), standard_time = args.standard_time,
    hundred_years = args.hundred_years }
  return manage.tell(args, function(result)
    if result.verified then return ("the clock shows %s (type %s)"):format(result.read_back, result.type) end
    return ("sent %s (type %s); no clock was read back"):format(result.time, result.type)
  end, "set_clock", manage.address(args.address), args.time, options)
end

return M
