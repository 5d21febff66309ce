---A bus out of a capture: each meter that answered there answers again, with the same telegrams in the same order.
---
---Meters are told apart by their secondary address, or by their primary one where a telegram does not show it. A telegram
---that comes again, but for its access number, is taken once. What one meter said to SND_NKE or a selection is not needed:
---a simulated meter does that by itself.
local core = require "mbus.core"

local M = {}

local MASTER = 0x40
local WITH_HEADER = 0x72 -- CI: identity and access number stand in front
local ACCESS_NUMBER = 9

local function telegrams_of(entries)
  local deframer, found = core.deframer(), {}
  for _, entry in ipairs(entries) do
    for _, event in ipairs(deframer:feed(entry.bytes)) do
      if event.type == "long" and event.c & MASTER == 0 then found[#found + 1] = event end
    end
    for _, event in ipairs(deframer:flush()) do
      if event.type == "long" and event.c & MASTER == 0 then found[#found + 1] = event end
    end
  end
  return found
end

local function identity_of(frame)
  if frame.ci == WITH_HEADER and #frame.data >= 12 then return frame.data:sub(1, 8) end
  return "address " .. frame.a
end

local function content_of(frame)
  if frame.ci ~= WITH_HEADER then return frame.c .. frame.data end
  return frame.data:sub(1, ACCESS_NUMBER - 1) .. frame.data:sub(ACCESS_NUMBER + 1)
end

---@param capture mbus.Capture
---@return table description  for mbus.simulator.load
function M.description(capture)
  local description = { baudrate = capture.baudrate, meters = {} }
  local known = {}
  for _, frame in ipairs(telegrams_of(capture.entries)) do
    local identity = identity_of(frame)
    local meter = known[identity]
    if not meter then
      meter = { address = frame.a <= 250 and frame.a or 0, telegrams = {}, seen = {} }
      known[identity] = meter
      table.insert(description.meters, meter)
    end
    local content = content_of(frame)
    if not meter.seen[content] then
      meter.seen[content] = true
      table.insert(meter.telegrams, { c = frame.c, ci = frame.ci, data = core.hex(frame.data) })
    end
  end
  for _, meter in ipairs(description.meters) do meter.seen = nil end
  return description
end

return M
