local Bus = require "mbus.bus"
local core = require "mbus.core"
local Error = require "mbus.error"
local mbus = require "mbus"
local by_hand = require "spec.procedure.by_hand"

local ANSWER = by_hand.answer(5, "31892747", 1, "\x0C\x05\x31\x84\x74\x01")

local function meters()
  local list = {}
  for a = 1, 5 do
    local frame = core.hex(by_hand.answer(a, "0000000" .. a, 1, "\x01\x7A\x01"))
    list[a] = { address = a, delay = 0.02, telegrams = { { frame = frame } } }
  end
  return { baudrate = 9600, meters = list }
end

-- A bus whose simulator runs on the computer's clock.
local function real_bus(options)
  return assert(mbus.open(assert(mbus.simulator.new(meters())):transport { clock = "real" }, options))
end

-- A transport that answers each request with the next of a list; an Error is what the port reports.
local function scripted(answers, fields)
  local transport = { name = "/dev/ttyTEST", time = 0, waiting = "", seen = {} }
  for name, value in pairs(fields or {}) do transport[name] = value end
  function transport:write(bytes)
    table.insert(self.seen, core.hex(bytes))
    local answer = table.remove(answers, 1)
    if Error.is(answer) then return nil, answer end
    self.waiting = answer or ""
    return true
  end
  function transport:read(seconds)
    local bytes = self.waiting
    self.waiting = ""
    self.time = self.time + (bytes ~= "" and 0.01 or seconds)
    return bytes
  end
  function transport.drain() return "" end
  function transport:now() return self.time end
  function transport:sleep(seconds) self.time = self.time + seconds end
  function transport:close() self.closed = (self.closed or 0) + 1 end
  return transport
end

describe("a bus", function()
  it("names itself in errors", function()
    local bus = Bus.new(scripted {})
    local _, err = bus:read(5)
    assert.matches("^ttyTEST: address 5: no answer %(4 tries, %d%.%d%d s%)$", tostring(err))
  end)

  it("takes times from the call, its own options, the transport, or the standard", function()
    local function silence(fields, options, call)
      call = call or {}
      call.retries, call.nke = 0, "never"
      local _, err = Bus.new(scripted({}, fields), options):read(5, call)
      return err.seconds
    end
    assert.near(396 / 2400 + 0.05 + 0.1, silence({}), 1e-9)
    assert.near(396 / 2400 + 0.05 + 0.3, silence({ margin = 0.3 }), 1e-9)
    assert.near(396 / 2400 + 0.05 + 0.2, silence({ margin = 0.3 }, { margin = 0.2 }), 1e-9)
    assert.near(396 / 2400 + 0.05 + 0.4, silence({ margin = 0.3 }, { margin = 0.2 }, { margin = 0.4 }), 1e-9)
    assert.near(396 / 9600 + 0.05, silence({ margin = 0, baudrate = 9600 }, { baudrate = 300 }), 1e-9)
    assert.near(396 / 300 + 0.05, silence({ margin = 0 }, { baudrate = 300 }), 1e-9)
    assert.near(55 / 2400 + 3, silence({ margin = 0.3, timeout = 9 }, { timeout = 3 }), 1e-9)
  end)

  it("raises on options that cannot be right", function()
    local wrong = { baudrate = 0, timeout = -1, margin = "1", gap = 1 / 0, idle = 0 / 0, retries = 1.5, max_telegrams = 0,
      nke = "always", trace = true }
    for name, value in pairs(wrong) do
      local ok, message = pcall(mbus.open, scripted {}, { [name] = value })
      assert.is_false(ok)
      assert.matches("option " .. name .. ": .* expected", message)
      ok, message = pcall(Bus.read, Bus.new(scripted {}), 5, { [name] = value })
      assert.is_false(ok)
      assert.matches("bus_spec.-option " .. name, "bus_spec" .. message)
    end
    assert.has_error(function() Bus.new(scripted {}, 5) end)
  end)

  it("raises on options that there are not, since what they were to prevent would happen", function()
    local bus <close> = Bus.new(scripted {})
    local function refuses(name, fn, ...)
      local ok, message = pcall(fn, ...)
      assert.is_false(ok)
      assert.matches("there is no option " .. name, message, 1, true)
    end
    local volume = { { quantity = "volume", value = 1, data = "bcd8" } }
    refuses("dryrun", bus.write, bus, 5, volume, { dryrun = true })
    refuses("verify", bus.read, bus, 5, { verify = true }) -- of another call
    refuses("typ", bus.set_clock, bus, 5, "2024-02-29T13:45", { typ = "I" })
    refuses("retry", bus.read, bus, 5, { retry = 1 })
    refuses("masks", bus.scan, bus, { masks = "31FFFFFF" })
    refuses("1", bus.monitor, bus, { true })
    refuses("retry", mbus.open, "manual:", { retry = 1 })
    refuses("margn", mbus.open, "manual:", { meters = { [5] = { margn = 1 } } })
    assert(mbus.open("manual:", { backoff = 1, n = 0, delay_ratio = 2, parity = "none" })) -- of other buses in one config
  end)

  it("raises where a text stands for a choice", function()
    local bus <close> = Bus.new(scripted {})
    local volume = { { quantity = "volume", value = 1, data = "bcd8" } }
    for _, case in ipairs { { "set_clock", nil, "summer_time" }, { "set_clock", nil, "standard_time" },
      { "set_clock", nil, "hundred_years" }, { "set_baudrate", 9600, "stay" }, { "write", volume, "verify" } } do
      local ok, message = pcall(bus[case[1]], bus, 5, case[2], { [case[3]] = "no" })
      assert.is_false(ok)
      assert.matches(("option %s: true or false expected"):format(case[3]), message, 1, true)
    end
  end)

  it("opens nothing where the options are wrong", function()
    local transport = require "mbus.transport.shared"
    local open = transport.open
    transport.open = function() error "opened" end
    local _, message = pcall(mbus.open, "/dev/ttyUSB0", { retries = -1 })
    local _, other = pcall(mbus.open, "/dev/ttyUSB0", { meters = 5 })
    transport.open = open
    assert.matches("option retries", message)
    assert.matches("option meters", other)
  end)

  it("says where the caller is wrong", function()
    local bus = Bus.new(scripted {})
    local ok, message = pcall(function() bus:read({}) end)
    assert.is_false(ok)
    assert.matches("bus_spec.lua:%d+: an address is a number or a string, not table", message)
    ok, message = pcall(function() bus:read(5, { retries = -1 }) end)
    assert.is_false(ok)
    assert.matches("bus_spec.lua:%d+: option retries: a whole number from 0 expected", message)
    ok, message = pcall(function() mbus.open("manual:", { retries = -1 }) end)
    assert.is_false(ok)
    assert.matches("option retries", message)
    ok, message = pcall(function() bus:begin("read", 5) end)
    assert.is_false(ok)
    assert.matches("bus_spec.lua:%d+: this bus has a transport", message)
  end)

  it("says so for every method that also takes 255", function()
    local bus = Bus.new(scripted {})
    for _, name in ipairs { "set_clock", "set_baudrate", "reset", "write", "synchronize" } do
      local ok, message = pcall(function() bus[name](bus, {}) end)
      assert.is_false(ok)
      assert.matches("bus_spec.lua:%d+: an address is a number or a string, not table", message)
    end
  end)

  it("refuses what is no transport before it is used", function()
    for _, what in ipairs { {}, { url = "sim:" }, io.stdout } do
      local ok, message = pcall(function() mbus.open(what) end)
      assert.is_false(ok)
      assert.matches("bus_spec.lua:%d+: a transport has write, read, drain and close; this has no ", message)
    end
  end)

  it("refuses a request out of a callback of another one, which would wait for ever", function()
    local bus <close> = assert(mbus.open "sim:")
    local function nested()
      local _, err = pcall(function() bus:read(10, { trace = function() bus:read(12) end }) end)
      return err
    end
    local inside
    mbus.spawn(function() inside = nested() end)
    mbus.run()
    for _, message in ipairs { nested(), inside or "it waits" } do
      assert.matches("bus_spec.lua:%d+: a request of this bus is under way", message)
    end
    assert.truthy(bus:read(12))
  end)

  it("refuses it also while a scan that was left puts the bus in order", function()
    local armed
    local bus
    bus = assert(mbus.open("sim:", { trace = function() if armed then bus:read(10) end end }))
    local search = bus:scan { secondary = true }
    assert.truthy(search())
    armed = true
    local ok, message = pcall(search.close, search)
    armed = false
    assert.is_false(ok)
    assert.matches("bus_spec.lua:%d+: a request of this bus is under way", message)
    assert.truthy(bus:read(12))
  end)

  it("refuses addresses without using the line", function()
    local transport = scripted {}
    local none, err = Bus.new(transport):read(251)
    assert.is_nil(none)
    assert.same({ "invalid", "/dev/ttyTEST" }, { err.kind, err.bus })
    assert.same({}, transport.seen)
  end)

  it("reports what the port says, each time anew, and works when it works again", function()
    local broken = Error.new("closed", "unplugged", { bus = "/dev/ttyTEST", code = "EIO" })
    local bus = Bus.new(scripted { broken, broken, "\xE5", broken, "\xE5", ANSWER })
    for _, address in ipairs { 5, 6 } do
      local _, err = bus:read(address)
      assert.same({ "closed", address, "EIO", 1 }, { err.kind, err.address, err.code, err.tries })
    end
    assert.is_nil(broken.address)
    assert.equal("closed", select(2, bus:read(5)).kind)
    assert.equal(1, #assert(bus:read(5)))
  end)

  it("shows all that is on the line to the trace", function()
    local seen = {}
    local bus = Bus.new(scripted { "\xE5", "\x10\x7B\x05\x80\x16\x00\x55" .. ANSWER .. "\xFF" }, {
      trace = function(direction, bytes, time)
        assert.is_number(time)
        seen[#seen + 1] = direction .. " " .. core.hex(bytes)
      end })
    assert(bus:read(5))
    assert.same({ "SEND 10 40 05 45 16", "RECV E5", "SEND 10 7B 05 80 16", "ECHO 10 7B 05 80 16", "NOISE 00 55",
      "RECV " .. core.hex(ANSWER), "NOISE FF" }, seen)
  end)

  it("is free for the next request when a callback raises", function()
    local bus = Bus.new(scripted { "\xE5", ANSWER, "\xE5", ANSWER })
    assert.has_error(function() bus:read(5, { trace = function() error("oops", 0) end }) end, "oops")
    assert.is_truthy(bus:read(5))
  end)

  it("runs procedures of the caller", function()
    local bus = Bus.new(scripted { "\xE5" })
    local result = bus:run(function(link, text)
      local ends = link:send(text)
      return (link:receive(ends + 1))
    end, "hello")
    assert.equal("\xE5", result)
    local _, err = bus:run(function() return nil, Error.new("limit", "enough") end)
    assert.equal("ttyTEST: enough", tostring(err))
    assert.has_error(function() bus:run("read") end, "a procedure is a function, not string")
  end)

  it("closes once, and then says so", function()
    local transport = scripted {}
    do
      local bus <close> = Bus.new(transport)
      bus:close()
      bus:close()
      local none, err = bus:read(5)
      assert.is_nil(none)
      assert.equal("ttyTEST: the bus is closed", tostring(err))
    end
    assert.equal(1, transport.closed)
  end)

  it("closes when nobody holds it", function()
    local transport = scripted {}
    Bus.new(transport)
    collectgarbage()
    collectgarbage()
    assert.equal(1, transport.closed)
  end)

  it("closes when nobody holds it, also after others that were closed or forgotten", function()
    local transports = {}
    for i = 1, 6 do
      transports[i] = scripted {}
      local bus = Bus.new(transports[i])
      if i % 3 == 0 then bus:close() end
      if i % 3 == 1 then
        bus = nil -- luacheck: ignore
        collectgarbage()
      end
    end
    collectgarbage()
    collectgarbage()
    for i, transport in ipairs(transports) do assert.equal(1, transport.closed, i) end
  end)

  -- When memory is short, Lua collects without running finalizers, and keeps all that they could see.
  it("once closed is collected without a finalizer", function()
    local held = setmetatable({}, { __mode = "k" })
    for _ = 1, 3 do
      local bus <close> = Bus.new(scripted {})
      held[bus] = true -- a key that has a finalizer stays for one more collection
    end
    collectgarbage()
    assert.is_nil(next(held))
  end)
end)

describe("a program that ends without closing its bus", function()
  it("ends well", function()
    local helper = require "spec.helper"
    for _, serve in ipairs { "tcp", "pty" } do
      local status, out, err = helper.shell(helper.environment() .. "lua5.4 -e " .. helper.quote(([[
        local mbus = require "mbus"
        local served = assert(require("mbus.simulator.server").%s(mbus.simulator.new "house"))
        local bus = assert(mbus.open(served.path or "tcp://127.0.0.1:" .. served.port))
        print(assert(bus:read(10)).id)]]):format(serve)))
      assert.same({ 0, "82969010\n", "" }, { status, out, err })
    end
  end)
end)

describe("requests of several coroutines to one bus", function()
  it("wait for each other in order", function()
    local bus, order, frames = real_bus(), {}, 0
    local inside = false
    for a = 1, 5 do
      mbus.spawn(function()
        local readout = assert(bus:read(a, { trace = function(direction, bytes)
          frames = frames + 1
          if direction == "SEND" then
            assert.equal(a, bytes:byte(3))
            if bytes:byte(2) == 0x40 then
              assert.is_false(inside)
              inside = true
            end
          elseif #bytes > 1 then
            inside = false
          end
        end }))
        order[#order + 1] = readout.telegrams[1].a
      end)
    end
    mbus.run()
    assert.same({ 1, 2, 3, 4, 5 }, order)
    assert.equal(20, frames)
    bus:close()
  end)

  it("fail with closed when the bus is closed, those that wait too", function()
    local bus, kinds = real_bus(), {}
    for a = 1, 3 do
      mbus.spawn(function()
        local _, err = bus:read(a)
        kinds[a] = err and err.kind
      end)
    end
    mbus.spawn(function()
      require("mbus.runtime").sleep(0.01)
      bus:close()
    end)
    mbus.run()
    assert.same({ "closed", "closed", "closed" }, kinds)
  end)

  it("leave the bus to the next when one is given up", function()
    local bus, got = real_bus(), nil
    local first = mbus.spawn(function() bus:read(1) end)
    mbus.spawn(function() got = bus:read(2) end)
    mbus.spawn(function()
      require("mbus.runtime").sleep(0.01)
      assert(coroutine.close(first))
    end)
    mbus.run()
    assert.equal(2, got.telegrams[1].a)
    bus:close()
  end)
end)

describe("a coroutine that fails", function()
  it("leaves its scan with nobody selected, and the bus to others", function()
    local sent = {}
    local bus = assert(mbus.open("sim:", { trace = function(direction, bytes)
      if direction == "SEND" then sent[#sent + 1] = core.hex(bytes) end
    end }))
    mbus.spawn(function()
      for _ in bus:scan { secondary = true } do error "the caller's" end
    end)
    assert.error_matches(mbus.run, "the caller's")
    assert.equal("10 40 FD 3D 16", sent[#sent])
    assert.truthy(bus:read(10))
  end)
end)

describe("a bus driven by hand", function()
  it("says what is wrong with the order of calls", function()
    local bus = mbus.open("manual:")
    assert.has_error(function() bus:wants() end, "no request was begun")
    assert.has_error(function() bus:feed("", 0) end, "no request was begun")
    assert.has_error(function() bus:read(5) end, "this bus is driven by hand: use begin, wants and feed")
    assert.has_error(function() bus:begin("dance") end, "unknown request: dance")
    assert.equal("invalid", select(2, bus:begin("read", 252)).kind)
    assert.is_true(bus:begin("read", 5))
    assert.has_error(function() bus:begin("read", 5) end, "a request is under way")
  end)

  it("needs no times before the first feed", function()
    local bus = mbus.open("manual:", { name = "uart1" })
    bus:begin("read", 5)
    assert.equal("drain", (bus:wants()))
    bus:feed("", 777.0)
    assert.same({ "send", "\x10\x40\x05\x45\x16" }, { bus:wants() })
    bus:feed("", 777.0)
    local what, deadline = bus:wants()
    assert.equal("receive", what)
    assert.near(777 + 396 / 2400 + 0.15, deadline, 1e-9)
  end)

  it("can be told that the line is broken", function()
    local bus = mbus.open("manual:", { name = "uart1" })
    bus:begin("read", 5)
    bus:feed("", 1)
    bus:fail("unplugged")
    local what, result, err = bus:wants()
    assert.same({ "done", "uart1: address 5: unplugged (1 try, 0.00 s)" }, { what, tostring(err) })
    assert.is_nil(result)
    assert.is_true(bus:begin("read", 5))
  end)

  it("says where it is fed wrongly", function()
    local bus = mbus.open("manual:")
    bus:begin("read", 5)
    for _, case in ipairs { { nil, 0, "bytes are a string, not nil" }, { "", nil, "a time is a number, not nil" },
      { "", "0", "a time is a number, not string" }, { "", 0 / 0, "a time is a number, not " } } do
      local ok, message = pcall(function() bus:feed(case[1], case[2]) end)
      assert.is_false(ok)
      assert.matches("bus_spec.lua:%d+: " .. case[3], message)
    end
    bus:feed("", 0)
  end)

  it("ends its request with closed", function()
    local bus = mbus.open("manual:")
    bus:begin("read", 5)
    bus:close()
    local what, _, err = bus:wants()
    assert.same({ "done", "closed" }, { what, err.kind })
    assert.equal("closed", select(2, bus:begin("read", 5)).kind)
  end)
end)
