---mbus select: which records a meter sends from now on.
local console = require "mbus.cli.console"
local manage = require "mbus.cli.manage"
local output = require "mbus.cli.output"
local records = require "mbus.cli.records"

local M = {}

M.summary = "Choose which records a meter sends, and read it."

function M.define(command)
  manage.define(command)
  command:argument("record", "What the meter is to send, see below; or all."):args("+"):argname("<record>")
  output.define(command)
  command:epilog [[
A record is named by quantity, and if needed exponent, unit, storage, tariff,
subunit, function; or it is DIF and VIF in hex, with data field 8. The choice
holds until an application reset (mbus reset).

Examples:
  mbus select /dev/ttyUSB0 5 quantity=energy quantity=volume,storage=1
  mbus select /dev/ttyUSB0 5 "08 13" "08 5A"
  mbus select /dev/ttyUSB0 5 all]]
end

function M.run(args)
  local bytes, message = "all", nil
  if not (#args.record == 1 and args.record[1] == "all") then bytes, message = records.encode(args.record, "selection") end
  if not bytes then
    console.complain(message)
    return console.USAGE
  end
  local readout, code = manage.perform(args, "select_records", manage.address(args.address), bytes, {})
  if not readout then return code end
  local out = output.new(args.format)
  out.readout(readout)
  out.finish()
  return console.OK
end

return M
