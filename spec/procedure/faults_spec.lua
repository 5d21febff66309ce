-- Everything that lines do, on the simulator's virtual clock: a readout gives the right values or an error, in bounded time,
-- and a bus on which the next request works once the fault is over.
local mbus = require "mbus"

local IDS = { [5] = "31892747", [6] = "31892749", [7] = "83003674" }
local VALUES = { [5] = 174843100, [6] = 92096700, [7] = 123400 }
local SECOND = { [5] = 26.472, [6] = 13.155, [7] = 99.999 }

local function header(id) return { id = id, manufacturer = "HYD", version = 40, medium = 4 } end

-- Every meter has two telegrams, with the same quantities in all of them.
local function meter(address, habits)
  local one = header(IDS[address])
  one.address = address
  one.telegrams = {
    { records = { { quantity = "energy", unit = "Wh", value = VALUES[address], exponent = 2, data = "bcd8" } } },
    { records = { { quantity = "volume", unit = "m3", value = SECOND[address], exponent = -3, data = "bcd8" } } },
  }
  for name, value in pairs(habits or {}) do one[name] = value end
  return one
end

local function bus_of(seed, converter, habits, options)
  local sim = assert(mbus.simulator.new { seed = seed, converter = converter,
    meters = { meter(5, habits), meter(6), meter(7) } })
  local transport = sim:transport()
  return assert(mbus.open(transport, options)), sim, transport
end

-- No request may take longer than all its attempts with the longest frame.
local LONGEST = 60

local function check(address, readout, err, message)
  if not readout then
    assert.is_string(err.kind, message)
    readout = err.readout
    if not readout then return false end
  end
  for _, record in readout:records() do
    local wanted = record.quantity == "energy" and VALUES or SECOND
    assert.equal(wanted[address], record.value, message)
  end
  assert.equal(IDS[address], readout.id, message)
  return err == nil
end

-- Reads all three, by both kinds of address, and returns how many readouts were whole.
local function read_all(bus, transport, message)
  local good = 0
  for address = 5, 7 do
    for _, named in ipairs { address, IDS[address] } do
      local began = transport:now()
      local readout, err = bus:read(named)
      assert.is_true(transport:now() - began < LONGEST, message)
      if check(address, readout, err, ("%s, %s: %s"):format(message, named, err)) then
        assert.equal(2, #readout, message)
        good = good + 1
      end
    end
  end
  return good
end

local function survives(name, converter, habits, seeds, least)
  it("survives " .. name, function()
    local good, all = 0, 0
    for seed = 1, seeds or 20 do
      local bus, sim, transport = bus_of(seed, converter, habits)
      good = good + read_all(bus, transport, ("%s, seed %d"):format(name, seed))
      all = all + 6
      -- the fault is over
      sim.converter = {}
      sim.next_noise = nil
      for _, one in ipairs(sim.meters) do one.description.faults, one.description.babbles = nil, nil end
      transport:sleep(5)
      if not (habits and (habits.late or habits.deaf)) then
        assert.equal(6, read_all(bus, transport, name .. ", afterwards"), ("%s, seed %d, afterwards"):format(name, seed))
      end
    end
    assert.is_true(good >= (least or 0) * all, ("%d of %d readouts are whole"):format(good, all))
  end)
end

describe("a readout", function()
  survives("bit flips, few", { bit_flips = 0.0005 }, nil, 40, 0.95)
  survives("bit flips, many", { bit_flips = 0.01 }, nil, 40)
  survives("bit flips at a gateway that drops damaged characters", { bit_flips = 0.003, damaged = "drop" }, nil, 40, 0.5)
  survives("lost characters", { lost = 0.003 }, nil, 40, 0.9)
  survives("many lost characters", { lost = 0.05 }, nil, 20)
  survives("answers that are cut", nil, { faults = { cut = 0.3 } }, 20, 0.8)
  survives("answers and acknowledgements that are cut", nil, { faults = { cut = 0.5, acknowledgements = true } })
  survives("noise before", { noise = { before = "00" } }, nil, 5, 0.5)
  survives("garbage before", { noise = { before = "68 55 10 FE" } }, nil, 5)
  survives("noise after", { noise = { after = "00" } }, nil, 5, 0.5)
  survives("garbage after", { noise = { after = "55 AA E5" } }, nil, 5)
  survives("the beginning of a frame after", { noise = { after = "68 1F 1F 68 08 05" } }, nil, 5)
  survives("noise between, some", { noise = { between = 2 } }, nil, 20, 0.5)
  survives("noise between, much", { noise = { between = 0.05 } }, nil, 5)
  survives("ghosts", { ghosts = 0.8 }, nil, 30, 0.5)
  survives("echo", { echo = true }, nil, 5, 1)
  survives("echo and bit flips", { echo = true, bit_flips = 0.002 }, nil, 20, 0.5)
  survives("late answers", nil, { late = 0.1 }, 5)
  for _, late in ipairs { 0.05, 0.3, 0.5, 0.7, 0.9, 1.3, 1.8 } do
    survives(("answers %g s late"):format(late), nil, { late = late }, 12)
  end
  survives("answers as late as the next request", nil, { late = 0.2 }, 5)
  survives("glued telegrams", nil, { faults = { glued = true } }, 5, 0.6)
  survives("glued acknowledgements", nil, { faults = { glued = true, acknowledgements = true } }, 5, 0.6)
  survives("a deaf meter", nil, { deaf = true }, 3, 0.6)
  survives("a meter that babbles now and then", nil, { babbles = 3 }, 10)
  survives("a meter that babbles all the time", nil, { babbles = 0.05 }, 3)
  survives("pauses between the characters", nil, { faults = { gap = 0.004, acknowledgements = true } }, 5, 1)
  survives("another address in the answer", nil, { faults = { address = 6 } }, 5, 0.6)
  survives("a wrong checksum", nil, { faults = { checksum = true } }, 5, 0.6)
  survives("everything at once", { bit_flips = 0.001, lost = 0.002, ghosts = 0.2, noise = { between = 1 }, echo = true },
    { faults = { cut = 0.1 } }, 30)

  it("waits for a meter that pauses longer, where it is told to", function()
    local habits = { faults = { gap = 0.03 } }
    local bus = bus_of(1, nil, habits)
    local readout, err = bus:read(5)
    assert.is_nil(readout)
    assert.is_string(err.kind)
    bus = bus_of(1, nil, habits, { meters = { [5] = { gap = 0.1 } } })
    assert.equal(2, #assert(bus:read(5)))
  end)

  it("survives stale answers: values of this meter, or an error", function()
    for seed = 1, 5 do
      local bus, _, transport = bus_of(seed, nil, { faults = { stale = true } })
      for _ = 1, 3 do
        for address = 5, 7 do
          local readout, err = bus:read(address)
          check(address, readout, err, "stale")
        end
      end
      assert.is_true(transport:now() < LONGEST)
    end
  end)

  it("takes no two damaged characters that make up for each other", function()
    local core = require "mbus.core"
    local by_hand = require "spec.procedure.by_hand"
    local good = by_hand.answer(5, "31892747", 1, "\x0C\x05\x31\x84\x74\x01")
    -- one bit up here, the same bit down there: the checksum fits
    local bad = good:gsub("\x31\x84", "\x30\x85")
    assert.is_truthy(core.frame(bad))
    local function chunks(errors_at, garbage)
      local list, time = {}, 0.05
      local bytes = garbage .. bad
      for i = 1, #bytes do
        list[i] = { time, bytes:sub(i, i), errors_at[i - #garbage] and 1 or 0 }
        time = time + 11 / 2400
      end
      return list
    end
    local damaged = { [22] = true, [23] = true }
    for _, garbage in ipairs { "", "\x55\x55\x55\x55\x55" } do
      local bus = mbus.open("manual:", { retries = 0 })
      bus:begin("read", 5)
      local readout, err = by_hand.play(bus, function(request)
        return request:byte(2) == 0x40 and "\xE5" or chunks(damaged, garbage)
      end)
      assert.is_nil(readout)
      assert.equal("collision", err.kind)
    end
  end)
end)

describe("a line that never becomes quiet", function()
  it("is told, and works again when it is", function()
    local bus, _, transport = bus_of(1, nil, { babbles = 0.01, babbles_until = 8, address = 9 })
    transport:sleep(1)
    local readout, err = bus:read(6)
    assert.is_nil(readout)
    assert.is_string(err.kind)
    transport:sleep(20)
    assert.is_truthy(bus:read(6))
    assert.is_truthy(bus:read("83003674"))
  end)
end)
