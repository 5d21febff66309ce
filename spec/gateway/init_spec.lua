-- A gateway's life: start, stop, parts of it, reload, diagnostics.
local Gateway = require "mbus.gateway"
local helper = require "spec.helper"
local support = require "spec.gateway.support"

local function energy(address, fields)
  local binding = { name = "e" .. address, address = address, index = 0 }
  for name, value in pairs(fields or {}) do binding[name] = value end
  return binding
end

local function world_of(...)
  local sims = {}
  for _, name in ipairs { ... } do sims[name] = support.sim { support.meter(5), support.meter(6) } end
  return support.world(sims)
end

describe("a gateway", function()
  it("refuses a wrong config, and what is no config", function()
    local gateway, err = Gateway.new { connections = { { name = "a", type = "tcp" } } }
    assert.is_nil(gateway)
    assert.matches("connections%[1%]%.host: is missing", tostring(err))
    assert.has_error(function() Gateway.new(5) end, "a config is a table, or the name of a file, not number")
    gateway, err = Gateway.new "/nonexistent.lua"
    assert.is_nil(gateway)
    assert.equal("not_found", err.kind)
  end)

  it("tells errors of callbacks on standard error where nobody listens to its log", function()
    local script = [[
      local gateway = assert(require("mbus").gateway { connections = { { name = "h", url = "sim:",
        bindings = { { name = "e", address = 10, index = 0 } } } } })
      gateway:on("value", function() gateway:stop() error "mistake" end)
      if arg and arg[1] then gateway:on("log", function(_, level) if arg[1] == "raise" and level == "error" then error "log" end end) end
      gateway:run()]]
    local function err_of(argument)
      local file = os.tmpname()
      helper.write(file, script)
      local status, _, err = helper.shell(helper.environment() .. "lua5.4 " .. file .. " " .. argument)
      os.remove(file)
      assert.equal(0, status)
      return err
    end
    assert.matches('callback of "value" fails: .*mistake', err_of "")
    assert.equal("", err_of "listen")
    assert.matches('callback of "log" fails: .*log', err_of "raise")
  end)

  it("can work with what is good of a config", function()
    local world = world_of "a"
    local gateway, news, log = support.gateway(world, { connections = {
      support.connection("a", { bindings = { energy(5), energy(999) } }), { name = "b" } } }, { tolerant = true })
    gateway:start()
    world.clock.run(10)
    assert.equal(1, #news)
    assert.equal("good", news[1].quality)
    assert.equal(2, #gateway:status().problems)
    assert.matches("bindings%[2%]%.address", table.concat(log, "\n"))
  end)

  it("stops within its time, with the bus deselected and everybody told", function()
    local sim = support.sim { support.meter(5, { id = "12345678" }), support.meter(6) }
    local world = support.world { a = sim }
    local frames = {}
    sim.trace = function(direction, bytes) if direction == "receive" then frames[#frames + 1] = require("mbus.core").hex(bytes) end end
    local gateway, news = support.gateway(world, { connections = { support.connection("a", {
      bindings = { energy("12345678"), energy(6) } }) } })
    gateway:start()
    local stopped
    gateway:on("stop", function() stopped = world.clock.now() end)
    world.clock.spawn(function()
      world.clock.sleep(3.5) -- the meter is selected, or about to be
      gateway:stop()
    end)
    world.clock.run(20)
    assert.is_true(stopped < 3.5 + 4, stopped)
    assert.equal("10 40 FD 3D 16", frames[#frames])
    assert.is_false(gateway.is_running)
    assert.equal("shutdown", gateway:binding("e12345678").error)
    assert.equal("shutdown", news[#news].error)
    local count = #frames
    world.clock.run(200)
    assert.equal(count, #frames)
    assert.same({ nil, "closed" }, { gateway:read("e6"), (select(2, gateway:read "e6")).kind })
  end)

  it("cuts off what does not end", function()
    local world = world_of "a"
    local gateway = support.gateway(world, { connections = { support.connection("a", { shutdown_timeout = 500, timeout = 60000,
      bindings = { energy(99) } }) } })
    gateway:start()
    world.clock.spawn(function()
      world.clock.sleep(1)
      gateway:stop()
    end)
    local ended
    gateway:on("stop", function() ended = world.clock.now() end)
    world.clock.run(300)
    -- A virtual read ends when its time is up; no request follows.
    assert.is_true(ended <= 2.6, ended)
  end)

  it("deselects on a free line whom it has to cut off", function()
    local sim = support.sim { support.meter(5, { id = "12345678" }) }
    local world = support.world { a = sim }
    local frames = {}
    local last
    sim.trace = function(direction, bytes)
      if direction ~= "receive" then return end
      frames[#frames + 1], last = require("mbus.core").hex(bytes), world.clock.now()
      if frames[#frames]:find "^10 7B FD" then sim.meters[1].description.deaf = true end
    end
    local gateway = support.gateway(world, { connections = { support.connection("a", { shutdown_timeout = 500, timeout = 60000,
      bindings = { energy("12345678") } }) } })
    gateway:start()
    world.clock.spawn(function()
      world.clock.sleep(75)
      gateway:stop()
    end)
    world.clock.run(300)
    assert.equal("10 40 FD 3D 16", frames[#frames])
    assert.is_true(last < 76, last) -- long before the meter is given up
  end)

  it("starts, stops and clears connections and bindings at run time", function()
    local world = world_of("a", "b")
    local gateway, news = support.gateway(world, { connections = { support.connection("a", { bindings = { energy(5), energy(6) } }),
      support.connection("b", { bindings = { energy(5) } }) } })
    gateway:start()
    world.clock.run(30)
    assert.is_nil(gateway:binding "e5") -- two have that name
    gateway:stop_part "a/e6"
    assert.equal("shutdown", gateway:binding("a/e6").error)
    gateway:stop_part "b"
    world.clock.run(200)
    assert.equal("STOP", gateway:status().connections[2].state)
    assert.equal("shutdown", gateway:binding("b/e5").error)
    assert.is_false(gateway:status().connections[2].is_open)
    assert.equal("STOP", gateway:status().connections[1].bindings[2].state)
    assert.equal(2, #support.of(news, "e6"))
    gateway:start_part "a/e6"
    gateway:start_part "b"
    world.clock.run(300)
    assert.equal("good", gateway:binding("a/e6").quality)
    assert.equal("good", gateway:binding("b/e5").quality)
    gateway:clear "a"
    assert.equal(0, gateway:status().connections[1].requests)
    assert.same({}, gateway:log_lines "a")
  end)

  it("tells what goes on", function()
    local world = world_of "a"
    local gateway = support.gateway(world, { connections = { support.connection("a", { title = "cellar", log_level = "debug",
      offline_after = 1, offline_interval = 250000, bindings = { energy(5, { tag = "x" }), energy(99), energy(6, { disabled = true }) } }) } })
    gateway:start()
    world.clock.run(30)
    assert.is_nil(gateway:status().connections[1].bindings[3].next_poll)
    local status = gateway:status()
    local connection = status.connections[1]
    assert.equal("RUN", connection.state)
    assert.equal("cellar", connection.title)
    assert.is_string(connection.node)
    assert.is_number(connection.pid)
    assert.equal("a", connection.actual_connection)
    assert.same({ timeout = 1 }, connection.errors)
    assert.equal(2, connection.polls)
    assert.equal(6, connection.requests) -- NKE, REQ; NKE three times, REQ once
    assert.equal(2, connection.answers)
    assert.equal(2, connection.retries)
    assert.is_true(connection.response_time.min < connection.response_time.mean)
    assert.is_true(connection.response_time.mean < connection.response_time.max)
    assert.is_true(connection.busy > 0 and connection.busy < 0.1)
    assert.is_true(connection.memory > 1000 and connection.memory < 100000)
    assert.matches("address 99: no answer", connection.error)
    assert.is_true(connection.error_time > 1704067200)
    assert.equal(1704067200 + 60, connection.next_poll)
    assert.equal("x", connection.bindings[1].tag)
    assert.equal('unavailable address "99"', connection.bindings[2].error)
    local binding = connection.bindings[1]
    assert.same({ connection.node, connection.pid, "a" }, { binding.node, binding.pid, binding.actual_connection })
    assert.equal(connection.next_poll, binding.next_poll)
    assert.equal(1704067200 + 300, connection.bindings[2].next_poll)
    local lines = gateway:log_lines "a"
    assert.equal("SEND (005) 10 40 05 45 16", lines[2].text)
    assert.equal("debug", lines[2].level)
  end)

  it("keeps the last 1000 lines of a log", function()
    local Log = require "mbus.gateway.log"
    local log = Log.new("info", { time = function() return 5 end })
    for i = 1, 2500 do log:add("info", "line " .. i) end
    log:add("debug", "too much")
    local lines = log:lines()
    assert.equal(1000, #lines)
    assert.equal("line 1501", lines[1].text)
    assert.equal("line 2500", lines[1000].text)
  end)

  it("stops a connection that uses more memory than it may, and it alone", function()
    local world = world_of("a", "b")
    local many = {}
    for i = 1, 100 do many[i] = energy(5, { name = "b" .. i }) end
    local gateway = support.gateway(world, { connections = { support.connection("a", { memory_limit = 20000, bindings = many }),
      support.connection("b", { memory_limit = 2000000, bindings = { energy(5) } }) } })
    gateway:start()
    world.clock.run(200)
    assert.matches("memory limit: it uses %d+ of 20000 bytes", gateway:status().connections[1].error)
    assert.equal("STOP", gateway:status().connections[1].state)
    assert.equal("good", gateway:binding("e5").quality)
  end)
end)

describe("reloading", function()
  local function config(a, b)
    return { connections = { support.connection("a", { bindings = a }), support.connection("b", { bindings = b }) } }
  end

  it("leaves alone what stays as it is", function()
    local world = world_of("a", "b")
    local total = { type = "integration" }
    local gateway, news = support.gateway(world, config({ energy(5) }, { energy(5, { transformation = { total, function(v) return v end } }) }))
    gateway:start()
    world.clock.run(70)
    local kept = gateway:connection "a"
    local result
    local same = function(v) return v end
    world.clock.spawn(function()
      result = { gateway:reload(config({ energy(5) }, { energy(5, { transformation = { { type = "integration" }, same } }), energy(6) })) }
    end)
    world.clock.run(90)
    assert.is_true(result[1])
    assert.equal(kept, gateway:connection "a")
    assert.same({ a = 1, b = 2 }, world.opened)
    world.clock.run(140)
    assert.equal("good", gateway:binding("b/e6").quality)
    assert.is_true(gateway:binding("b/e5").value > 80) -- the integral went on
    assert.equal(3, #(function()
      local list = {}
      for _, one in ipairs(news) do list[#list + 1] = one.connection == kept and one or nil end
      return list
    end)())
  end)

  it("goes on as before if the new config is wrong", function()
    local world = world_of("a", "b")
    local gateway, _, log = support.gateway(world, config({ energy(5) }, { energy(5) }))
    gateway:start()
    world.clock.run(30)
    local ok, err = gateway:reload { connections = { { name = "a" } } }
    assert.is_nil(ok)
    assert.equal("invalid", err.kind)
    world.clock.run(100)
    assert.equal(2, gateway:binding("a/e5").polls)
    assert.matches("the config is not loaded again", table.concat(log, "\n"))
  end)

  it("takes the file again", function()
    helper.with_folder(function(folder)
      local text = "return { connections = { { name = 'a', url = 'tcp://a:1', period = 60000, bindings = { { name = 'x', address = %d, index = 0 } } } } }"
      helper.write(folder .. "/c.lua", text:format(5))
      local world = world_of "a"
      local gateway = support.gateway(world, folder .. "/c.lua")
      gateway:start()
      world.clock.run(10)
      helper.write(folder .. "/c.lua", text:format(6))
      world.clock.spawn(function() gateway:reload() end)
      world.clock.run(20)
      assert.equal(6000, gateway:binding("x").value)
    end)
  end)
end)
