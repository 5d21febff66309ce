-- A master connection and its backup to the same bus.
local Error = require "mbus.error"
local support = require "spec.gateway.support"

local function bindings(...)
  local list = {}
  for _, address in ipairs { ... } do list[#list + 1] = { name = "e" .. address, address = address, index = 0 } end
  return list
end

local function pair(fields)
  local sim = support.sim { support.meter(5), support.meter(6), support.meter(7) }
  local world = support.world { main = sim, spare = sim }
  local main = support.connection("main", { bindings = bindings(5, 6, 7) })
  for name, value in pairs(fields or {}) do main[name] = value end
  local gateway, news, log = support.gateway(world, { connections = {
    support.connection("spare", { master = "main", bindings = { { name = "own", address = 5, index = 1 } } }), main } })
  gateway:start()
  return gateway, news, world, sim, log
end

local function actual(gateway) return gateway:status().connections[1].actual_connection end

describe("a redundant pair", function()
  it("polls each meter once, over the master", function()
    local gateway, news, world, sim = pair()
    world.clock.run(30)
    assert.equal("main", actual(gateway))
    assert.equal(6, sim.statistics.requests) -- three meters
    assert.same({ "good", "good", "good", "good" }, { news[1].quality, news[2].quality, news[3].quality, news[4].quality })
    assert.is_nil(world.opened.spare)
  end)

  it("changes over at once if the master cannot be opened, and back when it answers again", function()
    local gateway, news, world = pair()
    world.clock.run(30)
    world.down.main = true
    world.clock.run(100)
    assert.equal("spare", actual(gateway))
    for _, one in ipairs(news) do assert.equal("good", one.quality) end
    assert.equal(1, gateway:status().connections[1].takeovers)
    world.clock.run(300)
    world.down.main = nil
    world.clock.run(450)
    assert.equal("main", actual(gateway))
    assert.is_true(gateway:status().connections[2].state == "RUN")
    for _, one in ipairs(news) do assert.equal("good", one.quality) end
    assert.equal(8, #support.of(news, "e5"))
  end)

  it("changes over when the bus of the master fails so many times in a row", function()
    local sim, dead = support.sim { support.meter(5), support.meter(6), support.meter(7) },
      support.sim { support.meter(1) }
    local world = support.world { main = dead, spare = sim }
    local gateway, news, log = support.gateway(world, { connections = {
      support.connection("main", { attempts = 2, bindings = bindings(5, 6, 7), regain_interval = 120000 }),
      support.connection("spare", { master = "main" }) } })
    gateway:start()
    world.clock.run(59)
    -- The first failure is told, the second brings the change, and the same readout comes off.
    assert.same({ "bad", "good", "good" }, { news[1].quality, news[2].quality, news[3].quality })
    assert.equal("spare", actual(gateway))
    assert.matches("spare warning takes over from main", table.concat(log, "\n"))
    world.clock.run(1000)
    assert.equal("spare", actual(gateway))
    for i = 2, #news do assert.equal("good", news[i].quality) end
    world.sims.main = sim
    world.clock.run(1300)
    assert.equal("main", actual(gateway))
  end)

  it("looks after the master at its interval, though nothing is due for long", function()
    local sim = support.sim { support.meter(5), support.meter(6) }
    local world = support.world { main = sim, spare = sim }
    local gateway, news = support.gateway(world, { connections = {
      support.connection("main", { bindings = bindings(5, 6), period = 86400000, regain_interval = 30000 }),
      support.connection("spare", { master = "main" }) } })
    world.down.main = true
    gateway:start()
    world.clock.run(100)
    assert.equal("spare", actual(gateway))
    local opened, told, requests = world.opened.main, #news, support.requests(sim)
    world.clock.run(1000)
    assert.equal(opened + 30, world.opened.main)
    assert.equal(requests, support.requests(sim))
    world.down.main = nil
    world.clock.run(1031)
    assert.equal("main", actual(gateway))
    assert.equal(told, #news)
    world.clock.run(5000)
    assert.equal(requests + 2, support.requests(sim)) -- one meter shows that the master is there
  end)

  it("looks after the master although no meter answers over the backup", function()
    local good, dead = support.sim { support.meter(5) }, support.sim { support.meter(1) }
    local world = support.world { main = good, spare = dead }
    local gateway = support.gateway(world, { connections = {
      support.connection("main", { bindings = bindings(5), regain_interval = 30000, period = 600000, offline_after = 1 }),
      support.connection("spare", { master = "main" }) } })
    world.down.main = true
    gateway:start()
    world.clock.run(400)
    world.down.main = nil
    world.clock.run(440)
    assert.equal("main", actual(gateway))
  end)

  it("does not change over because of one meter", function()
    local sim = support.sim { support.meter(5), support.meter(6, { deaf = true }), support.meter(7) }
    local world = support.world { main = sim, spare = sim }
    local gateway = support.gateway(world, { connections = {
      support.connection("main", { bindings = bindings(5, 6, 7) }), support.connection("spare", { master = "main" }) } })
    gateway:start()
    world.clock.run(3600)
    assert.equal("main", actual(gateway))
    assert.is_nil(world.opened.spare)
  end)

  it("says when there is no connection at all, and goes on when there is one", function()
    local gateway, news, world = pair()
    world.down.main, world.down.spare = true, true
    world.clock.run(30)
    world.clock.run(70)
    assert.equal("no connection", gateway:binding("e5").error)
    assert.equal("no connection", news[#news].error)
    assert.matches("connection refused", gateway:status().connections[2].error)
    assert.is_nil(actual(gateway))
    world.down.spare = nil
    world.clock.run(130)
    assert.equal("good", gateway:binding("e5").quality)
    assert.equal("spare", actual(gateway))
  end)

  it("uses the backup while the master is stopped", function()
    local gateway, _, world = pair { disabled = true }
    world.clock.run(30)
    assert.equal("spare", actual(gateway))
    assert.equal("STOP", gateway:status().connections[2].state)
    gateway:start_part "main"
    world.clock.run(200)
    assert.equal("main", actual(gateway))
  end)

  -- All meters on both sides; the first ones are dead.
  local function with_dead(dead, fields)
    local meters, addresses = {}, {}
    for i = 1, dead + 3 do meters[i], addresses[i] = support.meter(i, { deaf = i <= dead or nil }), i end
    local sim = support.sim(meters)
    local main, spare = support.connection("main", { bindings = bindings(table.unpack(addresses)) }),
      support.connection("spare", { master = "main" })
    for name, value in pairs(fields) do main[name], spare[name] = value, value end
    local gateway, news = support.gateway(support.world { main = sim, spare = sim }, { connections = { main, spare } })
    gateway:start()
    gateway.clock.run(7200)
    return gateway, news
  end

  for dead, fields in pairs { [1] = { attempts = 1 }, [3] = { attempts = 3 }, [6] = { attempts = 3, timeout = 500 } } do
    it(("goes on with the living where %d dead meters follow one another"):format(dead), function()
      local gateway, news = with_dead(dead, fields)
      for i = dead + 1, dead + 3 do
        assert.equal(120, #support.of(news, "e" .. i))
        for _, one in ipairs(support.of(news, "e" .. i)) do assert.equal("good", one.quality) end
      end
      local status = gateway:status().connections[1]
      assert.is_true(status.takeovers <= 5, status.takeovers)
      assert.equal(dead, #status.offline)
    end)
  end

  it("changes over where the master can be opened, and is lost at the first word", function()
    local gateway, news, world = pair()
    world.clock.run(30)
    local open = gateway.open
    gateway.open = function(settings, ...)
      local transport = open(settings, ...)
      if settings.name == "main" then
        transport.write = function() return nil, Error.new("closed", "the other side closed the connection") end
      end
      return transport
    end
    gateway:connection("main"):close()
    world.clock.run(3600)
    assert.equal("spare", actual(gateway))
    for _, one in ipairs(news) do assert.equal("good", one.quality) end
  end)

  it("reads over the backup what the master was waiting for when it was stopped", function()
    local world = support.world { main = support.sim { support.meter(1) }, spare = support.sim { support.meter(5), support.meter(6) } }
    local gateway, news = support.gateway(world, { connections = {
      support.connection("main", { bindings = bindings(5, 6) }), support.connection("spare", { master = "main" }) } })
    gateway:start()
    world.clock.run(1)
    gateway:stop_part "main"
    world.clock.run(30)
    assert.same({ "good", "good" }, { news[1].quality, news[2].quality })
  end)

  it("tells that there is no connection where the master is stopped and the backup cannot be opened", function()
    local gateway, _, world = pair()
    world.clock.run(30)
    world.down.spare = true
    gateway:stop_part "main"
    world.clock.run(100)
    assert.equal("no connection", gateway:binding("e5").error)
  end)
end)
