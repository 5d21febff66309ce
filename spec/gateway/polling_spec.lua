-- Who is asked when: periods, overruns, meters that do not answer, reads on demand, a month.
local support = require "spec.gateway.support"

local function bindings(...)
  local list = {}
  for _, address in ipairs { ... } do
    list[#list + 1] = { name = "e" .. address, address = address, index = 0 }
    list[#list + 1] = { name = "f" .. address, address = address, index = 1 }
  end
  return list
end

local function house(meters, fields)
  local sim = support.sim(meters)
  local world = support.world { bus = sim }
  local gateway, news, log = support.gateway(world, { connections = { support.connection("bus", fields) } })
  return gateway, news, world, sim, log
end

local function starts(news, name, period)
  local list = {}
  for i, one in ipairs(support.of(news, name)) do list[i] = (one.time - 1704067200) // period end
  return list
end

describe("polling", function()
  it("serves all bindings of a meter from one readout, or each by itself if that is wanted", function()
    local _, _, world, sim = house({ support.meter(5) }, { bindings = bindings(5) })
    local gateway = support.gateway(world, { connections = { support.connection("bus", { bindings = bindings(5) }) } })
    gateway:start()
    world.clock.run(30)
    assert.equal(2, sim.statistics.requests) -- SND_NKE, REQ_UD2
    gateway = support.gateway(world, { connections = { support.connection("bus", { bindings = bindings(5), group_requests = false }) } })
    gateway:start()
    world.clock.run(59)
    assert.equal(6, sim.statistics.requests)
  end)

  it("keeps the period without drift, each binding its own", function()
    local list = bindings(5, 6)
    list[4].period = 150000
    local gateway, news, world = house({ support.meter(5), support.meter(6) }, { bindings = list })
    gateway:start()
    world.clock.run(3600)
    local expected = {}
    for i = 1, 60 do expected[i] = i - 1.0 end
    assert.same(expected, starts(news, "e5", 60))
    assert.same(expected, starts(news, "e6", 60))
    assert.equal(24, #support.of(news, "f6"))
    local first, last = support.of(news, "e5")[1].time, support.of(news, "e5")[60].time
    assert.is_true(math.abs(last - first - 59 * 60) < 0.1)
  end)

  it("reports an overrun and leaves that cycle out", function()
    local slow = {}
    for i = 1, 4 do slow[i] = support.meter(i, { delay = 0.15 }) end
    local gateway, news, world, _, log = house(slow, { period = 1000, bindings = bindings(1, 2, 3, 4) })
    local told = 0
    gateway:on("overrun", function(connection, period, skipped)
      assert.same({ "bus", 1.0 }, { connection.name, period })
      told = told + skipped
    end)
    gateway:start()
    world.clock.run(60)
    -- A cycle takes between 2 and 3 s: every third one runs.
    assert.equal(20, #support.of(news, "e1"))
    assert.equal(20, #support.of(news, "e4"))
    assert.is_true(told >= 38 and told <= 40, told)
    assert.equal(told, gateway:status().connections[1].overruns)
    assert.matches("overrun: the cycle of 1 s", table.concat(log, "\n"))
    for _, one in ipairs(support.of(news, "e1")) do assert.is_true((one.time - 1704067200) % 1 < 0.7) end
  end)

  it("asks a dead meter less often, without slowing the others", function()
    local gateway, news, world, sim, log = house({ support.meter(5), support.meter(6, { deaf = true }) },
      { bindings = bindings(5, 6), offline_interval = 600000, offline_after = 2 })
    gateway:start()
    world.clock.run(3599)
    assert.equal(60, #support.of(news, "e5"))
    assert.equal(60, #support.of(news, "f5"))
    assert.equal(2 + 5, #support.of(news, "e6"))
    assert.same({ 6 }, gateway:status().connections[1].offline)
    assert.matches("address 6 is offline: tried every 600 s only", table.concat(log, "\n"))
    sim.meters[2].description.deaf = nil
    world.clock.run(4800)
    assert.equal("good", gateway:binding("e6").quality)
    assert.same({}, gateway:status().connections[1].offline)
    assert.is_true(#support.of(news, "e6") > 10)
  end)

  it("reads on demand, and joins a readout that is under way", function()
    local gateway, news, world, sim = house({ support.meter(5), support.meter(6) }, { bindings = bindings(5), period = 3600000 })
    gateway:start()
    local readouts = {}
    for i = 1, 3 do world.clock.spawn(function() readouts[i] = gateway:read "e5" end) end
    world.clock.run(20)
    assert.equal(5000, readouts[1]:find({ quantity = "energy" }).value)
    assert.equal(readouts[1], readouts[3])
    assert.equal(2, sim.statistics.requests)
    world.clock.spawn(function() readouts[4] = gateway:read("bus", 6) end)
    world.clock.run(40)
    assert.equal("00000006", readouts[4].id)
    assert.equal(1, #support.of(news, "e5"))
    world.clock.spawn(function() readouts[5] = gateway:read "f5" end)
    world.clock.run(60)
    assert.equal(2, #support.of(news, "e5"))
    assert.equal(5000, assert(gateway:read "e5"):find({ quantity = "energy" }).value) -- outside a coroutine
  end)

  it("reads buses side by side", function()
    local sims, connections = {}, {}
    for i = 1, 5 do
      sims["b" .. i] = support.sim { support.meter(5), support.meter(6) }
      connections[i] = support.connection("b" .. i, { bindings = bindings(5, 6) })
    end
    local world = support.world(sims)
    local gateway, news = support.gateway(world, { connections = connections })
    gateway:start()
    world.clock.run(1.2)
    assert.equal(20, #news)
    assert.is_true(gateway:status().connections[3].busy > 0.3)
  end)

  it("gives values to an iterator", function()
    local gateway, _, world = house({ support.meter(5) }, { bindings = bindings(5) })
    local count = 0
    for news in gateway:values() do
      count = count + 1
      assert.equal(gateway:binding(count % 2 == 1 and "e5" or "f5"), news.binding)
      if count == 6 then break end
    end
    assert.is_true(world.clock.now() > 120 and world.clock.now() < 130)
  end)

  it("keeps an iterator that waits in a coroutine, whatever is collected", function()
    local gateway, news, world = house({ support.meter(5) }, { bindings = bindings(5) })
    local count = 0
    world.clock.spawn(function()
      for _ in gateway:values() do count = count + 1 end
    end)
    for minute = 1, 5 do
      world.clock.run(60 * minute - 30)
      collectgarbage()
    end
    assert.same({ 10, 10 }, { count, #news })
  end)

  it("tells values in their order, though a callback waits", function()
    local gateway, _, world = house({ support.meter(5) }, { bindings = bindings(5) })
    local iterated, told = {}, {}
    gateway:on("value", function(binding, _, _, time)
      told[#told + 1] = ("%s %d"):format(binding.name, (time - 1704067200) // 60)
      if #told == 1 then world.clock.sleep(100) end
    end)
    world.clock.spawn(function()
      for one in gateway:values() do iterated[#iterated + 1] = ("%s %d"):format(one.binding.name, (one.time - 1704067200) // 60) end
    end)
    world.clock.run(150)
    local expected = { "e5 0", "f5 0", "e5 1", "f5 1", "e5 2", "f5 2" }
    assert.same(expected, told)
    assert.same(expected, iterated)
  end)

  it("asks no meter twice because of a read in a callback", function()
    local gateway, news, world, sim = house({ support.meter(5) }, { bindings = bindings(5) })
    local readouts = 0
    gateway:on("value", function(binding)
      if gateway:read(binding) then readouts = readouts + 1 end
    end)
    gateway:start()
    world.clock.run(59)
    assert.same({ 2, 2, 2 }, { #news, readouts, support.requests(sim) })
  end)

  it("does not ask a meter all of whose bindings were stopped while it waited for its turn", function()
    local gateway, news, world, sim = house({ support.meter(5), support.meter(6) }, { bindings = bindings(5, 6) })
    gateway:start()
    gateway:stop_part "e6"
    gateway:stop_part "f6"
    world.clock.run(59)
    assert.equal(2, support.requests(sim))
    gateway:start_part "e6"
    world.clock.run(119)
    assert.equal("good", news[#news].quality)
    assert.equal(0, gateway:status().connections[1].overruns)
  end)

  it("takes no time in which a connection was stopped for an overrun", function()
    local gateway, news, world = house({ support.meter(5) }, { bindings = bindings(5) })
    local told = 0
    gateway:on("overrun", function() told = told + 1 end)
    gateway:start()
    world.clock.run(100)
    gateway:stop_part "bus"
    world.clock.run(86400)
    gateway:start_part "bus"
    world.clock.run(86450)
    assert.same({ 0, 0, "good" }, { told, gateway:status().connections[1].overruns, news[#news].quality })
  end)

  it("runs for a month #timed", function()
    local began = os.clock()
    local sim = support.sim({ support.meter(5), support.meter(6, { deaf = true }) })
    local world = support.world { bus = sim }
    local gateway = support.gateway(world, { connections = { support.connection("bus", { period = 900000,
      bindings = { { name = "e5", address = 5, index = 0, report = "change" }, { name = "e6", address = 6, index = 0, report = "change" } } }) } })
    local told = 0
    gateway.listeners.value = { function() told = told + 1 end }
    gateway:start()
    world.clock.run(86400)
    collectgarbage()
    local before = collectgarbage "count"
    world.clock.run(30 * 86400)
    collectgarbage()
    local status = gateway:status().connections[1]
    assert.equal(2880, gateway:binding("e5").polls)
    assert.equal(0, status.overruns)
    assert.equal(2, told) -- it does not change
    assert.is_true(collectgarbage "count" - before < 50, "memory grows")
    assert.is_true(os.clock() - began < 10)
    assert.is_true(status.next_poll > world.clock.time() and status.next_poll <= world.clock.time() + 900)
  end)
end)
