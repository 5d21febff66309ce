-- One meter in ten lines: lua5.4 examples/meter.lua [URL ADDRESS], without arguments one of the simulated house.
local mbus = require "mbus"

local bus <close> = assert(mbus.open(arg[1] or "sim:"))
local meter, err = bus:read(arg[2] or 10)
if not meter then error(err) end
print(meter.id, meter.manufacturer, meter.medium_name)
for index, record in meter:records() do
  print(index, record.quantity, record.storage, record.value, record.unit)
end
