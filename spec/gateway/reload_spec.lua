-- Reloading and stopping while something is going on.
local Gateway = require "mbus.gateway"
local support = require "spec.gateway.support"

local function binding(name, address, fields)
  local one = { name = name, address = address, index = 0 }
  for key, value in pairs(fields or {}) do one[key] = value end
  return one
end

describe("mbus.gateway reload", function()
  -- Two SIGHUPs within one readout: the lines that the first one begins must end with the second.
  it("twice at once leaves no line behind", function()
    local world = support.world { a = support.sim { support.meter(5), support.meter(6) } }
    local function config(name)
      return { connections = { support.connection("a", { bindings = { binding("dead", 99), binding(name, 5) } }) } }
    end
    local gateway, news = support.gateway(world, config "x")
    gateway:start()
    world.clock.run(1) -- address 99 is being waited for
    world.clock.spawn(function() gateway:reload(config "y") end)
    world.clock.run(1.1)
    world.clock.spawn(function() gateway:reload(config "z") end)
    world.clock.run(200)
    assert.is_true(#support.of(news, "y") <= 2, #support.of(news, "y")) -- one poll at most, and "shutdown"
    world.clock.spawn(function() gateway:stop() end)
    world.clock.run(300)
    local count = #news
    world.clock.run(1000)
    assert.equal(count, #news) -- nobody polls any more
  end)

  it("that is overtaken by another one is not held up", function()
    local world = support.world { a = support.sim { support.meter(5) } }
    local function config(name) return { connections = { support.connection("a", { shutdown_timeout = 60000,
      bindings = { binding("dead", 99), binding(name, 5) } }) } } end
    local gateway = support.gateway(world, config "x")
    gateway:start()
    world.clock.run(1)
    local ended
    world.clock.spawn(function()
      gateway:reload(config "y")
      ended = world.clock.now()
    end)
    world.clock.spawn(function() gateway:stop() end)
    world.clock.run(200)
    assert.is_true(ended < 15, ended)
  end)
end)

describe("mbus.gateway stop", function()
  it("does not take longer than the shutdown timeout while a connection is being made", function()
    local world = support.world {}
    local gateway = assert(Gateway.new({ connections = { support.connection("a", { shutdown_timeout = 200,
      bindings = { binding("x", 5) } }) } }, { clock = world.clock, open = function()
      world.clock.sleep(60)
      return nil, require("mbus.error").new("refused", "no")
    end }))
    gateway:start()
    local ended
    gateway:on("stop", function() ended = world.clock.now() end)
    world.clock.spawn(function()
      world.clock.sleep(1)
      gateway:stop()
    end)
    world.clock.run(30)
    assert.is_true(ended < 1.3, ended)
  end)
end)
