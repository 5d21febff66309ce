-- What goes wrong only when several things meet: stops, reloads, records of the maker, and meters that fail for weeks.
local core = require "mbus.core"
local support = require "spec.gateway.support"

local function house(binding, fields, meters)
  local sim = support.sim(meters or { support.meter(5), support.meter(6) })
  local world = support.world { house = sim }
  local connection = support.connection("house", fields)
  connection.bindings = { binding, { name = "other", address = 6, index = 0 } }
  local gateway, news, log = support.gateway(world, { connections = { connection } })
  gateway:start()
  return gateway, world, sim, news, log
end

-- A telegram with these records behind a long header.
local function frame(records)
  return { { frame = core.hex(core.long(0x08, 5, 0x72, core.unhex "05 00 00 00 43 04 01 04 00 00 00 00" .. core.unhex(records))) } }
end

describe("a backup", function()
  for _, fields in ipairs { {}, { attempts = 4 }, { attempts = 6 }, { offline_after = 1 } } do
    it(("takes over where the bus is silent: attempts %s, offline after %s"):format(fields.attempts, fields.offline_after), function()
      local sim, silent = support.sim { support.meter(5) }, support.sim { support.meter(1) }
      local world = support.world { main = sim, spare = sim }
      local main = support.connection("main", { bindings = { { name = "e5", address = 5, index = 0 } } })
      for name, value in pairs(fields) do main[name] = value end
      local gateway = support.gateway(world, { connections = { main, support.connection("spare", { master = "main" }) } })
      gateway:start()
      world.clock.run(100)
      gateway:connection("main"):close()
      world.sims.main = silent
      world.clock.run(86400)
      assert.same({ "spare", "good" }, { gateway:status().connections[1].actual_connection, gateway:binding("e5").quality })
    end)
  end

  it("is all that is used while the master is stopped", function()
    local main, spare = support.sim { support.meter(5), support.meter(6) }, support.sim { support.meter(5), support.meter(6) }
    local world = support.world { main = main, spare = spare }
    local gateway, _, log = support.gateway(world, { connections = {
      support.connection("main", { bindings = { { name = "a", address = 5, index = 0 }, { name = "b", address = 6, index = 0 } } }),
      support.connection("spare", { master = "main" }) } })
    gateway:start()
    world.clock.run(30)
    gateway:stop_part("main")
    local before = main.statistics.requests
    world.clock.run(100)
    assert.equal(before, main.statistics.requests)
    assert.is_true(spare.statistics.requests > 0)
    assert.matches("takes over from main: it is stopped", table.concat(log, "\n"), 1, true)
  end)
end)

describe("time in which nothing is polled", function()
  for _, part in ipairs { "house/p", "house" } do
    it("is not integrated: " .. part .. " is stopped for a day", function()
      local power = { { records = { { quantity = "power", unit = "W", value = 1000, data = "int32" } } } }
      local gateway, world = house({ name = "p", address = 5, index = 0, transformation = { type = "integration", unit = "Wh" } },
        nil, { support.meter(5, { telegrams = power }), support.meter(6) })
      world.clock.run(3605)
      gateway:stop_part(part)
      world.clock.run(86400 + 3605)
      gateway:start_part(part)
      world.clock.run(86400 + 7205)
      assert.near(2000, gateway:binding("p").value, 20)
    end)
  end
end)

describe("a record whose meaning is the maker's", function()
  local function exchanged(before, after)
    local gateway, world = house({ name = "e", address = 5, index = 0 }, nil,
      { support.meter(5, { telegrams = frame(before) }), support.meter(6) })
    world.clock.run(20)
    local binding = gateway:binding "e"
    assert.equal("good", binding.quality)
    gateway:connection("house"):close()
    world.sims.house = support.sim { support.meter(5, { telegrams = frame(after) }), support.meter(6) }
    world.clock.run(80)
    return binding
  end

  it("is not taken for another one of his", function()
    for before, after in pairs { ["04 FF 01 07 00 00 00"] = "04 FF 02 63 00 00 00", ["04 83 FF 01 07 00 00 00"] = "04 83 FF 02 63 00 00 00",
      ["04 A9 FF 81 01 07 00 00 00"] = "04 A9 FF 82 01 63 00 00 00", ["04 FD 7F 07 00 00 00"] = "04 FD 7E 63 00 00 00" } do
      local binding = exchanged(before, after)
      assert.same({ "bad" }, { binding.quality, binding.value })
      assert.matches("another record is at its place: VIF %x+ instead of %x+", binding.error)
      assert.equal("good", exchanged(before, before).quality)
    end
  end)

  it("may come with another resolution where the standard knows it", function()
    local binding = exchanged("04 03 07 00 00 00", "04 06 63 00 00 00")
    assert.same({ "good", 99000 }, { binding.quality, binding.value })
  end)
end)

describe("a config that is loaded again", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function save(text)
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
  end

  local function loaded(text, options)
    save(text)
    local world = support.world { house = support.sim { support.meter(5) } }
    local gateway, _, log = support.gateway(world, path, options)
    gateway:start()
    world.clock.run(30)
    return gateway, world, log
  end

  local function reload(gateway, world, text)
    save(text)
    world.clock.spawn(function() assert(gateway:reload()) end)
    world.clock.run(world.clock.now() + 200)
  end

  local FACTORS = [[
FACTOR = %s
local function twice(v) return 2 * v end
function helper(v) return other and twice(v) * FACTOR or v end
function other(v) return helper(v) end
return { connections = { { name = "house", type = "tcp", host = "house", port = 10001, bindings = {
  { name = "e", address = 5, index = 0, transformation = function(v) return helper(v) end } } } } }
]]

  it("is another one if a global of its functions is", function()
    local gateway, world, log = loaded(FACTORS:format "1")
    assert.equal(10000, gateway:binding("e").value)
    reload(gateway, world, FACTORS:format "1")
    assert.equal("- info config loaded again: 0 lines begin, 0 end", log[#log])
    reload(gateway, world, FACTORS:format "10")
    assert.equal(100000, gateway:binding("e").value)
  end)

  it("tells what it leaves out", function()
    local text = [[return { connections = { { name = "house", type = "tcp", host = "house", port = 10001, timeout = %s,
      bindings = { { name = "e", address = 5, index = 0 } } } } }]]
    local gateway, world, log = loaded(text:format "3000", { tolerant = true })
    reload(gateway, world, text:format "'3 s'")
    assert.matches("- error connections[1].timeout: a number", table.concat(log, "\n"), 1, true)
  end)

  it("leaves stopped what was stopped by hand", function()
    local text = [[return { connections = { { name = "house", type = "tcp", host = "house", port = 10001, timeout = %s, disabled = %s,
      bindings = { { name = "e", address = 5, index = 0 } } } } }]]
    local gateway, world = loaded(text:format("3000", "false"))
    gateway:stop_part "house"
    reload(gateway, world, text:format("2000", "false"))
    assert.same({ "STOP", "shutdown" }, { gateway:status().connections[1].state, gateway:binding("e").error })
    gateway:start_part "house"
    world.clock.run(world.clock.now() + 100)
    assert.equal("good", gateway:binding("e").quality)
    reload(gateway, world, text:format("2000", "true"))
    assert.equal("STOP", gateway:status().connections[1].state)
    reload(gateway, world, text:format("2000", "false"))
    assert.equal("good", gateway:binding("e").quality)
  end)

  it("does not count what it has replaced as its memory", function()
    local text = [[local b = {} for i = 1, 50 do b[i] = { name = "e" .. i, address = 5, index = 0 } end
      return { connections = { { name = "house", type = "tcp", host = "house", port = 10001, timeout = %s, bindings = b } } }]]
    local gateway, world = loaded(text:format "3000")
    local before = gateway:status().connections[1].memory
    reload(gateway, world, text:format "3001")
    assert.is_true(gateway:status().connections[1].memory < 1.3 * before)
    assert.equal(gateway.connections[1], gateway.connections[1].log.connection)
  end)
end)

describe("stopping", function()
  it("answers a callback that reads or writes while it is told so", function()
    local gateway, world = house { name = "a", address = 5, index = 0, access = "RW" }
    world.clock.run(30)
    local errors = {}
    gateway:on("value", function(binding)
      if binding.name == "a" then
        errors[1] = tostring(select(2, gateway:read "a"))
        errors[2] = tostring(select(2, gateway:write("a", 1000)))
      end
    end)
    world.clock.spawn(function() gateway:stop() end)
    world.clock.run(100)
    assert.same({ "house: shutdown", "house: shutdown" }, errors)
  end)

  it("tells of all bindings alike, and is no failed poll", function()
    local default = { type = "default", value = -1 }
    local gateway, world, _, news = house({ name = "dead", address = 99, index = 0, transformation = default }, nil)
    world.clock.run(1) -- the dead one is being read
    gateway:stop_part "house"
    world.clock.run(100)
    for _, one in ipairs(news) do assert.same({ "bad", "shutdown" }, { one.quality, one.error, one.value }) end
    local binding = gateway:status().connections[1].bindings[1]
    assert.same({ 0, 0 }, { binding.polls, binding.failures })
  end)

  it("and starting again polls, though the opening took longer than that", function()
    local Gateway, clock = require "mbus.gateway", support.world({}).clock
    local sim, slow = support.sim { support.meter(5) }, 60
    local gateway = assert(Gateway.new({ connections = { support.connection("house", { shutdown_timeout = 5000,
      bindings = { { name = "e", address = 5, index = 0 } } }) } }, { clock = clock, open = function()
      clock.sleep(slow)
      return sim:transport()
    end }))
    gateway:start()
    clock.spawn(function()
      clock.sleep(1)
      gateway:stop()
      slow = 0.1
      gateway:start()
    end)
    clock.run(600)
    assert.same({ "RUN", "good" }, { gateway:status().state, gateway:binding("e").quality })
  end)

  it("of a connection leaves nobody waiting", function()
    local gateway, world = house { name = "a", address = 5, index = 0, period = 3600000 }
    world.clock.run(100)
    local done = {}
    for _, name in ipairs { "a", "other" } do
      world.clock.spawn(function() done[name] = tostring(select(2, gateway:read(name)) or "read") end)
    end
    world.clock.spawn(function() done.unknown = tostring(select(2, gateway:read("house", 7)) or "read") end)
    gateway:stop_part("house")
    world.clock.run(200)
    assert.same({ a = "read", other = "house: shutdown", unknown = "house: shutdown" }, done)
  end)
end)

describe("values as an iterator", function()
  it("are kept for those alone who still take them", function()
    local gateway, world = house { name = "a", address = 5, index = 0, report = "poll" }
    world.clock.spawn(function()
      for news in gateway:values() do
        if news.binding.name == "a" then break end
      end
    end)
    gateway:values()
    world.clock.run(200)
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(gateway.streams))
  end)
end)

describe("what is written", function()
  it("is what is shown, not only the beginning of it", function()
    local gateway, world = house({ name = "t", address = 5, index = 0, access = "RW" }, nil,
      { support.meter(5, { telegrams = frame "0D FD 11 03 33 32 31" }), support.meter(6) })
    world.clock.run(30)
    local results = {}
    for _, value in ipairs { "12", "", "123" } do
      world.clock.spawn(function() results[#results + 1] = gateway:write("t", value) or false end)
      world.clock.run(world.clock.now() + 30)
    end
    assert.same({ false, false, true }, results)
  end)

  it("may be whatever the binding has shown", function()
    local gateway, world, sim = house({ name = "v", address = 5, index = 0, access = "RW",
      transformation = { type = "scaling", factor = 0.001, unit = "dam3" } }, nil, { support.meter(5, { telegrams = { { records = {
      { quantity = "volume", unit = "m3", value = 43, exponent = 0, data = "int32" } } } } }), support.meter(6) })
    world.clock.run(30)
    for _, value in ipairs { 0.043, 12.043, 1.005, 18342.017 } do
      local ok, err
      world.clock.spawn(function() ok, err = gateway:write("v", value) end)
      world.clock.run(world.clock.now() + 30)
      assert.is_true(ok, tostring(err))
      assert.equal(value, gateway:binding("v").value)
    end
    assert.equal(4, #sim.meters[1].writes)
  end)
end)

describe("the time of a meter", function()
  local CLOCK = { quantity = "datetime", value = "2025-09-26T12:00", data = "datetime" }
  local ENERGY = { quantity = "energy", unit = "Wh", value = 1, data = "int32" }

  local function time_with(...)
    local gateway, world = house({ name = "e", address = 5, index = 0 }, nil,
      { support.meter(5, { telegrams = { { records = { ENERGY, ... } } } }), support.meter(6) })
    world.clock.run(30)
    return gateway:binding("e").meter_time
  end

  it("is that of its clock, and no other date", function()
    local future = { quantity = "datetime", value = "2025-01-01T00:00", data = "datetime", modifiers = { "future_value" } }
    local tariff = { quantity = "datetime", value = "2025-01-01T00:00", data = "datetime", tariff = 1 }
    assert.equal("2025-09-26T12:00:00", time_with(future, tariff, CLOCK))
    assert.is_nil(time_with(future, tariff))
  end)
end)
