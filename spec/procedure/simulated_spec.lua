-- Reading meters with habits, on the simulator's virtual clock.
local mbus = require "mbus"

local HEADER = "%s 24 23 28 04 01 00 00 00 "
local ENERGY = "0C 05 31 84 74 01"

local function data(id, records)
  return HEADER:format((id:gsub("(..)(..)(..)(..)", "%4 %3 %2 %1"))) .. (records or ENERGY)
end

-- A bus of one meter at address 5 (and others), with these habits.
local function bus_of(habits, others)
  local meter = { address = 5, telegrams = { { data = data("31892747") } } }
  for name, value in pairs(habits) do
    if name ~= "converter" and name ~= "seed" then meter[name] = value end
  end
  local meters = { meter }
  for _, other in ipairs(others or {}) do meters[#meters + 1] = other end
  local sim = assert(mbus.simulator.new { meters = meters, converter = habits.converter, seed = habits.seed })
  return assert(mbus.open(sim:transport())), sim
end

local function reads(habits, address)
  local bus, sim = bus_of(habits)
  local readout, err = bus:read(address or 5)
  assert.is_truthy(readout, tostring(err))
  assert.equal(174843100, readout:find({ quantity = "energy" }).value)
  assert.same({ 0, 0, 0 }, { sim.statistics.overlaps, sim.statistics.collisions, sim.statistics.noise })
  -- and once more
  readout, err = bus:read(address or 5)
  assert.is_truthy(readout, tostring(err))
end

describe("a simulated meter", function()
  it("is read by primary and secondary address", function()
    for _, address in ipairs { 5, 254, "31892747", "3189274724232804", "318FF7F7FFFFFF04" } do reads({}, address) end
  end)

  it("is read though it needs SND_NKE, ignores it, or acknowledges in its own way", function()
    for _, habit in ipairs { "needs_nke", "ignores_nke", "short_ack", "shared_fcb", "ignores_fcb" } do
      reads { [habit] = true }
      reads({ [habit] = true }, "31892747")
    end
  end)

  it("is read at the edges of its answer window", function()
    for baudrate, delay in pairs { [300] = 1.15, [2400] = 0.1875, [9600] = 0.084375 } do
      local sim = assert(mbus.simulator.new { baudrate = baudrate,
        meters = { { address = 5, telegrams = { { data = data("31892747") } }, delay = delay } } })
      local bus = assert(mbus.open(sim:transport()))
      assert.is_truthy(bus:read(5), baudrate .. " Bd, at the end")
      assert.is_truthy(bus:read("31892747"), baudrate .. " Bd, at the end")
    end
    reads { delay = 11 / 2400 }
  end)

  it("is read with echo on the line", function()
    reads { converter = { echo = true } }
    reads({ converter = { echo = true } }, "31892747")
  end)

  it("times out when it answers late, and disturbs nobody after it", function()
    local other = { address = 6, telegrams = { { data = data("31892749", "0C 05 99 00 00 00") } } }
    for _, late in ipairs { 0.001, 0.05, 0.2, 0.5, 1, 2 } do
      local bus = bus_of({ late = late }, { other })
      local _, err = bus:read(5)
      if err then assert.equal("string", type(err.kind)) end
      local readout
      readout, err = bus:read(6)
      assert.is_truthy(readout, ("%g s late: %s"):format(late, tostring(err)))
      assert.equal("31892749", readout.id)
    end
  end)

  it("is reported, not mixed up, where two have one primary address", function()
    local twin = { address = 5, telegrams = { { data = data("31892749", "0C 05 99 00 00 00") } } }
    for _, converter in ipairs { { collision = "superpose" }, { collision = "break" }, { damaged = "drop" } } do
      for seed = 1, 20 do
        local bus = bus_of({ converter = converter, seed = seed }, { twin })
        local readout, err = bus:read(5)
        assert.is_nil(readout)
        assert.is_true(err.tries >= 1)
        for _, id in ipairs { "31892747", "31892749" } do
          readout, err = bus:read(id)
          assert.is_truthy(readout, tostring(err))
          assert.equal(id, readout.id)
        end
        readout = bus:read("318927FF")
        assert.is_nil(readout)
      end
    end
  end)

  it("gives the right values or an error on a noisy line", function()
    local good, bad = 0, 0
    for seed = 1, 150 do
      local bus = bus_of { seed = seed, converter = { bit_flips = 0.002 } }
      local readout, err = bus:read(5)
      if readout then
        good = good + 1
        assert.equal(174843100, readout:find({}).value)
      else
        bad = bad + 1
        assert.is_string(err.kind)
      end
    end
    assert.is_true(good > 5 * bad, good .. " good, " .. bad .. " bad")
  end)
end)

describe("the simulated house", function()
  local HYD = { "3189274724232804", "3189274924232804" }
  local KAMSTRUP = { "829690102D2C400D", "829690122D2C400D", "829690152D2C400D", "829690172D2C400D", "830036742D2C400D",
    "830036752D2C400D", "830036762D2C400D", "830036772D2C400D", "830036792D2C400D" }

  it("is read by its eleven secondary addresses", function()
    local bus <close> = assert(mbus.open "sim:house")
    for _, list in ipairs { HYD, KAMSTRUP } do
      for _, address in ipairs(list) do
        local readout, err = bus:read(address)
        assert.is_truthy(readout, tostring(err))
        assert.equal(address, readout.secondary_address)
        assert.is_true(#readout > 5)
      end
    end
  end)

  it("is read by primary address but for the two at address 0", function()
    local bus <close> = assert(mbus.open "sim:house")
    for _, address in ipairs(KAMSTRUP) do
      local readout, err = bus:read(address:sub(7, 8))
      assert.is_truthy(readout, tostring(err))
      assert.equal(address, readout.secondary_address)
    end
    local none, err = bus:read(0)
    assert.is_nil(none)
    assert.is_string(err.kind)
    none, err = bus:read(254)
    assert.is_nil(none)
    assert.is_string(err.kind)
  end)
end)
