-- Writes a record into a meter, and reads it back.
--
--     lua5.4 examples/write.lua [URL ADDRESS]        without arguments a simulated meter
local mbus = require "mbus"

-- A meter that takes what is written.
local function simulate()
  return assert(mbus.simulator.new { meters = { { address = 5, id = "12345678", manufacturer = "ABC", telegrams = { { records = {
    { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8" } } } } } } })
end

local address = arg[2] or 5
local bus <close> = assert(mbus.open(arg[1] or simulate()))

local function volume()
  local meter = assert(bus:read(address))
  return meter:find({ quantity = "volume" }).value
end

print("before", volume(), "m3")
local record = { quantity = "volume", unit = "m3", value = 20, exponent = -3, data = "bcd8" }
local result, err = bus:write(address, { record }, { verify = true })
if not result then error(err) end
print(result.verified and "written and read back" or "acknowledged")
print("after", volume(), "m3")
