-- What a master and a meter think of each other's frame count, where answers are missing, late or were not waited for.
local core = require "mbus.core"
local Error = require "mbus.error"
local mbus = require "mbus"

local function volume(value) return { quantity = "volume", unit = "m3", value = value, exponent = -3, data = "bcd8" } end

local function telegram(value) return { records = { volume(value) } } end

-- A meter with its habits at address 5, and the bus that it is on.
local function meter_with(habits, options)
  local description = { address = 5, id = "31892747", telegrams = { telegram(12.5) } }
  for name, value in pairs(habits or {}) do description[name] = value end
  local sim = assert(mbus.simulator.new { meters = { description } })
  local transport = sim:transport()
  return assert(mbus.open(transport, options)), sim.meters[1], transport
end

local function set(meter, value) meter.values:write(core.record(volume(value)), meter.now) end

local function values(readout)
  local list = {}
  for _, record in readout:records() do list[#list + 1] = ("%d:%g"):format(record.index, record.value) end
  return table.concat(list, " ")
end

-- The first `count` frames for which `is_meant` never reach the meter.
local function lose(meter, count, is_meant)
  local receive = meter.receive
  function meter:receive(frame, ...)
    if count > 0 and is_meant(frame) then
      count = count - 1
      return nil
    end
    return receive(self, frame, ...)
  end
end

describe("a meter that does not hear SND_NKE", function()
  it("is not asked for its last telegram again", function()
    local bus, meter, transport = meter_with { ignores_nke = true }
    for value = 10, 40, 10 do
      set(meter, value)
      transport:sleep(3600)
      assert.equal(value, assert(bus:read(5)):value { quantity = "volume" })
    end
  end)

  it("gives all telegrams each time", function()
    local bus = meter_with { ignores_nke = true, telegrams = { telegram(1), telegram(2), telegram(3) } }
    for _ = 1, 4 do assert.equal("0:1 2:2 4:3", values(assert(bus:read(5)))) end
  end)

  it("is read anew where SND_NKE was lost on the line", function()
    local bus, meter = meter_with()
    set(meter, 10)
    assert(bus:read(5))
    set(meter, 20)
    lose(meter, 3, function(frame) return frame.c == 0x40 end)
    assert.equal(20.0, assert(bus:read(5)):value { quantity = "volume" })
  end)

  it("is asked twice where it sends the same bytes again: its frame count may not be ours", function()
    local bus, meter = meter_with { ignores_nke = true }
    assert(bus:read(5))
    meter.own.request = 0 -- another master has asked it
    set(meter, 20)
    assert.equal(20.0, assert(bus:read(5)):value { quantity = "volume" })
  end)

  it("executes every command", function()
    local bus, meter = meter_with { ignores_nke = true }
    for value = 1, 3 do assert(bus:write(5, { volume(value) })) end
    assert.same({ "0C 13 00 10 00 00", "0C 13 00 20 00 00", "0C 13 00 30 00 00" }, meter.writes)
    for _ = 1, 3 do assert(bus:synchronize(5)) end
    assert.equal(3, meter.synchronized)
  end)
end)

describe("a meter whose acknowledgement was lost", function()
  it("forgets its frame count before the next command, which it would take for a repetition", function()
    local Target = require "mbus.procedure.target"
    local bus, meter, transport = meter_with()
    local receive, unheard = meter.receive, 3
    function meter:receive(frame, ...)
      local answer = table.pack(receive(self, frame, ...))
      if frame.c & 0x0F ~= 3 or unheard == 0 then return table.unpack(answer, 1, answer.n) end
      unheard = unheard - 1
    end
    local address = assert(require("mbus.address").parse(5))
    local function command(target, value) return target:command(0x51, core.record(volume(value))) end
    assert(bus:run(function(link)
      return Target.with(link, address, function(target)
        assert.equal("timeout", select(2, command(target, 1)).kind)
        transport:sleep(3)
        return command(target, 2)
      end)
    end))
    assert.same({ "0C 13 00 10 00 00", "0C 13 00 20 00 00" }, meter.writes)
  end)
end)

describe("a meter that is late", function()
  it("doubles no telegram of a readout, though its values change", function()
    local bus, meter = meter_with { telegrams = { telegram(1), telegram(2), telegram(3) } }
    local receive, count = meter.receive, 0
    function meter:receive(frame, ...)
      local answer = receive(self, frame, ...)
      if not answer or frame.c & 0x0F ~= 0x0B then return answer end
      count = count + 1
      local parts = core.frame(answer.bytes)
      local refreshed = parts.data:sub(1, -2) .. "\x01\xFD\x17" .. string.char(count) .. parts.data:sub(-1)
      if parts.data:byte(-1) ~= 0x1F then refreshed = parts.data .. "\x01\xFD\x17" .. string.char(count) end
      answer.bytes = core.long(parts.c, parts.a, parts.ci, refreshed)
      if count <= 2 then answer.delay = 330 / 2400 + 0.1 end
      return answer
    end
    local readout = assert(bus:read(5))
    local volumes = {}
    for _, record in ipairs(readout:select { quantity = "volume" }) do volumes[#volumes + 1] = record.value end
    assert.same({ 3, 1.0, 2.0, 3.0 }, { #readout.telegrams, table.unpack(volumes) })
  end)

  it("has an alarm although its late acknowledgement says nothing of one", function()
    local bus = meter_with { late = 0.1, alarm = 4 }
    assert.is_true(assert(bus:alarms(5)).alarm)
  end)

  it("has not acknowledged what it has not got", function()
    local bus, meter = meter_with { late = 0.1 }
    lose(meter, 1, function(frame) return frame.ci == 0x51 end)
    assert.is_true(assert(bus:write(5, { volume(1) })).acknowledged)
    assert.equal(1, #meter.writes)
  end)
end)

describe("without SND_NKE", function()
  it("a readout begins at the first telegram, though somebody has read only that", function()
    local bus = meter_with({ telegrams = { telegram(1), telegram(2) } }, { nke = false })
    assert(bus:set_address(5, 5))
    assert.equal("0:1 2:2", values(assert(bus:read(5))))
    assert(bus:reset(5))
    assert.equal("0:1 2:2", values(assert(bus:read(5))))
  end)
end)

describe("a request that does not come to its end", function()
  it("leaves the meter to be asked anew", function()
    local bus, meter, transport = meter_with({}, { nke = false })
    set(meter, 10)
    assert(bus:read(5))
    set(meter, 20)
    local read = transport.read
    transport.read = coroutine.yield -- who waits here is given up
    local thread = coroutine.create(function() bus:read(5) end)
    coroutine.resume(thread)
    coroutine.close(thread)
    transport.read = read
    transport:sleep(60)
    set(meter, 30)
    assert.equal(30.0, assert(bus:read(5)):value { quantity = "volume" })
  end)
end)

describe("a bus that is driven by hand", function()
  it("does not take for an answer what came while nothing was asked", function()
    local sim = assert(mbus.simulator.new { meters = { { address = 5, id = "31892747", telegrams = { telegram(1) } } } })
    local bus, now, inbox = assert(mbus.open("manual:", { nke = false })), 0, ""
    local act = { drain = function() inbox = "" end, sleep = function(deadline) now = math.max(now, deadline) end }
    function act.send(bytes) sim:receive(bytes, now) end
    function act.receive(deadline)
      local bytes = inbox .. sim:take(now)
      inbox = ""
      if bytes ~= "" then return bytes end
      now = math.min(sim:next() or deadline, deadline)
      return sim:take(now)
    end
    local function read()
      assert(bus:begin("read", 5))
      while true do
        local what, argument, err = bus:wants()
        if what == "done" then return assert(argument, err) end
        bus:feed(act[what](argument) or "", now)
      end
    end
    set(sim.meters[1], 10)
    inbox = read().telegrams[1].bytes -- a copy comes an hour later
    now = now + 3600
    set(sim.meters[1], 20)
    assert.equal(20.0, read():value { quantity = "volume" })
  end)
end)

describe("a line that breaks at another speed", function()
  local function breakable(meters)
    local sim = assert(mbus.simulator.new { meters = meters })
    local transport = sim:transport()
    local write = transport.write
    function transport:write(bytes)
      if self.is_gone then return nil, Error.new("closed", "the adapter is gone") end
      return write(self, bytes)
    end
    return assert(mbus.open(transport)), transport
  end

  it("has its own again when it is back: in a scan", function()
    local bus, transport = breakable { { address = 5, id = "31892747", telegrams = { telegram(1) } } }
    local scan = bus:scan { range = "1-20", baud = { 2400, 300 },
      progress = function(at) transport.is_gone = at.baudrate == 300 and at.current == 5 end }
    for meter in scan do assert.equal(5, meter.address) end
    assert.equal("closed", scan.error.kind)
    transport.is_gone = false
    assert.equal(2400, transport.baudrate)
    assert(bus:read(5))
  end)

  it("and where a meter is switched", function()
    local bus, transport = breakable { { address = 5, id = "31892747", telegrams = { telegram(1) } },
      { address = 6, id = "31892748", telegrams = { telegram(2) } } }
    local switch = transport.set_baudrate
    function transport:set_baudrate(baudrate)
      self.is_gone = baudrate == 300
      return switch(self, baudrate)
    end
    assert.equal("closed", select(2, bus:set_baudrate(5, 300, { stay = false })).kind)
    transport.is_gone = false
    assert.equal(2400, transport.baudrate)
    assert(bus:read(6))
  end)
end)
