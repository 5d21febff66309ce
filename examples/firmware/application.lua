-- What the firmware does: reads the meters that it was given, one after another, and prints their values. It performs no
-- I/O; main.c carries the bytes.
local mbus = require "mbus"

local bus = mbus.open("manual:", { name = "line", baudrate = 2400, margin = 0.1 })
local addresses = {}
local M = {}

function M.add(address) addresses[#addresses + 1] = address end

---Begins the next request; false when there is none.
function M.next()
  local address = table.remove(addresses, 1)
  if not address then return false end
  local ok, err = bus:begin("read", address)
  if ok then return true end
  print(err)
  return M.next()
end

function M.wants() return bus:wants() end

function M.feed(bytes, now) bus:feed(bytes, now) end

function M.finish()
  local _, meter, err = bus:wants()
  if not meter then
    print(err)
    return
  end
  print(meter.id, meter.manufacturer, meter.medium_name, #meter)
  local energy = meter:find { quantity = "energy", storage = 0 }
  if energy then print("energy", energy.value, energy.unit) end
end

return M
