---A bus out of a capture: each meter that answered there answers again, with the same telegrams in the same order.
---
---Meters are told apart by their secondary address; a telegram that does not show it is of the meter that spoke last at its
---primary one. A telegram that comes again, but for its access number, is taken once. What one meter said to SND_NKE or a
---selection is not needed: a simulated meter does that by itself. Alarms and application errors are no part of a readout.
local core = require "mbus.core"

local M = {}

local MASTER = 0x40
local WITH_HEADER = 0x72 -- CI: identity and access number stand in front
local ASIDE = { [0x70] = true, [0x71] = true } -- application error, alarm
local ACCESS_NUMBER = 9

local function telegrams_of(entries)
  local deframer, found = core.deframer(), {}
  local function keep(events)
    for _, event in ipairs(events) do
      if event.type == "long" and event.c & MASTER == 0 and not ASIDE[event.ci] then found[#found + 1] = event end
    end
  end
  for _, entry in ipairs(entries) do
    keep(deframer:feed(entry.bytes))
    keep(deframer:flush())
  end
  return found
end

local function identity_of(frame)
  return frame.ci == WITH_HEADER and #frame.data >= 12 and frame.data:sub(1, 8) or nil
end

local function content_of(frame)
  if frame.ci ~= WITH_HEADER then return frame.c .. frame.data end
  return frame.data:sub(1, ACCESS_NUMBER - 1) .. frame.data:sub(ACCESS_NUMBER + 1)
end

---@param capture mbus.Capture
---@return table description  for mbus.simulator.load
function M.description(capture)
  local description = { baudrate = capture.baudrate, meters = {} }
  local known, speaker = {}, {} -- meters by identity, and who spoke last at each A field
  local function meter_of(frame)
    local identity, last = identity_of(frame), speaker[frame.a]
    local meter = identity and known[identity] or last and not (identity and last.identity) and last
    if not meter then
      meter = { address = frame.a <= 250 and frame.a or 0, telegrams = {}, seen = {} }
      table.insert(description.meters, meter)
    end
    meter.identity = meter.identity or identity
    if identity then known[identity] = meter end
    speaker[frame.a] = meter
    return meter
  end
  for _, frame in ipairs(telegrams_of(capture.entries)) do
    local meter, content = meter_of(frame), content_of(frame)
    if not meter.seen[content] then
      meter.seen[content] = true
      table.insert(meter.telegrams, { c = frame.c, ci = frame.ci, data = core.hex(frame.data) })
    end
  end
  for _, meter in ipairs(description.meters) do meter.seen, meter.identity = nil, nil end
  return description
end

return M
