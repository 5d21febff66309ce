local core = require "mbus.core"
local simulator = require "mbus.simulator"

local CHARACTER = 11 / 2400
local NKE_5 = core.short(0x40, 5)

local function bus(description, options) return assert(simulator.new(description, options)) end

describe("a simulated bus", function()
  it("answers when the request has gone out, the meter has waited, and the answer has come in", function()
    for _, baudrate in ipairs { 300, 2400, 38400 } do
      local sim = bus { baudrate = baudrate, meters = { { address = 5, delay = 0.0625 } } }
      sim:receive(NKE_5, 10)
      assert.near(10 + 55 / baudrate + 0.0625 + 11 / baudrate, sim:next(), 1e-9)
      assert.equal("", (sim:take(sim:next() - 1e-6)))
      assert.equal("\xE5", (sim:take(sim:next())))
      assert.is_nil(sim:next())
    end
  end)

  it("takes what is written in pieces for one frame, each byte with its time", function()
    local sim = bus { meters = { { address = 5, delay = 0.05 } } }
    for i = 1, 5 do sim:receive(NKE_5:sub(i, i), 1 + (i - 1) * 0.01) end
    assert.near(1.04 + CHARACTER + 0.05 + CHARACTER, sim:next(), 1e-9)
  end)

  it("sends bytes that are written at once one after another", function()
    local sim = bus { meters = { { address = 5, delay = 0.05 } } }
    sim:receive(("\0"):rep(100), 0)
    sim:receive(NKE_5, 0.01)
    assert.near(105 * CHARACTER, sim:backlog(0), 1e-9)
    assert.near(105 * CHARACTER + 0.05 + CHARACTER, sim:next(), 1e-9)
    assert.equal(100, sim.statistics.noise)
  end)

  it("forgets half a frame after a silence", function()
    local sim = bus { meters = { { address = 5, delay = 0.05 } } }
    sim:receive("\x68\x06\x06\x68", 0)
    sim:receive(NKE_5, 0.2)
    assert.equal("\xE5", (sim:take(1)))
  end)

  it("draws delays within the window of the standard, by the seed alone", function()
    local function delays(baudrate, seed)
      local sim = bus({ baudrate = baudrate, meters = { { address = 5 } } }, { seed = seed })
      local all = {}
      for i = 1, 50 do
        sim:receive(NKE_5, i * 10)
        all[i] = sim:next() - i * 10 - 66 / baudrate
        sim:take(i * 10 + 9)
        assert.is_true(all[i] > 11 / baudrate - 1e-9 and all[i] < 330 / baudrate + 0.05 + 1e-9, all[i])
      end
      return all
    end
    assert.same(delays(2400, 7), delays(2400, 7))
    assert.not_same(delays(2400, 7), delays(2400, 8))
    delays(300, 1)
    delays(38400, 1)
  end)

  it("lets two meters at one address talk at once", function()
    local function twins(offset, converter)
      local sim = bus { converter = converter, meters = { { delay = 0.05 }, { delay = 0.05 + offset / 2400 } } }
      sim:receive(core.short(0x40, 0), 0)
      local bytes, errors = sim:take(1)
      return core.hex(bytes), errors, sim.statistics.collisions
    end
    assert.same({ "E5", 0, 1 }, { twins(0) })
    assert.same({ "C0", 1, 1 }, { twins(1) })
    assert.same({ "65 FE", 1, 1 }, { twins(8) })
    assert.same({ "E5 E5", 0, 0 }, { twins(20) })
    assert.same({ "00", 1, 1 }, { twins(0, { collision = "break" }) })
    assert.same({ "", 0, 1 }, { twins(1, { damaged = "drop" }) })
  end)

  it("returns the master's bytes as echo, while they go out", function()
    local sim = bus { converter = { echo = true }, meters = { { address = 5, delay = 0.05 } } }
    sim:receive(NKE_5, 0)
    assert.near(CHARACTER, sim:next(), 1e-9)
    assert.equal(NKE_5:sub(1, 3), (sim:take(3 * CHARACTER)))
    assert.equal(NKE_5:sub(4) .. "\xE5", (sim:take(1)))
  end)

  it("gives a late answer though the master asks another meter meanwhile", function()
    local sim = bus { meters = { { address = 5, late = 0.2 }, { address = 6, delay = 0.02 } } }
    sim:receive(NKE_5, 0)
    sim:receive(core.short(0x40, 6), 0.25)
    assert.equal("\xE5", (sim:take(0.34)))
    assert.equal("\xE5", (sim:take(1)))
  end)

  it("does not hear a request while it sends", function()
    local sim = bus { meters = { { address = 5, delay = 0.05, telegrams = { { data = ("00"):rep(200) } } } } }
    local request = core.short(0x7B, 5)
    sim:receive(request, 0)
    sim:receive(request, 0.3)
    assert.equal(209, #(sim:take(10)))
    assert.equal(1, sim.statistics.overlaps)
  end)

  it("has a meter give one answer after the other, if it is asked again before it has begun", function()
    local sim = bus { meters = { { address = 5, late = 0.3, telegrams = { { data = ("00"):rep(50) } } } } }
    local request = core.short(0x7B, 5)
    sim:receive(request, 0)
    sim:receive(request, 0.1)
    local answer = core.long(0x08, 5, 0x72, ("\0"):rep(50))
    assert.same({ answer .. answer, 0 }, { sim:take(5) })
  end)

  it("does not see a collision in an answer under the master's echo", function()
    local sim = bus { converter = { echo = true, collision = "break" }, meters = { { address = 5, delay = 0.05 } } }
    sim:receive(NKE_5, 0)
    sim:receive(("\0"):rep(20), 0.05)
    sim:take(1)
    assert.equal(0, sim.line.collisions)
  end)

  it("counts", function()
    local sim = bus { meters = { { address = 5 } } }
    sim:receive(NKE_5, 0)
    sim:receive(core.short(0x40, 6), 1)
    assert.same({ requests = 2, answers = 1, noise = 0, overlaps = 0, collisions = 0 },
      { requests = sim.statistics.requests, answers = sim.statistics.answers, noise = sim.statistics.noise,
        overlaps = sim.statistics.overlaps, collisions = sim.statistics.collisions })
    assert.near(11 * CHARACTER, sim.statistics.airtime, 1e-9)
  end)

  it("shows what goes over it", function()
    local seen = {}
    local sim = bus({ meters = { { address = 5, delay = 0.05 } } }, { trace = function(direction, bytes, time)
      seen[#seen + 1] = ("%s %s %.4f"):format(direction, core.hex(bytes), time)
    end })
    sim:receive(NKE_5, 0)
    assert.same({ "receive 10 40 05 45 16 0.0229", "send E5 0.0729" }, seen)
  end)

  it("turns over bits of answers", function()
    local sim = bus { converter = { bit_flips = 0.01 }, meters = { { address = 5, telegrams = { { data = ("55"):rep(200) } } } } }
    sim:receive(core.short(0x7B, 5), 0)
    local bytes = sim:take(5)
    assert.not_equal(core.hex(core.long(8, 5, 0x72, ("\x55"):rep(200))), core.hex(bytes))
  end)

  it("refuses a bad description with the reason", function()
    local sim, err = simulator.new { meters = { { adress = 5 } } }
    assert.is_nil(sim)
    assert.equal("invalid", err.kind)
  end)

  it("is independent of other buses and of math.random", function()
    local function run()
      local sim = bus { meters = { { address = 5 } } }
      sim:receive(NKE_5, 0)
      return sim:next()
    end
    local first = run()
    math.randomseed(5)
    assert.equal(first, run())
  end)
end)
