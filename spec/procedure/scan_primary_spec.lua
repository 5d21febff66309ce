-- Asking every primary address, on the simulator's virtual clock.
local mbus = require "mbus"
local scans = require "spec.procedure.scans"

local function at(address, fields)
  local all = { address = address }
  for name, value in pairs(fields or {}) do all[name] = value end
  return scans.meter(("000000%02d"):format(address), all)
end

local function scan(meters, options, converter)
  options = options or {}
  options.range = options.range or "0-20"
  return scans.scan({ meters = meters, converter = converter }, options)
end

describe("a primary scan", function()
  it("finds the nine meters of the house and the address where two collide", function()
    local done = scans.scan("house")
    assert.same({ "10", "12", "15", "17", "74", "75", "76", "77", "79" }, scans.addresses(done))
    assert.is_true(done.by_address[0].collision)
    assert.same({ 0 }, done.result.collisions)
    assert.is_false(done.result.complete)
    local meter = done.by_address[10]
    assert.same({ 10, "82969010", "KAM", 64, 13, "heat/cooling", "829690102D2C400D", 10, 2400 }, { meter.address, meter.id,
      meter.manufacturer, meter.version, meter.medium, meter.medium_name, meter.secondary_address, meter.primary_address,
      meter.baudrate })
    assert.equal(0, done.sim.statistics.overlaps)
  end)

  it("takes no longer than the windows of the standard and the meters' telegrams need", function()
    -- 251 times SND_NKE and its window; for each meter REQ_UD2, its delay, its telegram and 22 bits
    local least = 251 * (396 / 2400 + 0.05)
    local sim = assert(mbus.simulator.new("house"))
    local bus = assert(mbus.open(sim))
    for _, address in ipairs { 10, 12, 15, 17, 74, 75, 76, 77, 79 } do
      local telegram = assert(bus:read(address)).telegrams[1]
      least = least + (55 + 11 * #telegram.bytes + 22) / 2400 + 0.0475
    end
    local done = scans.scan("house")
    assert.is_true(done.seconds <= 1.05 * least, ("%.2f s, least %.2f s"):format(done.seconds, least))
    -- An empty bus needs the windows alone.
    done = scans.scan { meters = {} }
    assert.is_true(done.seconds <= 1.001 * 251 * 0.215, done.seconds)
    assert.is_true(done.result.complete)
  end)

  it("takes ranges and lists", function()
    local meters = { at(1), at(5), at(9), at(17) }
    for _, case in ipairs { { "1-9", "1 5 9" }, { "5", "5" }, { 5, "5" }, { "17, 1-4", "1 17" }, { { 9, 5, 5 }, "5 9" },
      { " 1 - 5 ", "1 5" } } do
      local done = scan(meters, { range = case[1] })
      assert.equal(case[2], table.concat(scans.addresses(done), " "))
      assert.is_true(done.result.complete)
    end
  end)

  it("refuses ranges that cannot be right, with the reason", function()
    local bus <close> = assert(mbus.open "sim:")
    for _, range in ipairs { "0-251", "5-1", "", "a", "1-", "1,,2", "-1", "253", 251, {}, { 300 }, { "x" } } do
      local none, err = bus:scan { range = range }
      assert.is_nil(none)
      assert.equal("invalid", err.kind)
      assert.matches("primary addresses are 0 to 250", tostring(err))
    end
    assert.has_error(function() bus:scan { range = true } end, "option range: text, a number or a list expected")
    assert.has_error(function() bus:scan { mask = "31FFFFFF" } end, "option mask: only with secondary")
    assert.has_error(function() bus:scan(5) end, "options are a table, not number")
    assert.has_error(function() bus:scan { probe = "ping" } end, 'option probe: "nke", "req" or "both" expected')
  end)

  it("reports two meters at one address as a collision, however it looks", function()
    local looks = {
      clean = { 0.044, 0.0441 }, late = { 0.03, 0.15 }, garbage = { 0.044, 0.0455 }, random = { { 0.03, 0.06 }, { 0.03, 0.06 } },
    }
    for name, delays in pairs(looks) do
      for _, converter in ipairs { { collision = "superpose" }, { collision = "break" } } do
        local done = scan({ at(4), at(5, { delay = delays[1] }), at(5, { delay = delays[2], id = "12345678" }), at(6) }, {}, converter)
        assert.same({ "4", "6" }, scans.addresses(done), name)
        assert.same({ 5 }, done.result.collisions, name)
        assert.equal(0, done.sim.statistics.overlaps)
      end
    end
  end)

  it("finds meters that ignore SND_NKE if it is told so", function()
    local meters = { at(4), at(5, { ignores_nke = true }) }
    assert.same({ "4" }, scans.addresses(scan(meters)))
    for _, probe in ipairs { "req", "both" } do
      assert.same({ "4", "5" }, scans.addresses(scan(meters, { probe = probe })))
    end
  end)

  it("is not misled by habits", function()
    local habits = { { needs_nke = true }, { short_ack = true }, { ignores_fcb = true }, { shared_fcb = true },
      { faults = { leading = "00", acknowledgements = true } }, { faults = { trailing = "FF", acknowledgements = true } },
      { faults = { checksum = true, answers = 1 } }, { faults = { gap = 0.008 } } }
    for i, habit in ipairs(habits) do
      local done = scan { at(4), at(5, habit), at(6) }
      assert.same({ "4", "5", "6" }, scans.addresses(done), i)
      assert.is_true(done.result.complete)
    end
    local done = scan({ at(4), at(5) }, {}, { echo = true })
    assert.same({ "4", "5" }, scans.addresses(done))
  end)

  it("tells of a meter that acknowledges and gives no data", function()
    for kind, fields in pairs { timeout = { silent_after = 1 }, rejected = { telegrams = {} },
      mismatch = { faults = { address = 99 } } } do
      local done = scan { at(4), at(5, fields), at(6) }
      local meter = done.by_address[5]
      if kind == "timeout" then
        assert.is_nil(meter) -- it has fallen silent for good
      else
        assert.equal(kind, meter.error.kind)
        assert.is_nil(meter.id)
      end
      assert.is_not_nil(done.by_address[4].id)
      assert.is_not_nil(done.by_address[6].id)
    end
  end)

  it("asks silent addresses again if it is told so", function()
    local deaf = function(options) return #scan({ at(4) }, options).sent end
    assert.equal(deaf {} + 20, deaf { retries = 1 })
  end)

  it("finds meters that answer late at their own address, and says that there were some", function()
    for _, late in ipairs { 0.02, 0.1, 0.3 } do
      local done = scan { at(4), at(5, { late = late }), at(9) }
      assert.same({ "4", "5", "9" }, scans.addresses(done), late)
      assert.is_false(done.result.complete)
      assert.matches("longer margin", done.result.remarks[1])
    end
    -- and a margin that is long enough
    local done = scans.scan({ meters = { at(4), at(5, { late = 0.3 }) } }, { range = "0-9", margin = 0.35 })
    assert.same({ "4", "5" }, scans.addresses(done))
    assert.is_true(done.result.complete)
  end)

  it("takes a late answer neither for one of the address that is asked next nor for a collision there", function()
    for _, probe in ipairs { "nke", "req", "both" } do
      for _, late in ipairs { 0.03, 0.1, 0.15 } do
        for name, next_one in pairs { nobody = {}, meter = { at(6) }, mute = { at(6, { telegrams = {} }) } } do
          local message = ("%s, %g s late, then %s"):format(probe, late, name)
          local done = scan({ at(5, { late = late }), next_one[1] }, { probe = probe, range = "4-8" })
          assert.equal("00000005", done.by_address[5] and done.by_address[5].id, message)
          if name == "nobody" then assert.is_nil(done.by_address[6], message) end
          if name == "meter" then assert.equal("00000006", done.by_address[6] and done.by_address[6].id, message) end
          if name == "mute" then assert.is_not_nil(done.by_address[6].error, message) end
          assert.same({}, done.result.collisions, message)
          assert.equal(name == "nobody" and 1 or 2, done.result.found, message)
          assert.matches("longer margin", done.result.remarks[1], message)
        end
      end
    end
  end)

  it("finds all where all answer late", function()
    local meters = {}
    for i = 1, 9 do meters[i] = at(i, { late = 0.12 }) end
    for _, probe in ipairs { "nke", "req", "both" } do
      local done = scan(meters, { probe = probe })
      assert.equal("1 2 3 4 5 6 7 8 9", table.concat(scans.addresses(done), " "), probe)
      assert.equal(9, done.result.found, probe)
      for _, meter in ipairs(done.meters) do assert.is_nil(meter.error, probe) end
    end
  end)

  it("asks with a longer window what was odd alone, and that at one line speed alone", function()
    local meters = { at(4, { telegrams = {} }), at(5), at(5, { id = "12345678", delay = 0.1 }), at(8) }
    local done = scan(meters, { baud = { 2400, 9600 }, range = "0-100" })
    assert.same({ false, 2, { 5 }, {} }, { done.result.complete, done.result.found, done.result.collisions, done.result.remarks })
    local windows = 101 * (0.215 + 0.0913)
    assert.is_true(done.seconds < windows + 16, done.seconds)
  end)

  it("decides about what was odd before it ends with the last meter that is expected", function()
    local collision = { at(2), at(2, { id = "12345678", delay = 0.1 }) }
    local done = scan({ collision[1], collision[2], at(4), at(9) }, { expect = 1 })
    assert.same({ false, { 2 }, 1 }, { done.result.complete, done.result.collisions, done.result.found })
    assert.is_true(done.seconds < 10, done.seconds)
    done = scan({ at(2, { telegrams = {} }), at(4), at(9) }, { expect = 1 })
    assert.same({ true, 2 }, { done.result.complete, done.result.found })
    done = scan({ at(4), at(9) }, { expect = 1 })
    assert.same({ true, 1 }, { done.result.complete, done.result.found })
  end)

  it("reads the meters on the way", function()
    local two = { { records = scans.records(2) }, { records = scans.records(3) } }
    local done = scan({ at(4), at(5, { telegrams = two }) }, { read = true })
    assert.equal(3, #done.by_address[4].readout)
    assert.equal(2, #done.by_address[5].readout.telegrams)
    assert.equal(5, done.by_address[5].readout:records() and #done.by_address[5].readout)
  end)

  it("searches at several line speeds and comes back to the first", function()
    local meters = { at(4), at(5, { baudrate = 300 }), at(6, { baudrate = 9600 }) }
    local done = scan(meters, { baud = { 300, 2400, 9600 }, range = "3-7" })
    assert.same({ "4", "5", "6" }, scans.addresses(done))
    assert.same({ 300, 2400, 9600 }, { done.by_address[5].baudrate, done.by_address[4].baudrate, done.by_address[6].baudrate })
    assert.equal(2400, done.sim.baudrate)
  end)

  it("does not forget two meters of which a gateway has let something through once, or twice", function()
    local one = { { records = scans.records(1) } }
    local meters = { at(5, { id = "12345678", telegrams = one }), at(5, { id = "87654321", telegrams = one }) }
    for probe, seeds in pairs { nke = { 31, 33, 80, 128 }, req = { 61, 134, 270, 309 } } do
      for _, seed in ipairs(seeds) do
        local done = scans.scan({ meters = meters, converter = { damaged = "drop" }, seed = seed }, { range = "3-7", probe = probe })
        assert.is_false(done.result.complete, probe .. seed)
      end
    end
  end)

  it("does not take what is at one address at different line speeds for one and the same", function()
    local function kinds(meters)
      local done, list = scan(meters, { baud = { 2400, 9600 }, range = "4-6" }), {}
      for i, meter in ipairs(done.meters) do
        local what = meter.collision and "collision" or meter.error and "mute" or meter.id
        list[i] = ("%d %d %s"):format(meter.address, meter.baudrate, what)
      end
      return list, done.result
    end
    local mute, one = at(5, { telegrams = {} }), at(5, { baudrate = 9600, delay = 0.03 })
    local other = at(5, { baudrate = 9600, delay = 0.06, id = "12345678" })
    local list, result = kinds { mute, one, other }
    assert.same({ "5 2400 mute", "5 9600 collision" }, list)
    assert.same({ false, { 5 } }, { result.complete, result.collisions })
    list, result = kinds { mute, at(5, { telegrams = {}, baudrate = 9600 }) }
    assert.same({ "5 2400 mute", "5 9600 mute" }, list)
    assert.equal(2, result.found)
    assert.same({ "5 2400 mute", "5 9600 00000005" }, (kinds { mute, one }))
  end)

  it("says so where the line speed cannot be changed", function()
    local sim = assert(mbus.simulator.new { meters = {} })
    local transport = sim:transport()
    local fixed = { name = "fixed", baudrate = 2400, margin = 0, gap = 0.02 }
    for _, method in ipairs { "write", "read", "drain", "now", "sleep", "close" } do
      fixed[method] = function(_, ...) return transport[method](transport, ...) end
    end
    local bus <close> = assert(mbus.open(fixed))
    local search = bus:scan { range = "1", baud = { 300 } }
    assert.is_nil(search())
    assert.equal("unsupported", search.error.kind)
    assert.has_error(function() bus:scan { baud = { 1234 } } end)
  end)

  it("tells how far it is", function()
    local seen = {}
    scan({ at(4) }, { progress = function(progress) seen[#seen + 1] = progress end })
    assert.equal(22, #seen)
    assert.same({ 0, 0, 0 }, { seen[1].fraction, seen[1].found, seen[1].current })
    assert.equal(1, seen[22].fraction)
    assert.equal(1, seen[6].found)
    for i = 2, #seen do assert.is_true(seen[i].fraction > seen[i - 1].fraction) end
    assert.is_true(math.abs(seen[12].seconds_left - 10 * 0.215) < 0.5)
  end)

  it("tells how far it is while it decides about what was odd, too", function()
    local meters, seen = {}, {}
    for address = 2, 6 do meters[#meters + 1] = at(address, { telegrams = {} }) end
    local done = scan(meters, { progress = function(progress) seen[#seen + 1] = progress end })
    local of_second, longest = {}, 0
    for i = 2, #seen do
      assert.is_true(seen[i].fraction >= seen[i - 1].fraction)
      longest = math.max(longest, seen[i].elapsed - seen[i - 1].elapsed)
      if seen[i].current < seen[i - 1].current then of_second[#of_second + 1] = seen[i].current end
    end
    assert.equal(1, seen[#seen].fraction)
    assert.same({ 2 }, of_second) -- goes back once
    assert.is_true(longest < 10, longest)
    -- in the middle of it, what is left is told about right
    for _, progress in ipairs(seen) do
      local left = done.result.seconds - progress.elapsed
      if progress.elapsed > done.result.seconds / 2 and progress.fraction < 1 then
        assert.is_true(math.abs(progress.seconds_left - left) < 0.5 * left + 3, progress.elapsed)
      end
    end
  end)
end)
