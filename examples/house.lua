-- Reads the meters of the simulated house, or of any bus, and prints one line a meter.
--
--     lua5.4 examples/house.lua                         the house, in process
--     lua5.4 examples/house.lua /dev/ttyUSB0 5 6 7      your own meters
local mbus = require "mbus"

local HOUSE = {
  "3189274724232804", "3189274924232804", "829690102D2C400D", "829690122D2C400D", "829690152D2C400D", "829690172D2C400D",
  "830036742D2C400D", "830036752D2C400D", "830036762D2C400D", "830036772D2C400D", "830036792D2C400D",
}

local function number(readout, scale, wanted)
  local record = readout:find(wanted)
  return record and record.value and ("%.1f"):format(record.value / scale) or "-"
end

local bus <close> = assert(mbus.open(arg[1] or "sim:"))
local addresses = #arg > 1 and { table.unpack(arg, 2) } or HOUSE
local missing = 0

print("Address           Maker  Medium        Energy kWh  Volume m3  Flow °C  Return °C")
for _, address in ipairs(addresses) do
  local readout, err = bus:read(address)
  if readout then
    print(("%-16s  %-5s  %-12s  %10s  %9s  %7s  %9s"):format(address, readout.manufacturer, readout.medium_name,
      number(readout, 1000, { quantity = "energy", storage = 0 }), number(readout, 1, { quantity = "volume", storage = 0 }),
      number(readout, 1, { quantity = "flow_temperature" }), number(readout, 1, { quantity = "return_temperature" })))
  else
    missing = missing + 1
    io.stderr:write(tostring(err), "\n")
  end
end
os.exit(missing == 0, true)
