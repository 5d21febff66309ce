---mbus read: all telegrams of one meter or of several, one after another.
local bus_options = require "mbus.cli.bus"
local console = require "mbus.cli.console"
local output = require "mbus.cli.output"

local M = {}

M.summary = "Read meters on a bus."

function M.define(command)
  bus_options.define(command)
  command:argument("address", "Primary address (0 to 250, 254 for the only meter), or 8 or 16 hex digits of a secondary one, "
    .. "F as wildcard."):args("+"):argname("<address>")
  output.define(command)
  command:epilog [[
Examples:
  mbus read /dev/ttyUSB0 5
  mbus read tcp://192.168.1.50:10001 3189274724232804 -f json
  mbus read /dev/ttyUSB0 254 --trace]]
end

---A message that the next one replaces, where somebody looks.
local function progress(interactive, text)
  if interactive then io.stderr:write("\r\27[K", text) end
end

---@return mbus.Error? err  why the meter is not read, or not to its end
local function read_one(bus, address, out, clear)
  local readout, err = bus:read(address)
  clear()
  readout = readout or err.readout
  if readout and #readout.telegrams > 0 then
    out.readout(readout, err)
    return err or readout.error
  end
  out.unread(address, err)
  return err
end

---@return integer  how many are read, from beginning to end
local function read_all(bus, addresses, args)
  local out = output.new(args.format)
  local interactive = not args.trace and console.is_terminal(2)
  local good = 0
  for i, address in ipairs(addresses) do
    progress(interactive, ("reading %s (%d of %d) … "):format(address, i, #addresses))
    local err = read_one(bus, address, out, function() progress(interactive, "") end)
    console.flush()
    if err then console.complain(err) else good = good + 1 end
  end
  out.finish()
  return good
end

function M.run(args)
  local addresses = bus_options.addresses(args.address)
  if not addresses then return console.USAGE end
  local bus, code = bus_options.open(args)
  if not bus then return code end
  local good = read_all(bus, addresses, args)
  bus:close()
  return good == #addresses and console.OK or console.INCOMPLETE
end

return M
