---mbus write: data records to a meter.
local console = require "mbus.cli.console"
local manage = require "mbus.cli.manage"
local records = require "mbus.cli.records"

local M = {}

M.summary = "Write values to a meter."

function M.define(command)
  manage.define(command, true)
  command:argument("record", "What to write, see below."):args("+"):argname("<record>")
  command:flag("--verify", "Read the meter afterwards; it must show what was written.")
  command:epilog(records.HELP .. [[


Examples:
  mbus write /dev/ttyUSB0 5 quantity=volume,unit=m3,value=0,data=bcd8 --verify
  mbus write /dev/ttyUSB0 5 "0C 86 00 07 01 00 00" --dry-run]])
end

local function sentence(result)
  if not result.acknowledged then return "sent to all meters" end
  if not result.readout then return "the meter has acknowledged it" end
  if result.verified then return "the meter shows what was written" end
  local count = #result.missing
  return ("the meter has acknowledged it, but does not show %d of the records"):format(count)
end

function M.run(args)
  local bytes, message = records.encode(args.record)
  if not bytes then
    console.complain(message)
    return console.USAGE
  end
  local result, code = manage.perform(args, "write", manage.address(args.address), bytes, { verify = args.verify })
  if result == nil then return code end
  console.write(sentence(result) .. "\n")
  console.flush()
  return result.readout and not result.verified and console.INCOMPLETE or console.OK
end

return M
