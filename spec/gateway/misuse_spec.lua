-- What a binding must not do.
local support = require "spec.gateway.support"

local function binding(name, address, fields)
  local one = { name = name, address = address, index = 0 }
  for key, value in pairs(fields or {}) do one[key] = value end
  return one
end

local function house(meters, bindings, fields)
  local world = support.world { a = support.sim(meters) }
  local connection = support.connection("a", fields)
  connection.bindings = bindings
  local gateway, news, log = support.gateway(world, { connections = { connection } })
  gateway:start()
  return gateway, world, news, log
end

describe("a binding", function()
  it("does not take the value of another phase in silence", function()
    local function voltage(phase, value)
      return { quantity = "voltage", unit = "V", value = value, exponent = -1, data = "int16", modifiers = { "at_phase_" .. phase } }
    end
    local function meter(...) return support.meter(5, { telegrams = { { records = { ... } } } }) end
    local gateway, world = house({ meter(voltage("l1", 231), voltage("l2", 232)) }, { binding("u1", 5) })
    world.clock.run(30)
    assert.equal(231, gateway:binding("u1").value)
    world.sims.a.meters[1] = support.sim({ meter(voltage("l2", 232), voltage("l1", 231)) }).meters[1]
    world.clock.run(90)
    assert.same({ "bad", nil }, { gateway:binding("u1").quality, gateway:binding("u1").value })
  end)

  local function write(gateway, world, name, value)
    local result
    world.clock.spawn(function() result = table.pack(gateway:write(name, value)) end)
    world.clock.run(world.clock.now() + 60)
    return table.unpack(result, 1, 2)
  end

  it("tells why a function cannot be undone, also with a % in it", function()
    local gateway, world = house({ support.meter(5) }, { binding("e", 5, { access = "RW", transformation = { type = "function",
      f = function(v) return v end, inverse = function() error "not 100% sure" end } }) })
    world.clock.run(10)
    local ok, err = write(gateway, world, "e", 5)
    assert.is_nil(ok)
    assert.equal("invalid", err.kind)
    assert.matches("not 100%% sure", tostring(err))
    assert.is_nil(tostring(err):find("traceback", 1, true))
  end)

  it("does not write a date that there is not", function()
    local gateway, world = house({ support.meter(5, { telegrams = { { records = {
      { quantity = "date", data = "date", value = "2024-12-31" } } } } }) }, { binding("d", 5, { access = "RW" }) })
    world.clock.run(10)
    local ok, err = write(gateway, world, "d", "2025-02-30")
    assert.is_nil(ok)
    assert.equal("invalid", err.kind)
    assert.equal("2024-12-31", gateway:binding("d").value)
  end)

  it("is not written while it is disabled or stopped", function()
    local gateway, world = house({ support.meter(5), support.meter(6) }, { binding("on", 6),
      binding("off", 5, { access = "RW", disabled = true, write = { quantity = "energy", unit = "Wh", data = "int32", exponent = 3 } }),
      binding("e", 5, { access = "RW" }) })
    world.clock.run(10)
    assert.is_nil((write(gateway, world, "off", 5000)))
    gateway:stop_part "a/e"
    assert.is_nil((write(gateway, world, "e", 6000)))
    assert.is_nil(world.sims.a.meters[1].writes and world.sims.a.meters[1].writes[1])
  end)
end)
