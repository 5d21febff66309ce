-- Everything that changes something on the bus, against simulated meters: done, read back, and told if it was not.
local core = require "mbus.core"
local mbus = require "mbus"

local CLOCK_F = { vif = "\x6D", data = "datetime", value = "2024-01-01T00:00" }
local CLOCK_I = { vif = "\x6D", data = "datetime48", value = "2024-01-01T00:00:00" }

local function meter(address, id, habits)
  local one = { address = address, id = id, manufacturer = "HYD", version = 40, medium = 4, telegrams = { { records = {
    { quantity = "energy", unit = "Wh", value = 123000, exponent = 3, data = "bcd8" },
    { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8" },
    { quantity = "volume", unit = "m3", value = 10, exponent = -3, data = "bcd8", storage = 1 },
    CLOCK_F,
  } } } }
  for name, value in pairs(habits or {}) do one[name] = value end
  return one
end

-- A bus; what the master sends is kept in hex.
local function bus_of(meters, options, description)
  description = description or {}
  description.meters = meters
  local sim = assert(mbus.simulator.new(description))
  local sent = {}
  options = options or {}
  options.trace = function(direction, bytes)
    if direction == "SEND" then sent[#sent + 1] = core.hex(bytes) end
  end
  local transport = sim:transport()
  return assert(mbus.open(transport, options)), sim, sent, transport
end

local function two(habits, options, description)
  return bus_of({ meter(5, "31892747", habits), meter(6, "31892749") }, options, description)
end

local FULL = "3189274724232804"

describe("setting a primary address", function()
  it("reads the meter, makes sure that nobody has the new one, sets it, finds the meter there", function()
    local bus, sim, sent = two()
    local result, err = bus:set_address(5, 17)
    assert.is_nil(err)
    assert.same({ 17, 5, FULL }, { result.address, result.previous, result.secondary_address })
    assert.equal(17, sim.meters[1].address)
    assert.same({ "10 40 05 45 16", "10 7B 05 80 16", -- who is it
      "10 40 11 51 16", "10 40 11 51 16", "10 7B 11 8C 16", "10 7B 11 8C 16", -- nobody at 17
      "68 06 06 68 73 05 51 01 7A 11 55 16", "10 40 11 51 16", "10 7B 11 8C 16" }, sent)
    assert.equal(FULL, bus:read(17).secondary_address)
  end)

  it("goes by secondary address, with wildcards too, and by 254", function()
    for _, address in ipairs { FULL, "31892747", "FFFFFFF7" } do
      local bus, sim, sent = two()
      local result, err = bus:set_address(address, 0)
      assert.is_truthy(result, tostring(err))
      assert.same({ 0, 6 }, { sim.meters[1].address, sim.meters[2].address })
      assert.is_false(sim.meters[1].selected)
      assert.equal("10 40 FD 3D 16", sent[#sent])
    end
    local bus, sim = bus_of { meter(5, "31892747") }
    assert.equal(9, bus:set_address(254, 9).address)
    assert.equal(9, sim.meters[1].address)
  end)

  it("refuses an address that is in use, also by a meter that answers only one request", function()
    for _, habit in ipairs { "deaf_not", "ignores_nke" } do
      local bus, sim = bus_of { meter(5, "31892747"), meter(6, "31892749", habit == "ignores_nke" and { ignores_nke = true } or nil) }
      local result, err = bus:set_address(5, 6)
      assert.is_nil(result)
      assert.same({ "busy", "address_in_use", 5 }, { err.kind, err.code, err.address })
      assert.equal("sim:table: address 5: address 6 is in use", tostring(err))
      assert.equal(5, sim.meters[1].address)
    end
  end)

  it("has nothing to do where the meter has it", function()
    local bus, _, sent = two()
    assert.equal(5, bus:set_address(FULL, 5).previous)
    for _, hex in ipairs(sent) do assert.is_nil(hex:find("51 01 7A", 1, true)) end
  end)

  it("tells if the meter is not there, or does not obey", function()
    local bus = two()
    local result, err = bus:set_address(9, 17)
    assert.is_nil(result)
    assert.equal("timeout", err.kind)
    local sim
    bus, sim = two()
    sim.meters[1].receive = function(self, frame, time, baudrate)
      local answer = getmetatable(self).receive(self, frame, time, baudrate)
      self.address = 5
      return answer
    end
    result, err = bus:set_address(5, 17)
    assert.is_nil(result)
    assert.same({ "rejected", "unchanged" }, { err.kind, err.code })
    assert.matches("acknowledged, but the meter does not answer at address 17", tostring(err))
  end)

  it("believes the meter where its acknowledgement is lost", function()
    local bus, sim = two()
    sim.meters[1].receive = function(self, frame, time, baudrate)
      local answer = getmetatable(self).receive(self, frame, time, baudrate)
      return frame.ci ~= 0x51 and answer or nil
    end
    assert.equal(17, bus:set_address(5, 17).address)
  end)

  it("refuses what no meter may have", function()
    local bus = mbus.open("manual:")
    for _, new in ipairs { 251, 253, 255, -1, 300 } do
      local ok, err = bus:begin("set_address", 5, new)
      assert.is_nil(ok)
      assert.equal("invalid", err.kind)
    end
    assert.has_error(function() bus:begin("set_address", 5, "x") end)
  end)
end)

describe("setting a secondary address", function()
  it("sets the identification number alone, or all", function()
    for _, address in ipairs { 5, FULL } do
      local bus, sim = two()
      local result, err = bus:set_secondary(address, "12345678")
      assert.is_truthy(result, tostring(err))
      assert.same({ "1234567824232804", FULL }, { result.secondary_address, result.previous })
      assert.equal("12345678", sim.meters[1].id)
      result, err = bus:set_secondary(address == 5 and 5 or "12345678", "010203042440010A")
      assert.is_truthy(result, tostring(err))
      assert.equal("010203042440010A", result.secondary_address)
      assert.is_truthy(bus:read("010203042440010A"))
      assert.is_false(sim.meters[1].selected)
    end
  end)

  it("refuses one that is in use, and wildcards", function()
    local bus, sim = two()
    local result, err = bus:set_secondary(5, "31892749")
    assert.is_nil(result)
    assert.same({ "busy", "address_in_use" }, { err.kind, err.code })
    assert.is_false(sim.meters[2].selected)
    for _, digits in ipairs { "1234567F", "123", "1234567X", "", "12345678FFFFFFFF", "123456782D2CFFFF", "12345678FFFF2804" } do
      result, err = bus:set_secondary(5, digits)
      assert.is_nil(result)
      assert.equal("invalid", err.kind)
    end
  end)
end)

describe("switching the baud rate", function()
  it("goes with the meter, and asks it there within a second", function()
    for _, address in ipairs { 5, FULL } do
      local bus, sim, _, transport = two()
      local result, err = bus:set_baudrate(address, 9600)
      assert.is_truthy(result, tostring(err))
      assert.same({ 9600, 2400, 9600, 9600 }, { result.baudrate, result.previous, sim.meters[1].baudrate, transport.baudrate })
      assert.is_nil(sim.meters[1].fallback)
      assert.is_truthy(bus:read(address))
      assert.equal(2400, sim.meters[2].baudrate)
    end
  end)

  it("comes back where the meter does not go", function()
    local bus, sim, sent, transport = two { baudrates = { 2400 } }
    local result, err = bus:set_baudrate(5, 9600)
    assert.is_nil(result)
    assert.matches("address 5: the meter stays at 2400 baud", tostring(err))
    assert.same({ "rejected", "unchanged", 2400, 2400 }, { err.kind, err.code, transport.baudrate, sim.meters[1].baudrate })
    local tries = 0
    for _, hex in ipairs(sent) do tries = tries + (hex == "10 40 05 45 16" and 1 or 0) end
    assert.equal(1 + 3 + 1, tries)
    assert.is_truthy(bus:read(5))
  end)

  it("comes back where nobody answers any more", function()
    local bus, _, _, transport = two { silent_after = 3 }
    local result, err = bus:set_baudrate(5, 9600)
    assert.is_nil(result)
    assert.equal("timeout", err.kind)
    assert.matches("no answer at 9600 baud, nor at 2400", tostring(err))
    assert.equal(2400, transport.baudrate)
  end)

  it("leaves the line as it was if asked to, and switches all", function()
    local bus, sim, _, transport = two()
    assert.is_truthy(bus:set_baudrate(5, 4800, { stay = false }))
    assert.same({ 2400, 4800 }, { transport.baudrate, sim.meters[1].baudrate })
    bus, sim, _, transport = two()
    assert.is_truthy(bus:set_baudrate(255, 9600))
    assert.same({ 9600, 9600, 9600 }, { transport.baudrate, sim.meters[1].baudrate, sim.meters[2].baudrate })
    assert.is_truthy(bus:read(6))
  end)

  it("is a want of its own on a bus driven by hand", function()
    local by_hand = require "spec.procedure.by_hand"
    local bus = mbus.open("manual:")
    assert(bus:begin("set_baudrate", 5, 9600))
    local wants, now, answer = {}, 0, nil
    while true do
      local what, argument = bus:wants()
      local bytes = ""
      if what == "done" then break end
      if what == "baudrate" then wants[#wants + 1] = argument end
      if what == "send" then
        answer = argument:byte(2) == 0x7B and by_hand.answer(5, "31892747", 1, "") or "\xE5"
      elseif what == "receive" and answer then
        bytes, answer, now = answer, nil, now + 0.1
      elseif what == "receive" or what == "sleep" then
        now = argument
      end
      bus:feed(bytes, now)
    end
    assert.same({ 9600 }, wants)
    assert.equal(9600, select(2, bus:wants()).baudrate)
  end)

  it("is refused where the transport cannot, before anything is sent", function()
    local sent = 0
    local transport = { name = "fixed", baudrate = 2400, write = function() sent = sent + 1 return true end,
      read = function() return "" end, drain = function() return "" end, close = function() end }
    local bus = assert(mbus.open(transport))
    local result, err = bus:set_baudrate(5, 9600)
    assert.is_nil(result)
    assert.same({ "unsupported", 0 }, { err.kind, sent })
    result, err = bus:set_baudrate(5, 1234)
    assert.is_nil(result)
    assert.equal("invalid", err.kind)
  end)
end)

describe("setting the clock", function()
  it("sends the type that the meter shows, and reads it back", function()
    local bus, sim = two()
    local result, err = bus:set_clock(5, "2024-02-29T13:45")
    assert.is_nil(err)
    assert.same({ "F", true, "2024-02-29T13:45:00" }, { result.type, result.verified, result.read_back })
    assert.same({ "04 6D 2D 0D 1D 32" }, sim.meters[1].writes)
    bus, sim = bus_of { meter(5, "31892747", { telegrams = { { records = { CLOCK_I } } } }) }
    result, err = bus:set_clock("31892747", "2024-02-29T13:45:30")
    assert.is_nil(err)
    assert.same({ "I", true }, { result.type, result.verified })
    assert.same({ "06 6D 9E 2D 8D 1D 32 09" }, sim.meters[1].writes)
  end)

  it("finds the clock in a later telegram, and goes on where none is shown", function()
    local energy = { quantity = "energy", unit = "Wh", value = 1, data = "int32" }
    local bus = bus_of { meter(5, "31892747", { telegrams = { { records = { energy } }, { records = { CLOCK_I } } } }) }
    assert.equal("I", assert(bus:set_clock(5, "2024-02-29T13:45:30")).type)
    bus = bus_of { meter(5, "31892747", { telegrams = { { records = { energy } } } }) }
    local result = assert(bus:set_clock(5, "2024-02-29T13:45:30"))
    assert.same({ "F", false }, { result.type, result.verified })
  end)

  it("takes the time of this computer, with its daylight saving", function()
    local bus, sim = two()
    local before = os.date("*t")
    local result = assert(bus:set_clock(5))
    local date = result.time:match("^%d+%-%d+%-%d+")
    local after = os.date("*t")
    local function text(now) return ("%04d-%02d-%02d"):format(now.year, now.month, now.day) end
    assert.is_true(date == text(before) or date == text(after))
    assert.is_true(result.verified)
    local bytes = core.unhex(sim.meters[1].writes[1])
    assert.equal(before.isdst, bytes:byte(4) & 0x80 ~= 0)
  end)

  it("rounds to the nearest minute where the meter knows no seconds", function()
    local date = os.date
    for second, expected in pairs { [29] = "2023-12-31T23:59:00", [30] = "2024-01-01T00:00:00" } do
      local bus = two()
      os.date = function() -- luacheck: ignore 122
        return { year = 2023, month = 12, day = 31, hour = 23, min = 59, sec = second, wday = 1, yday = 365, isdst = false }
      end
      local ok, result = pcall(bus.set_clock, bus, 5)
      os.date = date -- luacheck: ignore 122
      assert(ok, result)
      assert.same({ "F", expected }, { result.type, result.time })
    end
  end)

  it("knows summer time, and standard time in summer", function()
    local function written(options)
      local bus, sim = two()
      assert(bus:set_clock(5, "2024-07-01T12:00", options))
      return sim.meters[1].writes[1]
    end
    assert.equal("04 6D 00 8C 01 37", written { summer_time = true })
    assert.equal("04 6D 00 0C 01 37", written())
    assert.equal("04 6D 00 0B 01 37", written { summer_time = true, standard_time = true })
    assert.equal("04 6D 00 2C 01 37", written { hundred_years = true })
  end)

  it("tells if the clock is not what it should be", function()
    local bus, sim = two()
    sim.meters[1].values.write = function() end
    local result, err = bus:set_clock(5, "2024-02-29T13:45")
    assert.is_nil(result)
    assert.matches("acknowledged, but the clock of the meter shows 2024%-01%-01T00:00:00 instead of 2024%-02%-29T13:45:00",
      tostring(err))
    assert.equal("unchanged", err.code)
  end)

  it("does not know of a clock that was an hour behind before and is so after, in summer", function()
    local bus, sim = two()
    assert.is_true(assert(bus:set_clock(5, "2024-07-01T12:00", { summer_time = true })).verified)
    assert(bus:set_clock(5, "2024-07-01T12:00"))
    sim.meters[1].values.write = function() end
    local result = assert(bus:set_clock(5, "2024-07-01T13:00", { summer_time = true }))
    assert.same({ false, "2024-07-01T12:00:00" }, { result.verified, result.read_back })
  end)

  it("says why it could not be read back", function()
    local bus, sim = two()
    local receive, is_set = sim.meters[1].receive, false
    sim.meters[1].receive = function(self, frame, ...)
      is_set = is_set or frame.ci == 0x51
      if frame.ci ~= 0x51 and is_set then return nil end
      return receive(self, frame, ...)
    end
    local _, err = bus:set_clock(5, "2024-02-29T13:45")
    assert.equal("timeout", err.kind)
  end)

  it("goes to all, and refuses what is no time", function()
    local bus, sim, sent = two()
    assert.is_truthy(bus:set_clock(255, "2024-02-29T13:45"))
    assert.same({ "10 40 FF 3F 16", "68 09 09 68 73 FF 51 04 6D 2D 0D 1D 32 BD 16" }, sent)
    assert.same({ "04 6D 2D 0D 1D 32" }, sim.meters[2].writes)
    for _, time in ipairs { "2024-02-30T00:00", "now", "2024-02-29", "2099-01-01T00:00", "2024-02-29T13:45:" } do
      local result, err = bus:set_clock(5, time)
      assert.is_nil(result)
      assert.equal("invalid", err.kind)
    end
  end)
end)

describe("the other commands", function()
  it("reset the application", function()
    local bus, sim, sent = two()
    assert.equal(4, #assert(bus:reset(5, 0x10)).telegram)
    assert.equal(0x10, sim.meters[1].application)
    assert.equal("68 04 04 68 73 05 50 10 D8 16", sent[2])
    assert.is_truthy(bus:reset("31892747"))
    assert.is_nil(sim.meters[1].application)
    assert.is_true(bus:reset(255))
  end)

  it("select records, and tell if the meter does not obey", function()
    local bus, sim, sent = two()
    local readout, err = bus:select_records(5, { { quantity = "volume", unit = "m3", exponent = -3 }, "\x48\x13" })
    assert.is_nil(err)
    assert.equal("68 07 07 68 73 05 51 08 13 48 13 3F 16", sent[2])
    local values = {}
    for _, record in readout:records() do values[#values + 1] = record.value end
    assert.same({ 12.5, 10.0 }, values)
    assert.equal(2, #bus:read(5)) -- it lasts
    assert.equal(4, #assert(bus:read(5, { application_reset = true })))
    assert.equal(4, #bus:read(5))
    assert.equal(4, #assert(bus:select_records(5, "all")))
    sim.meters[1].values.write = function() end
    readout, err = bus:select_records("31892747", { { quantity = "volume", exponent = -3, unit = "m3" } })
    assert.is_nil(readout)
    assert.same({ "rejected", "unchanged", 4 }, { err.kind, err.code, #err.readout })
  end)

  it("send SND_NKE", function()
    local bus, sim, sent = two()
    assert.is_true(bus:normalise(5))
    sim.meters[1].selected = true
    assert.is_true(bus:normalise(253))
    assert.is_false(sim.meters[1].selected)
    assert.is_true(bus:normalise(255))
    assert.same({ "10 40 05 45 16", "10 40 FD 3D 16", "10 40 FF 3F 16" }, sent)
    local result, err = bus:normalise(9)
    assert.is_nil(result)
    assert.same({ "timeout", 9 }, { err.kind, err.address })
    assert.equal("invalid", select(2, bus:normalise(251)).kind)
  end)

  it("synchronize", function()
    local bus, sim, sent = two()
    assert.is_true(bus:synchronize())
    assert.is_true(bus:synchronize(5, { ci = 0x54 }))
    assert.same({ 2, 1 }, { sim.meters[1].synchronized, sim.meters[2].synchronized })
    assert.same({ "10 40 FF 3F 16", "68 03 03 68 73 FF 5C CE 16", "10 40 05 45 16", "68 03 03 68 73 05 54 CC 16" }, sent)
    assert.has_error(function() bus:synchronize(5, { ci = 1 }) end)
  end)

  it("reach all meters each time, and every meter after that", function()
    local bus, sim = two()
    bus.options.nke = false
    local write = { { quantity = "volume", unit = "m3", value = 0, exponent = -3, data = "bcd8" } }
    for round = 1, 3 do
      assert.is_true(bus:synchronize())
      assert(bus:write(5, write))
      assert(bus:set_clock(255, "2024-02-29T13:4" .. round))
      assert.same({ round, round, 2 * round, round }, { sim.meters[1].synchronized, sim.meters[2].synchronized,
        #sim.meters[1].writes, #sim.meters[2].writes })
    end
  end)

  it("are executed by a meter that compares the frame count bit before it looks at a selection", function()
    for _, c in ipairs { 0x53, 0x73 } do
      local bus, sim = two { fcb_before_selection = true }
      for value = 1, 3 do assert(bus:write(FULL, "\x0F" .. string.char(value), { select_c = c })) end
      assert.equal(3, #sim.meters[1].writes)
    end
  end)

  it("ask for alarms", function()
    local bus, _, sent = two { alarm = 0x04 }
    local result = assert(bus:alarms(5))
    assert.same({ true, 0x04 }, { result.alarm, result.status })
    assert.is_truthy(bus:alarms(5))
    assert.same({ alarm = false }, bus:alarms(6))
    assert.is_true(assert(bus:alarms(FULL)).alarm)
    assert.same({ "10 40 05 45 16", "10 7A 05 7F 16", "10 5A 05 5F 16" }, { sent[1], sent[2], sent[3] })
    local none, err = bus:alarms(9)
    assert.is_nil(none)
    assert.equal("timeout", err.kind)
  end)

  it("count their frames apart from requests", function()
    local bus, sim, sent = two(nil, { nke = false })
    for value = 1, 3 do
      assert(bus:write(5, { { quantity = "volume", unit = "m3", value = value, exponent = -3, data = "bcd8" } }, { verify = true }))
      assert.equal(value, #sim.meters[1].writes)
    end
    local commands, requests = {}, {}
    for _, hex in ipairs(sent) do
      local c = hex:match("^68 .. .. 68 (..)") or hex:match("^10 (.B)")
      table.insert(hex:find("^68") and commands or requests, c)
    end
    assert.same({ "73", "53", "73" }, commands)
    assert.same({ "7B", "5B", "7B" }, requests)
  end)
end)

describe("writing", function()
  local RESET = { quantity = "volume", unit = "m3", value = 0, exponent = -3, data = "bcd8" }

  it("tells of the acknowledgement, and verifies if asked to", function()
    local bus, sim, sent = two()
    assert.same({ acknowledged = true }, bus:write(5, { RESET }))
    assert.equal("68 09 09 68 73 05 51 0C 13 00 00 00 00 E8 16", sent[2])
    assert.same({ "0C 13 00 00 00 00" }, sim.meters[1].writes)
    local result = assert(bus:write(FULL, { RESET }, { verify = true }))
    assert.is_true(result.verified)
    assert.equal(0.0, result.readout:find({ quantity = "volume" }).value)
    -- what the meter does not show cannot be verified
    result = assert(bus:write(5, "\x0C\x2A\x00\x00\x00\x00", { verify = true }))
    assert.same({ false, 1, "power" }, { result.verified, #result.missing, result.missing[1].quantity })
    assert.same({ acknowledged = false }, bus:write(255, { RESET }))
    local _, err = bus:write(255, { RESET }, { verify = true })
    assert.same({ "invalid", "address 255: nobody answers, so that nothing can be verified" }, { err.kind, err.message })
  end)

  it("does not vouch for what it cannot compare", function()
    local bus, sim = two()
    local clock = { { quantity = "datetime", value = "2024-02-29T13:45" } }
    assert.is_true(assert(bus:write(5, clock, { verify = true })).verified)
    sim.meters[1].values.write = function() end
    assert.is_false(assert(bus:write(5, "\x0F\1\2", { verify = true })).verified) -- data of the manufacturer
    clock[1].value = "2024-03-01T13:45"
    local _, err = bus:write(5, clock, { verify = true })
    assert.same({ "rejected", "unchanged" }, { err.kind, err.code })
  end)

  it("tells if the meter did not take it", function()
    local bus, sim = two()
    sim.meters[1].values.write = function() end
    local result, err = bus:write(5, { RESET }, { verify = true })
    assert.is_nil(result)
    assert.matches("acknowledged, but the meter shows volume 12.5 m3 instead of volume 0 m3", tostring(err))
    result, err = bus:write(9, { RESET })
    assert.is_nil(result)
    assert.matches("address 9: no acknowledgement", tostring(err))
  end)

  it("raises where a record cannot be one", function()
    local bus = two()
    assert.has_error(function() bus:write(5, {}) end)
    assert.has_error(function() bus:write(5, { { quantity = "volume", value = 1e12, unit = "m3", data = "bcd4" } }) end)
    assert.has_error(function() bus:write(5, ("\x0C\x13\x00\x00\x00\x00"):rep(50)) end)
  end)
end)

describe("a dry run", function()
  it("gives the frames, sends nothing, and leaves the counts as they are", function()
    local bus, _, sent = two()
    assert(bus:read(5))
    local count = #sent
    local frames = assert(bus:set_address(5, 8, { dry_run = true }))
    local hex = {}
    for i, bytes in ipairs(frames) do hex[i] = core.hex(bytes) end
    assert.same({ "10 40 05 45 16", "10 7B 05 80 16", "10 40 08 48 16", "10 7B 08 83 16",
      "68 06 06 68 73 05 51 01 7A 08 4C 16", "10 40 08 48 16", "10 7B 08 83 16" }, hex)
    assert.equal(count, #sent)
    local write = { { quantity = "volume", unit = "m3", value = 0, data = "bcd8" } }
    for _, call in ipairs { { "synchronize", 255 }, { "set_clock", 255, "2024-02-29T13:45" },
      { "set_secondary", FULL, "12345678" }, { "set_baudrate", 5, 9600 }, { "set_clock", 5, "2024-02-29T13:45" },
      { "reset", 5, 0 }, { "write", FULL, write }, { "select_records", 5, "all" }, { "read", 5 } } do
      local arguments = { table.unpack(call, 2) }
      arguments[#arguments + 1] = { dry_run = true }
      local err
      frames, err = bus[call[1]](bus, table.unpack(arguments))
      assert.is_true(frames and #frames >= 2, call[1] .. tostring(err))
      for _, bytes in ipairs(frames) do assert.is_truthy(core.frame(bytes)) end
    end
    for _, call in ipairs { { "normalise", 5 }, { "normalise", 255 }, { "send", "\x01" } } do
      local arguments = { table.unpack(call, 2) }
      arguments[#arguments + 1] = { dry_run = true }
      assert.equal(1, #bus[call[1]](bus, table.unpack(arguments)), call[1])
    end
    assert.equal(count, #sent)
  end)

  it("is refused where something is searched for, which would be sent", function()
    local bus, _, sent = two()
    local planned = mbus.open("manual:", { dry_run = true })
    for _, call in ipairs { { bus.scan, bus, { dry_run = true } }, { bus.scan, bus, { secondary = true, dry_run = true } },
      { bus.monitor, bus, { dry_run = true } }, { planned.begin, planned, "scan" } } do
      local ok, message = pcall(table.unpack(call))
      assert.is_false(ok)
      assert.matches("option dry_run: not with a search", message, 1, true)
    end
    assert.equal(0, #sent)
  end)

  it("works on a bus driven by hand, without a step", function()
    local bus = mbus.open("manual:")
    assert(bus:begin("reset", 5, 0x10, { dry_run = true }))
    local what, frames = bus:wants()
    assert.same({ "done", 3 }, { what, #frames - 1 })
  end)
end)

describe("sending any frame", function()
  it("tells what came, and when", function()
    local bus = two()
    local heard = assert(bus:send("\x10\x40\x05\x45\x16"))
    assert.same({ 1, "\xE5", "ack" }, { #heard, heard[1].bytes, heard[1].frame.type })
    assert.is_true(heard[1].time > 0.03 and heard[1].time < 0.07)
    assert.same({}, bus:send("\x10\x40\x09\x49\x16"))
    assert.same({}, bus:send("\x99"))
    heard = assert(bus:send("\x10\x5B\xFE\x59\x16")) -- both
    for _, entry in ipairs(heard) do assert.is_nil(entry.frame and entry.frame.type == "long" and entry.line_errors == 0 or nil) end
    assert.is_truthy(bus:read(5))
  end)

  it("strips the echo", function()
    local bus = two(nil, nil, { converter = { echo = true } })
    local heard = assert(bus:send("\x10\x40\x05\x45\x16"))
    assert.same({ 1, "\xE5" }, { #heard, heard[1].bytes })
  end)
end)

describe("monitoring", function()
  it("tells of every frame, with its direction and time", function()
    local runtime = require "mbus.runtime"
    local description = { baudrate = 38400, meters = { meter(5, "31892747") }, converter = { echo = true } }
    local served = assert(require("mbus.simulator.server").tcp(assert(mbus.simulator.new(description))))
    local seen = {}
    mbus.spawn(function()
      local bus = assert(mbus.open(("tcp://127.0.0.1:%d"):format(served.port), { baudrate = 38400 }))
      -- somebody else's traffic: what we write shows as echo
      bus.transport:write("\x10\x40\x05\x45\x16")
      runtime.sleep(0.15)
      bus.transport:write("\x10\x7B\x05\x80\x16\x55")
      for entry in bus:monitor { duration = 1 } do
        seen[#seen + 1] = entry.direction .. " " .. (entry.frame and entry.frame.type or core.hex(entry.bytes))
      end
      bus:close()
      served:close()
    end)
    mbus.run()
    assert.same({ "SEND short", "RECV ack", "SEND short", "NOISE 55", "RECV long" }, seen)
  end)

  it("ends when it is told to", function()
    local bus = two { babbles = 1 }
    local search = bus:monitor()
    local count = 0
    for entry in search do
      count = count + 1
      assert.equal("RECV", entry.direction)
      if count == 3 then search:abort() end
    end
    assert.equal(3, count)
    assert.is_nil(search.error)
    assert.is_truthy(bus:read(6))
  end)
end)

describe("habits of single meters", function()
  it("are options by address", function()
    local bus, _, sent = two(nil, { meters = { [5] = { nke = "never" }, ["318927FF"] = { retries = 0 },
      ["31892749FFFFFFFF"] = { select_c = 0x73 } } })
    assert(bus:read(5))
    assert.same({ "10 7B 05 80 16" }, sent)
    assert(bus:read(6))
    assert.equal("10 40 06 46 16", sent[2])
    assert(bus:read("31892749"))
    assert.matches("^68 0B 0B 68 73 FD 52", sent[5])
    assert.has_error(function() two(nil, { meters = { x = {} } }) end)
    assert.has_error(function() two(nil, { meters = { [5] = { retries = "x" } } }) end)
  end)

  it("are selections with 73 where those with 53 select nobody", function()
    local bus, sim = two { fcb_before_selection = true }
    -- it has seen 53, and takes the next for a repetition
    sim.meters[1].other.command = 0
    sim.meters[1].receive = function(self, frame, time, baudrate)
      if frame.c == 0x40 and frame.a == 253 then return nil end
      return getmetatable(self).receive(self, frame, time, baudrate)
    end
    local readout, err = bus:read("31892747")
    assert.is_truthy(readout, tostring(err))
  end)

  it("are telegrams that come over and over", function()
    local record = { quantity = "energy", unit = "Wh", value = 1, data = "int32" }
    local meters = { meter(5, "31892747", { ignores_fcb = true, telegrams = { { records = { record } }, { records = { record } } } }) }
    local _, err = bus_of(meters):read(5)
    assert.equal("repeated", err.kind)
    local readout = assert(bus_of(meters):read(5, { ignores_fcb = true }))
    assert.equal(1, #readout.telegrams)
  end)
end)
