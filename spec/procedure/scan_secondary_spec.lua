-- The wildcard search by secondary address, on the simulator's virtual clock.
local mbus = require "mbus"
local Random = require "mbus.simulator.random"
local scans = require "spec.procedure.scans"

local meter, meters = scans.meter, scans.meters

local function scan(description, options, bus_options)
  options = options or {}
  options.secondary = true
  return scans.scan(description, options, bus_options)
end

-- Everything is found, nothing invented, and no frame was sent into an answer.
local function finds_all(done, message)
  assert.same(scans.secondary_addresses(done.sim), scans.addresses(done), message)
  assert.is_true(done.result.complete, message)
  assert.equal(0, done.sim.statistics.overlaps, message)
end

local function selections(done)
  local count = 0
  for _, frame in ipairs(done.sent) do
    if frame:find("^68 0B 0B 68 [57]3 FD 52") then count = count + 1 end
  end
  return count
end

-- How a collision can look.
local LOOKS = {
  clean_e5 = { delay = { 0.044, 0.0442 } }, -- bit for bit at once
  several_e5 = { delay = { 0.0047, 0.1875 } },
  garbage = { delay = { 0.044, 0.050 } },
}

describe("a secondary scan", function()
  it("finds the eleven meters of the house within 20 s", function()
    local done = scan "house"
    finds_all(done)
    assert.is_true(done.seconds <= 20, done.seconds .. " s")
    local found = done.by_address["3189274724232804"]
    assert.same({ "31892747", "HYD", 40, 4, "heat", "3189274724232804", 0, 2400 }, { found.id, found.manufacturer, found.version,
      found.medium, found.medium_name, found.secondary_address, found.primary_address, found.baudrate })
  end)

  it("is as fast as it may be: single meter 2 s, 50 random ids 95 s, 250 460 s", function()
    for _, case in ipairs { { 1, 2, 20 }, { 10, 25, 20 }, { 50, 95, 30 }, { 250, 460, 2 } } do
      for seed = 1, case[3] do
        local done = scan { meters = scans.random_meters(case[1], seed) }
        finds_all(done)
        assert.is_true(done.seconds <= case[2], ("%d meters: %.1f s"):format(case[1], done.seconds))
      end
    end
    local done = scan { meters = {} }
    assert.is_true(done.result.complete and done.seconds < 6.5, done.seconds)
  end)

  it("asks masks that have to be split by the same digit together", function()
    local done = scan { meters = meters { "12345611", "12345621", "12345612", "12345622" } }
    finds_all(done)
    -- All, ten last digits, ten last but one digits in both crowds at once, of which two show several: one by one.
    assert.equal(1 + 10 + 10 + 4, selections(done))
    done = scan { meters = meters { "12345611", "12345621", "12345612", "12345632", "12345678" } }
    finds_all(done)
    -- Of 1 there are several, of 2 and 3 one each; the 7 is asked one by one, since the meter that is known would answer.
    assert.equal(1 + 10 + 9 + 2 + 2, selections(done))
  end)

  it("knows a meter that it has found though its readout is not whole", function()
    local two = { { records = scans.records(2) }, { records = scans.records(3) } }
    local description = { meters = { meter "12345611", meter("12345621", { telegrams = two }), meter "12345612", meter "12345632" } }
    local whole = scan(description, { read = true })
    local part = scan(description, { read = true }, { max_telegrams = 1 })
    assert.equal("limit", part.by_address["123456212D2C0104"].error.kind)
    finds_all(part)
    assert.equal(selections(whole), selections(part))
  end)

  it("begins with everybody, and ends with nobody selected", function()
    for _, ids in ipairs { { "12345678" }, { "12345678", "12345679" }, {} } do
      local done = scan { meters = meters(ids) }
      assert.matches("^68 0B 0B 68 53 FD 52 FF FF FF FF FF FF FF FF 9A 16", done.sent[1])
      assert.equal("10 40 FD 3D 16", done.sent[#done.sent])
      for _, one in ipairs(done.sim.meters) do assert.is_false(one.selected) end
    end
  end)

  it("is right however a collision looks", function()
    local ids = { "31892747", "31892749", "82969010", "82969017", "83003677", "83003679", "12345677" }
    for look, fields in pairs(LOOKS) do
      for _, converter in ipairs { "superpose", "break" } do
        for seed = 1, 10 do
          local done = scan { meters = meters(ids, fields), converter = { collision = converter }, seed = seed }
          finds_all(done, look .. " " .. converter .. " " .. seed)
        end
      end
    end
  end)

  it("does not lose meters unnoticed where a gateway drops damaged characters", function()
    local ids = { "31892747", "31892749", "82969010", "82969017", "83003677", "83003679", "12345677" }
    for look, fields in pairs(LOOKS) do
      for seed = 1, 20 do
        local done = scan { meters = meters(ids, fields), converter = { damaged = "drop" }, seed = seed }
        local missing = #ids - #scans.addresses(done)
        assert.is_true(missing == 0 or not done.result.complete, look .. " " .. seed)
        assert.equal(0, done.sim.statistics.overlaps)
      end
    end
  end)

  it("finds meters that acknowledge a repeated selection unseen, though that looks like silence", function()
    local list = meters({ "82969004", "82969009", "82969008" }, { delay = 0.044, fcb_before_selection = true })
    local done = scan { meters = list, converter = { collision = "break", damaged = "drop" } }
    assert.same(scans.secondary_addresses(done.sim), scans.addresses(done))
    assert.matches("collisions look like silence", done.result.remarks[1])
  end)

  it("searches under a mask alone", function()
    local ids = { "31892747", "31892749", "82969010", "12345678" }
    for mask, count in pairs { ["31FFFFFF"] = 2, ["3189274F"] = 2, ["FFFFFFF8"] = 1, ["82969010"] = 1, ["99FFFFFF"] = 0,
      ["FFFFFFFF2D2CFFFF"] = 4, ["FFFFFFFFFFFFFF07"] = 0, ["ffffff1fffffffff"] = 1 } do
      local done = scan({ meters = meters(ids) }, { mask = mask })
      assert.equal(count, #scans.addresses(done), mask)
      assert.is_true(done.result.complete)
    end
  end)

  it("asks a complete identification number no longer than it takes", function()
    for _, options in ipairs { {}, { start_depth = 2 }, { expect = 2 } } do
      for _, mask in ipairs { "12345678", "99999999", "123456782D2C0104", "123456782D2C01FF" } do
        options.mask = mask
        local done = scan({ meters = meters { "12345678" } }, options)
        assert.equal(mask:find("^9") and 0 or 1, done.result.found)
        assert.is_true(done.seconds < 2, mask .. done.seconds)
      end
    end
  end)

  it("refuses malformed masks, with the reason", function()
    local bus <close> = assert(mbus.open "sim:")
    for mask, reason in pairs { ["31XX2747"] = '"X" is no hex digit', ["3189"] = "it has 4 digits", [""] = "it has 0 digits",
      ["31892747 "] = '" " is no hex digit', ["31892747242328"] = "it has 14 digits" } do
      local none, err = bus:scan { secondary = true, mask = mask }
      assert.is_nil(none)
      assert.equal("invalid", err.kind)
      assert.matches(reason, tostring(err), 1, true)
    end
    assert.has_error(function() bus:scan { secondary = true, mask = 5 } end, "option mask: hex digits expected")
  end)

  it("finds ids with hex digits: alone, by mask, where a parent misses them, or when told to search for them", function()
    local done = scan { meters = meters { "1234567A" } }
    finds_all(done)
    finds_all(scan { meters = meters { "1234567A", "12345678" } })
    finds_all(scan({ meters = meters { "1B34567A", "12345678", "22345679", "32345670" } }, { hex = true }))
    done = scan({ meters = meters { "1234567A", "12345678" } }, { mask = "1234567A" })
    assert.same({ "1234567A2D2C0104" }, scans.addresses(done))
  end)

  it("tells equal ids apart by medium, version and manufacturer, whatever the byte", function()
    for _, other in ipairs { { medium = 0xE9 }, { version = 0xAB }, { manufacturer = 0xFEC7 }, { manufacturer = 0x2CED },
      { manufacturer = "HYD", version = 0, medium = 7 } } do
      for _, converter in ipairs { "superpose", "break" } do
        local done = scan { converter = { collision = converter },
          meters = { meter "12345678", meter("12345678", other), meter "12345670", meter "52345678" } }
        finds_all(done)
      end
    end
    -- three at once
    finds_all(scan { meters = { meter "12345678", meter("12345678", { medium = 7 }), meter("12345678", { version = 9 }) } })
  end)

  it("tells equal addresses apart by fabrication number, and reports those that have none", function()
    local function twin(fabrication, value)
      local records = scans.records(3, value)
      table.insert(records, 1, { quantity = "fabrication_number", value = math.tointeger(tonumber(fabrication)), data = "bcd8" })
      return meter("12345678", { fabrication = fabrication, telegrams = { { records = records } } })
    end
    local done = scan { meters = { twin("00000042", 1), twin("00000043", 2), twin("77700042", 3), meter "22345678" } }
    local numbers = {}
    for _, found in ipairs(done.meters) do
      if found.fabrication then
        assert.equal("123456782D2C0104", found.address)
        numbers[#numbers + 1] = found.fabrication
      end
    end
    table.sort(numbers)
    assert.same({ "00000042", "00000043", "77700042" }, numbers)
    assert.is_true(done.result.complete)
    done = scan { meters = { meter("12345678", { delay = 0.04 }), meter("12345678", { delay = 0.1 }), meter "22345678" } }
    assert.same({ "123456782D2C0104" }, done.result.collisions)
    assert.is_true(done.by_address["123456782D2C0104"].collision)
    assert.is_false(done.result.complete)
    assert.same({ "123456782D2C0104", "223456782D2C0104" }, (function()
      local list = {}
      for address in pairs(done.by_address) do list[#list + 1] = address end
      table.sort(list)
      return list
    end)())
  end)

  it("tells of each pair of equal addresses, however many there are", function()
    for _, retries in ipairs { 0, 2 } do
      local ids, pairs_ = { "66666665", "66666655" }, {}
      for digit = 1, 5 do
        local id = tostring(digit):rep(8)
        ids[#ids + 1], ids[#ids + 2], pairs_[digit] = id, id, id .. "2D2C0104"
      end
      local done = scan({ meters = meters(ids) }, { retries = retries })
      table.sort(done.result.collisions)
      assert.same(pairs_, done.result.collisions)
      assert.same({ "666666552D2C0104", "666666652D2C0104" }, scans.addresses(done))
      assert.same({ {}, {} }, { done.result.unaccounted, done.result.remarks })
    end
  end)

  it("is not misled by habits", function()
    local ids = { "31892747", "31892749", "82969010", "82969017", "83003677", "12345677" }
    for i, habit in ipairs { { needs_nke = true }, { ignores_nke = true }, { short_ack = true }, { ignores_fcb = true },
      { shared_fcb = true }, { fcb_before_selection = true }, { faults = { leading = "00", acknowledgements = true } },
      { faults = { trailing = "FF", acknowledgements = true } }, { faults = { checksum = true, answers = 1 } },
      { faults = { gap = 0.008 } }, { faults = { address = 99 } } } do
      for seed = 1, 3 do
        finds_all(scan { meters = meters(ids, habit), seed = seed }, i)
        finds_all(scan { meters = { meter("31892747", habit) }, seed = seed }, i)
        finds_all(scan { meters = { meter("31892747", habit), meter "31892748", meter "31892757" }, seed = seed }, i)
      end
    end
    finds_all(scan { meters = meters(ids), converter = { echo = true } })
  end)

  it("tells of a meter that is selected and sends no data", function()
    local done = scan { meters = { meter "12345678", meter("22345678", { telegrams = {} }), meter "32345671" } }
    assert.same({ "123456782D2C0104", "22345678FFFFFFFF", "323456712D2C0104" }, scans.addresses(done))
    local mute = done.by_address["22345678FFFFFFFF"]
    assert.same({ "22345678", "rejected" }, { mute.id, mute.error.kind })
  end)

  it("does not believe a late answer, and says that there was one", function()
    for _, late in ipairs { 0.02, 0.1, 0.3 } do
      for seed = 1, 5 do
        local done = scan { meters = { meter("12345671", { late = late }), meter "22345678", meter "32345674" }, seed = seed }
        local found = scans.addresses(done)
        assert.is_false(done.result.complete, late)
        for _, address in ipairs(found) do assert.matches("^[123]234567%d2D2C0104$", address) end
      end
    end
    finds_all(scan({ meters = { meter("12345671", { late = 0.3 }), meter "22345678" } }, { margin = 0.35 }))
  end)

  it("does not take a meter for the only one while another one answers late", function()
    for _, case in ipairs { { 9600, 0.02, true }, { 2400, 0.54, false }, { 2400, 0.55, false } } do
      local late = meter("12345672", { late = case[2], fcb_before_selection = case[3] })
      local done = scan { baudrate = case[1], converter = { damaged = "drop" },
        meters = { meter("12345671", { fcb_before_selection = case[3] }), late } }
      assert.is_false(done.result.complete and done.result.found < 2, case[2])
    end
  end)

  it("does not take a byte E5 within spoilt telegrams, or their end, for a late acknowledgement", function()
    local records = { { quantity = "energy", unit = "Wh", value = 0x00E5E5E5, exponent = 0, data = "int32" } }
    local same = { delay = 0.04, telegrams = { { records = records } } }
    local done = scan { meters = scans.meters({ "12340000", "87650000" }, same) }
    finds_all(done)
    assert.is_true(done.seconds < 25, done.seconds)
    for _, seed in ipairs { 138, 171 } do
      local random, list = Random.new(seed * 31), {}
      for i = 1, 6 do
        local many = {}
        for k = 1, 11 do
          many[k] = { quantity = "energy", unit = "Wh", value = random:number() * 2 ^ 31 // 1 | 0, exponent = 0, data = "int32" }
        end
        list[i] = meter(("%08d"):format(i * 1110000 + 10000), { delay = 0.044, telegrams = { { records = many } } })
      end
      finds_all(scan { meters = list, seed = seed })
    end
  end)

  it("takes little notice of single flipped bits", function()
    local found, all = 0, 0
    for seed = 1, 30 do
      local done = scan { meters = scans.random_meters(6, seed), converter = { bit_flips = 2e-4 }, seed = seed }
      local real = {}
      for _, address in ipairs(scans.secondary_addresses(done.sim)) do real[address] = true end
      for _, address in ipairs(scans.addresses(done)) do
        assert.is_true(real[address], address)
        found = found + 1
      end
      all = all + 6
      assert.is_true(#scans.addresses(done) == 6 or not done.result.complete, seed)
    end
    assert.is_true(found >= all - 1, found .. " of " .. all)
  end)

  it("does not get lost where something acknowledges every selection", function()
    -- A transport with a ghost on its line: E5 to whatever is sent to 253, and no data.
    local sim = assert(mbus.simulator.new { meters = { meter "12345678", meter "22345679" } })
    local transport = sim:transport()
    local write = transport.write
    function transport:write(bytes)
      if bytes:byte(1) == 0x68 then
        sim.line:add("\xE5", self:now() + #bytes * 11 / 2400 + 0.15)
      end
      return write(self, bytes)
    end
    local bus <close> = assert(mbus.open(transport))
    local search, found = bus:scan { secondary = true }, {}
    for one in search do found[#found + 1] = one.address end
    table.sort(found)
    assert.same({ "123456782D2C0104", "223456792D2C0104" }, found)
    assert.is_false(search.result.complete)
    assert.matches("acknowledges every selection", table.concat(search.result.remarks, " "))
    assert.is_true(transport:now() < 900, transport:now())
  end)

  it("stops at the number that is expected, and looks twice for a missing one", function()
    local list = scans.random_meters(10, 6)
    local all = scan { meters = list }
    local done = scan({ meters = list }, { expect = 10 })
    finds_all(done)
    assert.is_true(#done.sent < #all.sent)
    done = scan({ meters = list }, { expect = 11 })
    assert.equal(10, done.result.found)
    assert.is_false(done.result.complete)
    assert.matches("found 10 of 11 meters", table.concat(done.result.remarks, " "))
  end)

  it("does not call complete what has shown more meters than were found when it stops", function()
    local done = scan({ meters = scans.meters { "12345678", "87654321", "11111111" } }, { expect = 1 })
    assert.same({ false, 1, { ("F"):rep(16) } }, { done.result.complete, done.result.found, done.result.unaccounted })
    for seed = 1, 20 do
      local list = scans.random_meters(1 + seed, seed)
      assert.is_true(scan({ meters = list }, { expect = #list }).result.complete, seed)
    end
  end)

  it("can begin with fixed digits", function()
    for depth = 1, 2 do
      local done = scan({ meters = scans.random_meters(8, 3) }, { start_depth = depth })
      finds_all(done)
      for _, frame in ipairs(done.sent) do assert.is_nil(frame:find("FD 52 FF FF FF FF FF FF FF FF", 1, true)) end
    end
  end)

  it("reads the meters on the way", function()
    local two = { { records = scans.records(2) }, { records = scans.records(3) } }
    local done = scan({ meters = { meter("12345678", { telegrams = two }), meter "22345678", meter "22345679" } }, { read = true })
    finds_all(done)
    assert.same({ 2, 5 }, { #done.by_address["123456782D2C0104"].readout.telegrams, #done.by_address["123456782D2C0104"].readout })
    assert.equal(3, #done.by_address["223456782D2C0104"].readout)
  end)

  it("finds a meter once though it answers at two line speeds", function()
    local done = scan({ meters = { meter("12345678", { baudrate = 300 }), meter "22345678" } }, { baud = { 2400, 300 } })
    finds_all(done)
    assert.equal(300, done.by_address["123456782D2C0104"].baudrate)
    assert.equal(2400, done.sim.baudrate)
  end)

  it("keeps what an earlier line speed has left unaccounted", function()
    local hidden = meters({ "1234567F", "1234568F" }, { baudrate = 2400 }) -- F cannot be searched for
    local wary = meters({ "11111111", "22222222", "33333331" }, { baudrate = 9600, fcb_before_selection = true })
    local usual = meters({ "11111111", "22222222" }, { baudrate = 9600 })
    for name, others in pairs { wary = wary, usual = usual } do
      for _, expect in ipairs { false, 5 } do
        local all = table.move(others, 1, #others, 3, { hidden[1], hidden[2] })
        local done = scan({ meters = all }, { baud = { 2400, 9600 }, expect = expect or nil })
        assert.same({ "FFFFFFFFFFFFFFFF" }, done.result.unaccounted, name)
        assert.equal(#others, done.result.found, name)
      end
    end
  end)

  it("does not ask for meters of another line speed to see whether collisions show", function()
    local two = meters({ "11111111", "22222222" }, { baudrate = 2400 })
    local hidden = meters({ "1234567F", "1234568F" }, { baudrate = 9600, medium = 7 })
    local done = scan({ meters = { two[1], two[2], hidden[1], hidden[2] } }, { baud = { 2400, 9600 } })
    assert.same({ "FFFFFFFFFFFFFFFF" }, done.result.unaccounted)
    assert.same({}, done.result.remarks)
  end)

  it("tells how far it is", function()
    local seen = {}
    scan("house", { progress = function(progress) seen[#seen + 1] = progress end })
    assert.equal("FFFFFFFFFFFFFFFF", seen[1].current)
    assert.same({ 0, 0 }, { seen[1].fraction, seen[1].found })
    assert.same({ 1, 11 }, { seen[#seen].fraction, seen[#seen].found })
    for i = 2, #seen do assert.is_true(seen[i].fraction >= seen[i - 1].fraction) end
    local middle = seen[#seen // 2]
    assert.is_true(middle.seconds_left > 3 and middle.seconds_left < 20, middle.seconds_left)
  end)

  it("leaves the bus ready for whoever comes next", function()
    local sim = assert(mbus.simulator.new "house")
    local bus <close> = assert(mbus.open(sim))
    for _ in bus:scan { secondary = true } do end -- luacheck: ignore
    for _, address in ipairs { 10, "31892747", "829690172D2C400D", 79 } do assert(bus:read(address)) end
    assert.equal(0, sim.statistics.overlaps)
  end)
end)
