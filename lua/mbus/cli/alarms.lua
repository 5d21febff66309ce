---mbus alarms: class 1 data of meters.
local bus_options = require "mbus.cli.bus"
local console = require "mbus.cli.console"

local M = {}

M.summary = "Ask meters for alarms (class 1 data)."

function M.define(command)
  bus_options.define(command)
  command:argument("address", "Primary addresses, or 8 or 16 hex digits of secondary ones."):args("+"):argname("<address>")
  command:epilog [[
Examples:
  mbus alarms /dev/ttyUSB0 5 6 7]]
end

local function sentence(result)
  if not result.alarm then return "no alarm" end
  return result.status and ("alarm %02X"):format(result.status) or "class 1 data"
end

function M.run(args)
  local addresses = bus_options.addresses(args.address)
  if not addresses then return console.USAGE end
  local bus, code = bus_options.open(args)
  if not bus then return code end
  local failed = false
  for _, address in ipairs(addresses) do
    local result, err = bus:alarms(address)
    if result then console.write(("%s: %s\n"):format(address, sentence(result))) else console.complain(err) end
    failed = failed or not result
    console.flush()
  end
  bus:close()
  return failed and console.INCOMPLETE or console.OK
end

return M
