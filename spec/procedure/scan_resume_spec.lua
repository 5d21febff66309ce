-- Scans that are interrupted: the bus is left in order, and they go on where they stopped. And how they are driven.
local core = require "mbus.core"
local dkjson = require "dkjson"
local mbus = require "mbus"
local scans = require "spec.procedure.scans"

-- What a state file does to a state.
local function stored(state) return assert(dkjson.decode((dkjson.encode(state)))) end

local function identities(list)
  local names = {}
  for i, meter in ipairs(list) do names[i] = ("%s %s"):format(meter.address, meter.collision and "collision" or meter.id) end
  table.sort(names)
  return names
end

-- Scans until so many frames are sent, then aborts; returns what was found, the state, and what the bus looks like.
local function scan_some(description, options, limit)
  local sim = assert(mbus.simulator.new(description))
  local sent, state, search = {}, nil, nil
  local bus <close> = assert(mbus.open(sim, { trace = function(direction, bytes)
    if direction ~= "SEND" then return end
    sent[#sent + 1] = core.hex(bytes)
    if #sent == limit then search:abort() end
  end }))
  local all = { save = function(now) state = now end }
  for name, value in pairs(options) do all[name] = value end
  search = assert(bus:scan(all))
  local found = {}
  for meter in search do found[#found + 1] = meter end
  return { found = found, state = state and stored(state), sent = sent, sim = sim, result = search.result, err = search.error }
end

local function selected(sim)
  for _, meter in ipairs(sim.meters) do
    if meter.selected then return true end
  end
  return false
end

describe("an interrupted scan", function()
  local KINDS = { primary = { range = "0-20" }, secondary = { secondary = true } }

  it("ends with no meter selected, wherever it was", function()
    for limit = 1, 54 do
      local part = scan_some("house", KINDS.secondary, limit)
      assert.is_false(selected(part.sim), limit)
      assert.equal("10 40 FD 3D 16", part.sent[#part.sent])
      assert.is_nil(part.err)
      assert.equal(0, part.sim.statistics.overlaps)
    end
  end)

  it("goes on where it stopped, and tells again what it had found", function()
    for kind, options in pairs(KINDS) do
      local whole = scan_some("house", options)
      for limit = 1, #whole.sent, 5 do
        local part = scan_some("house", options, limit)
        assert.is_false(part.result.complete)
        local rest = {}
        for name, value in pairs(options) do rest[name] = value end
        rest.resume = part.state
        local second = scan_some("house", rest)
        assert.same(identities(whole.found), identities(second.found), kind .. " " .. limit)
        assert.equal(whole.result.complete, second.result.complete)
        assert.is_true(#part.sent + #second.sent <= #whole.sent + 8, ("%s %d: %d and %d"):format(kind, limit, #part.sent, #second.sent))
        for i, meter in ipairs(second.found) do assert.equal(i <= #part.found or nil, meter.resumed) end
      end
    end
  end)

  it("goes on through equal ids and hidden collisions too", function()
    local description = { converter = { damaged = "drop" }, seed = 3, meters = scans.meters { "12345671", "12345672", "22345671" } }
    local whole = scan_some(description, KINDS.secondary)
    for limit = 5, #whole.sent, 23 do
      local part = scan_some(description, KINDS.secondary, limit)
      local second = scan_some(description, { secondary = true, resume = part.state })
      assert.same(identities(whole.found), identities(second.found), limit)
    end
  end)

  it("does not forget that answers may have been late", function()
    local late = { meters = { scans.meter("31892747", { address = 2 }), scans.meter("31892749", { address = 4, late = 0.06 }) } }
    for _, probe in ipairs { "nke", "req" } do
      local options = { range = "0-9", probe = probe }
      local whole = scan_some(late, options)
      assert.same({ "2 31892747", "4 31892749" }, identities(whole.found))
      for limit = 1, #whole.sent - 1 do
        local part = scan_some(late, options, limit)
        local second = scan_some(late, { range = "0-9", probe = probe, resume = part.state })
        assert.same(identities(whole.found), identities(second.found), probe .. " " .. limit)
        assert.same(whole.result.remarks, second.result.remarks, probe .. " " .. limit)
      end
    end
  end)

  it("says where it has heard what it has not decided about", function()
    local meters = { scans.meter("00000002", { address = 2, telegrams = {} }), scans.meter("00000004", { address = 4 }) }
    local part = scan_some({ meters = meters }, { range = "0-20" }, 12)
    assert.same({ "00000004" }, { part.found[1].id, part.found[2] and part.found[2].id })
    assert.matches("address.* 2$", part.result.remarks[1])
    local rest = scan_some({ meters = meters }, { range = "0-20", resume = part.state })
    assert.same({ true, 2, {} }, { rest.result.complete, rest.result.found, rest.result.remarks })
    local mute = rest.found[2].error
    local again = scan_some({ meters = meters }, { range = "0-20", resume = rest.state })
    assert.equal(tostring(mute), tostring(again.found[2].error))
    assert.matches("address 2", tostring(mute))
  end)

  it("comes to its end however often it is interrupted", function()
    local part, count = {}, 0
    repeat
      part = scan_some("house", { range = "0-20", resume = part.state }, 9)
      count = count + 1
      assert.is_true(count < 30)
    until part.result.complete or part.state.finished
    assert.same({ "0 collision", "10 82969010", "12 82969012", "15 82969015", "17 82969017" }, identities(part.found))
  end)

  it("keeps what an earlier line speed has left unaccounted", function()
    local function bus()
      local list = scans.meters({ "11111111", "22222222" }, { baudrate = 9600, fcb_before_selection = true })
      return { meters = { scans.meter("1234567F", { baudrate = 2400 }), scans.meter("1234568F", { baudrate = 2400 }),
        table.unpack(list) } }
    end
    local options = { secondary = true, baud = { 2400, 9600 } }
    local whole = scan_some(bus(), options)
    assert.same({ "FFFFFFFFFFFFFFFF" }, whole.result.unaccounted)
    for limit = 1, #whole.sent do
      local part = scan_some(bus(), options, limit)
      local rest = scan_some(bus(), { secondary = true, baud = { 2400, 9600 }, resume = part.state })
      assert.same({ "FFFFFFFFFFFFFFFF" }, rest.result.unaccounted, limit)
      assert.same(identities(whole.found), identities(rest.found), limit)
    end
  end)

  it("refuses the state of another scan, and what is none", function()
    local part = scan_some("house", KINDS.secondary, 9)
    local holed = scan_some("house", KINDS.secondary, 9).state
    holed.untrusted = { ("F"):rep(16), [3] = ("F"):rep(16) }
    local unsettled = scan_some("house", KINDS.secondary, 9).state
    unsettled.settled = 1
    local bus <close> = assert(mbus.open "sim:")
    for _, options in ipairs { { resume = part.state }, { secondary = true, mask = "31FFFFFF", resume = part.state },
      { resume = {} }, { resume = { version = 99 } }, { secondary = true, resume = holed },
      { secondary = true, resume = unsettled } } do
      local none, err = bus:scan(options)
      assert.is_nil(none)
      assert.equal("invalid", err.kind)
    end
    assert.has_error(function() bus:scan { resume = "scan.state" } end)
  end)

  it("is complete when it has come to its end, though fewer meters than expected were found before", function()
    for _, secondary in ipairs { false, true } do
      local bus = assert(mbus.open(assert(mbus.simulator.new { meters = { scans.meter("11111111", { address = 1 }),
        scans.meter("22222222", { address = 2 }), scans.meter("33333333", { address = 3 }) } })))
      local state, count = nil, 0
      local function go(limit)
        local search <close> = bus:scan { secondary = secondary, range = not secondary and "1-5" or nil, expect = 3,
          resume = state and stored(state), save = function(now) state = now end }
        count = 0
        for _ in search do
          count = count + 1
          if count == limit then break end
        end
        return search
      end
      go(1)
      local result = go().result
      assert.same({ 3, true, {} }, { count, result.complete, result.remarks })
    end
  end)

  it("ends when its loop is left", function()
    local sim = assert(mbus.simulator.new "house")
    local bus <close> = assert(mbus.open(sim))
    for meter in bus:scan { secondary = true } do
      if meter.id then break end
    end
    assert.is_false(selected(sim))
    assert.equal("82969010", bus:read(10).id)
  end)

  it("keeps its bus until it is closed: whoever has left its loop is told so at once, and does not wait for ever", function()
    local function try()
      local bus <close> = assert(mbus.open "sim:")
      local search = bus:scan { range = "10-20" }
      assert.equal(10, search().address)
      local ok, err = pcall(bus.read, bus, 10)
      assert.is_false(ok)
      assert.matches("scan or monitor of this bus is open: end its loop, or close it", err)
      local ended = pcall(bus:scan { range = "10" })
      assert.is_false(ended)
      assert.equal(12, search().address) -- it is as it was
      search:close()
      assert.equal("82969010", bus:read(10).id)
      for meter in bus:scan { range = "10-20" } do
        if meter.id then break end
      end
      assert.equal("82969010", bus:read(10).id)
    end
    try()
    local done
    mbus.spawn(function()
      try()
      done = true
    end)
    mbus.run()
    assert.is_true(done)
  end)

  it("keeps its bus no longer than whoever goes through it can go on", function()
    local bus <close> = assert(mbus.open "sim:")
    local search
    local thread = mbus.spawn(function()
      search = bus:scan { range = "10-20" }
      search()
    end)
    assert.equal("dead", coroutine.status(thread))
    assert.matches("a scan or monitor of this bus is open", select(2, pcall(bus.read, bus, 10)))
    assert.equal(12, search().address) -- it goes on with somebody else
    search:close()
    assert.equal("82969010", bus:read(10).id)
  end)

  it("ends with the error of a bus that breaks", function()
    local sim = assert(mbus.simulator.new "house")
    local bus <close> = assert(mbus.open(sim))
    local search, count = bus:scan { secondary = true }, 0
    for _ in search do
      count = count + 1
      bus:close()
    end
    assert.equal(1, count)
    assert.equal("closed", search.error.kind)
  end)
end)

describe("a scan", function()
  it("is the same by hand", function()
    local whole = scan_some("house", { secondary = true })
    local sim = assert(mbus.simulator.new "house")
    local bus = mbus.open("manual:", { baudrate = 2400, margin = 0, gap = 33 / 2400 })
    assert(bus:begin("scan", { secondary = true }))
    local now, sent, found = 0, {}, {}
    while true do
      local what, argument = bus:wants()
      if what == "done" then
        assert.is_true(argument.complete)
        break
      elseif what == "send" then
        sent[#sent + 1] = core.hex(argument)
        sim:receive(argument, now)
        bus:feed("", now)
      elseif what == "event" then
        if argument.name == "found" then found[#found + 1] = argument.value end
        bus:feed("", now)
      else
        local next = sim:next()
        now = math.max(now, math.min(argument or now, what == "receive" and next or math.huge))
        bus:feed(sim:take(now), now)
      end
    end
    assert.same(whole.sent, sent)
    assert.same(identities(whole.found), identities(found))
  end)

  it("goes on while others on other buses do", function()
    local counts = {}
    for i = 1, 3 do
      mbus.spawn(function()
        local description = { baudrate = 9600, meters = scans.random_meters(1, i) }
        local bus <close> = assert(mbus.open(assert(mbus.simulator.new(description)):transport { clock = "real" }))
        for _ in bus:scan { secondary = true } do counts[i] = (counts[i] or 0) + 1 end
      end)
    end
    mbus.run()
    assert.same({ 1, 1, 1 }, counts)
  end)
end)
