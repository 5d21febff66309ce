-- How long reading takes, against the time that the line itself needs: every character of every frame at 11 bits, the
-- meters' own delays, and one answer window after the SND_NKE 253 with which secondary addressing begins.
local mbus = require "mbus"

local PRIMARY = { 10, 12, 15, 17, 74, 75, 76, 77, 79 }
local HYD = { "3189274724232804", "3189274924232804" }
local KAMSTRUP = { "829690102D2C400D", "829690122D2C400D", "829690152D2C400D", "829690172D2C400D", "830036742D2C400D",
  "830036752D2C400D", "830036762D2C400D", "830036772D2C400D", "830036792D2C400D" }
local WINDOW = 341 / 2400 + 0.05

-- Seconds that reading took, seconds that the line needed, and the shortest silence before a frame of the master.
local function measure(lists)
  local delays, request_end, answer_end, shortest = 0, nil, nil, math.huge
  local function trace(direction, bytes, time)
    local size = #bytes * 11 / 2400
    if direction == "send" then
      delays, answer_end = delays + time - request_end, time + size
    else
      if answer_end then shortest = math.min(shortest, time - size - answer_end) end
      request_end, answer_end = time, nil
    end
  end
  local sim = assert(mbus.simulator.new("house", { trace = trace }))
  local transport = sim:transport()
  local bus <close> = assert(mbus.open(transport))
  for _, list in ipairs(lists) do
    for _, address in ipairs(list) do assert(bus:read(address)) end
  end
  assert.same({ 0, 0 }, { sim.statistics.overlaps, sim.statistics.collisions })
  return transport:now(), sim.statistics.airtime + delays, shortest
end

describe("reading the house", function()
  it("takes at most 1.03 times what the line needs", function()
    local time, line = measure { PRIMARY }
    assert.is_true(time <= 1.03 * line, ("primary: %.2f s, line %.2f s"):format(time, line))
    for name, lists in pairs { primary_and_secondary = { PRIMARY, HYD }, secondary = { HYD, KAMSTRUP } } do
      time, line = measure(lists)
      line = line + WINDOW
      assert.is_true(time <= 1.03 * line, ("%s: %.2f s, line %.2f s"):format(name, time, line))
    end
  end)

  it("leaves 11 bits after every answer, and more", function()
    for _, lists in ipairs { { PRIMARY, HYD }, { KAMSTRUP } } do
      local _, _, shortest = measure(lists)
      assert.is_true(shortest >= 16 / 2400 - 1e-6, shortest * 2400 .. " bits")
    end
  end)
end)
