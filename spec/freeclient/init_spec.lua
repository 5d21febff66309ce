-- The host of free-client scripts, on simulated and real lines, with our own script and with scripts that misbehave.
local freeclient = require "mbus.freeclient"
local import = require "mbus.freeclient.config"
local mbus = require "mbus"
local server = require "mbus.simulator.server"
local helper = require "spec.helper"

local SCRIPT = helper.read "examples/freeclient/mbus.lua"

-- A bus of one device with one writable point of each kind.
local function bus(changes)
  local result = { type = "rs485", tag = "T", baudrate = 2400, devices = { { tag = "D", points = {
    { tag = "A", obj_type = "a" }, { obj_type = "b", read_only = false },
    { obj_type = "m", commandable = true, max_value = 3 } } } } }
  for name, value in pairs(changes or {}) do result[name] = value end
  return result
end

local function start(source, options)
  options = options or {}
  options.bus, options.name, options.print = options.bus or bus(), "test.lua", options.print or function() end
  return freeclient.new("local swg, mbus = swg, mbus\n" .. source, options)
end

-- Runs a script on the simulated house and returns what it printed, and how it ended.
local function play(source, options, seconds, url)
  local lines = {}
  options = options or {}
  options.print = function(text) lines[#lines + 1] = text end
  local host, err = start(source, options)
  if not host then return lines, err end
  local line <close> = assert(mbus.open(url or "sim:"))
  local ok
  ok, err = host:run(line, seconds or 100)
  assert.is_true(ok or err ~= nil)
  return lines, err, host
end

describe("a run of limited time", function()
  it("ends then, whatever the script waits for, and the next goes on with it", function()
    local calls = 0
    local host = assert(start([[
      local function later() print "again" swg.timer(0, 3600000, later) end
      return swg.interface_rs485, function() swg.timer(0, 3600000, later) end]], { print = function() calls = calls + 1 end }))
    local line <close> = assert(mbus.open "sim:")
    local began = line.transport:now()
    assert.is_true(host:run(line, 1))
    assert.near(1, line.transport:now() - began, 0.01)
    assert.equal(0, calls)
    assert.is_true(host:run(line, 3600))
    assert.equal(1, calls)
  end)
end)

local INIT = "return swg.interface_rs485 | swg.interface_tcp, function(ctx) %s end"

local function init(body, ...) return play(INIT:format(body), ...) end

describe("our M-Bus script", function()
  local function read(tags, interval, seconds, description, tag)
    local devices = {}
    for i, device in ipairs(tags) do
      local points = {}
      for j = 2, #device do points[j - 1] = { tag = device[j] } end
      devices[i] = { tag = device[1], points = points }
    end
    local seen = {}
    local host = assert(freeclient.new(SCRIPT, { name = "mbus.lua", print = function(text) seen[#seen + 1] = text end,
      bus = { type = "rs485", baudrate = 2400, tag = ("update_interval=%d"):format(interval) .. (tag or ""), devices = devices },
      update = function(...) seen[#seen + 1] = table.concat({ ("%s %s %s %s"):format(...) }) end,
      status = function(device, online) seen[#seen + 1] = ("%d %s"):format(device, online and "online" or "offline") end }))
    local frames = {}
    local sim = assert(mbus.simulator.new(description))
    local line <close> = assert(mbus.open(sim, { trace = function(direction, bytes)
      frames[#frames + 1] = direction .. " " .. mbus.hex(bytes:sub(1, 5), "")
    end }))
    assert(host:run(line, seconds))
    return seen, frames, host, sim
  end

  it("reads by primary and by secondary address, with wildcards, and scales the number on the wire", function()
    local seen = read({ { "addr=10", "id=0", "id=1, scale=10" }, { 'addr="f189274724f32804"', "id=0, scale=100", "id=13" },
      { 'addr="31892747"', "id=3" } }, 60000, 30)
    assert.same({ "1 online", "1 1 82969010.0 0", "1 2 183420.0 0", "2 online", "2 1 174843100.0 0", "2 2 160302.0 0",
      "3 online", "3 1 0.0 0" }, seen)
  end)

  it("sends SND_NKE before each readout with force_reset, and only at first without", function()
    local function resets(tag)
      local _, frames = read({ { "addr=10", "id=0" } }, 10000, 45, nil, tag)
      local count = 0
      for _, frame in ipairs(frames) do if frame == "SEND 10400A4A16" then count = count + 1 end end
      return count
    end
    assert.equal(5, resets ", force_reset=true")
    assert.equal(1, resets "")
  end)

  it("reads all telegrams of a meter, and counts manufacturer's data as a record", function()
    local HEADER = "47 27 89 31 24 23 28 04 01 00 00 00 "
    local seen = read({ { "addr=5", "id=0", "id=2", "id=3", "id=4" } }, 10000, 15, { baudrate = 2400, meters = {
      { address = 5, telegrams = { { data = HEADER .. "0C 05 31 84 74 01 0C 12 91 72 64 02 1F" },
        { data = HEADER:gsub(" 01 00", " 02 00") .. "0A 5A 22 05" } } } } })
    assert.same({ "1 online", "1 1 1748431.0 0", "1 2 nil 7", "1 3 522.0 0", "1 4 nil 7", "1 1 1748431.0 0", "1 2 nil 7",
      "1 3 522.0 0", "1 4 nil 7" }, seen)
  end)

  it("tries a meter that does not answer less often, and tells when it is back", function()
    local seen, frames, _, sim = read({ { "addr=99", "id=0" }, { "addr=10", "id=0" } }, 10000, 95, nil, ", offline_interval=40000")
    assert.equal("1 offline", seen[1])
    assert.equal("1 1 nil 12", seen[2])
    local polled, tried = 0, 0
    for _, frame in ipairs(frames) do
      if frame:find "^SEND 10[57]B63" then tried = tried + 1 end
      if frame:find "^SEND 10[57]B0A" then polled = polled + 1 end
    end
    assert.equal(10, polled)
    assert.equal(4, tried) -- three times at first, and once with the first poll behind 40 seconds
    assert.equal(0, sim.statistics.overlaps)
  end)

  it("survives noise and damaged answers", function()
    local seen = read({ { "addr=5", "id=0" } }, 10000, 500, { baudrate = 2400, seed = 3, converter = { bit_flips = 0.002 },
      meters = { { address = 5, telegrams = { { data = "01 00 00 00 24 40 01 07 55 00 00 00 01 13 07" } } } } })
    local good = 0
    for _, text in ipairs(seen) do
      if text == "1 1 7.0 0" then good = good + 1 end
      assert.is_truthy(text:find "^1 1 7%.0 [01]2?$" or text == "1 1 nil 12" or text:find "line$", text)
    end
    assert.is_true(good > 20, tostring(good))
  end)

  it("takes no meter that a wildcard does not fit", function()
    local seen = read({ { 'addr="3189274724f42804"', "id=0" }, { 'addr="31892747242328f4"', "id=0, scale=0.1" } }, 60000, 30)
    assert.same({ "1 offline", "1 1 nil 12", "2 online", "2 1 174843.1 0" }, seen)
  end)

  it("takes no value that a point cannot have, and goes on", function()
    local points = { { tag = "id=0", obj_type = "m", max_value = 3 }, { tag = "id=1", obj_type = "m", max_value = 3 },
      { tag = "id=2", obj_type = "m" }, { tag = "id=3, scale=0.5", obj_type = "m" }, { tag = "id=4, scale=10" }, { tag = "id=5", obj_type = "b" },
      { tag = "id=6" }, { tag = "id=7, scale=0.1" } }
    local seen = {}
    local host = assert(freeclient.new(SCRIPT, { name = "mbus.lua", bus = { type = "rs485", baudrate = 2400, tag = "update_interval=10000",
      devices = { { tag = "addr=5", points = points } } },
      update = function(_, point, value, reliability) seen[point] = tostring(value) .. " " .. reliability end }))
    local sim = assert(mbus.simulator.new { meters = { { address = 5, telegrams = { { data = "78563412 2423 28 04 01 00 0000 "
      .. "01 FD3A 02 01 FD3A 04 01 FD3A 00 01 FD3A 03 07 FD3A FFFFFFFFFFFFFF7F 01 FD3A 01 05 FD3A 0000C07F 01 FD3A 03" } } } } })
    assert(host:run(assert(mbus.open(sim)), 15))
    assert.same({ "2 0", "nil 7", "nil 7", "nil 7", "9.2233720368548e+19 0", "true 0", "nil 7", "0.3 0" }, seen)
  end)

  it("names a wrong tag", function()
    for tag, message in pairs { ["addr=”5”"] = "tag of device 1", ["addr=251"] = "device 1: addr is 1 to 250", [""] = "device 1: addr is",
      ['addr="123"'] = "device 1: addr is" } do
      local host = assert(freeclient.new(SCRIPT, { name = "mbus.lua", bus = { type = "rs485", devices = { { tag = tag } } } }))
      local ok, err = host:run(assert(mbus.open "sim:"), 10)
      assert.is_nil(ok)
      assert.matches(message, tostring(err), 1, true)
    end
  end)

  local function over(type, url, wait)
    local host
    local values = {}
    host = assert(freeclient.new(SCRIPT, { name = "mbus.lua", bus = { type = type, baudrate = 9600, tag = "update_interval=50",
      devices = { { tag = "addr=1", points = { { tag = "id=0, scale=10" } } }, { tag = "addr=2", points = { { tag = "id=0" } } } } },
      update = function(device, _, value)
        values[#values + 1] = device .. "=" .. tostring(value)
        if #values == 3 then host:stop() end
      end }))
    local line <close> = assert(mbus.open(url, { baudrate = 9600 }))
    assert(host:run(line))
    assert.same({ "1=10.0", "2=2.0", "1=10.0" }, values)
    if wait then wait() end
  end

  it("runs over TCP", function()
    local served <close> = assert(server.tcp(assert(mbus.simulator.new "spec/fixtures/sim_small.lua")))
    over("tcp", "tcp://127.0.0.1:" .. served.port)
  end)

  it("runs over a serial port, and several at once in coroutines", function()
    local finished = 0
    for _ = 1, 3 do
      local served = assert(server.pty(assert(mbus.simulator.new "spec/fixtures/sim_small.lua")))
      mbus.spawn(function()
        over("rs485", served.path)
        served:close()
        finished = finished + 1
      end)
    end
    mbus.run()
    assert.equal(3, finished)
  end)

  it("comes out of an export of a BACRouter and runs", function()
    local one = assert(import.buses(helper.read "spec/fixtures/bacrouter_bus.json"))[1]
    local values = {}
    local host = assert(freeclient.new(SCRIPT, { bus = one, update = function(device, point, value) values[device .. "." .. point] = value end }))
    local line <close> = assert(mbus.open "sim:")
    assert(host:run(line, 4))
    assert.same({ ["1.1"] = 82969010.0, ["1.2"] = 183420.0, ["2.1"] = 174843100.0, ["2.2"] = 160302.0 }, values)
  end)
end)

describe("a free-client script", function()
  it("returns its interfaces and init, or is refused", function()
    for source, message in pairs { ["return 1"] = "returns its interfaces and the function init", ["x ="] = "test.lua:2: ",
      ["return 1.5, print"] = "returns its interfaces", ["error 'oh'"] = "test.lua:2: oh", ["while true do end"] = "endless loop",
      ["return swg.interface_tcp, function() end"] = "not for a bus of type rs485", ["swg.timer(0, 1, print)"] = "not before init",
      ["error({})"] = "an error that is no text" } do
      local host, err = start(source)
      assert.is_nil(host)
      assert.equal("invalid", err.kind)
      assert.matches(message, tostring(err), 1, true)
    end
    assert.has_error(function() freeclient.new(5, {}) end, "a script is a string, not number")
    assert.has_error(function() freeclient.new("", {}) end, "options.bus with devices is needed")
    assert.has_error(function() freeclient.new("", { bus = { devices = {} } }) end, 'the type of a bus is "rs485" or "tcp"')
  end)

  it("gets a context", function()
    local lines = init [[print(ctx.type, ctx.tag, ctx.baudrate, #ctx.devices, ctx.devices[1].tag)
      for i, p in ipairs(ctx.devices[1].points) do print(i, p.tag, p.obj_type, p.read_only, p.commandable, p.max_value) end]]
    assert.same({ "1\tT\t2400\t1\tD", "1\tA\ta\ttrue\tfalse\tnil", "2\t\tb\tfalse\tfalse\tnil", "3\t\tm\tfalse\ttrue\t3" }, lines)
  end)

  it("has the constants", function()
    local lines = init [[print(swg.rs485_maxlength, swg.rs485error_busmess, swg.rs485error_noreply, swg.rs485error_byte,
      swg.rs485error_overflow, swg.tcperror_timeout, swg.tcperror_read, swg.tcperror_write, swg.tcperror_connect,
      swg.interface_rs485, swg.interface_tcp)]]
    assert.same({ "2048\t-1\t-2\t-3\t-5\t-1\t-2\t-3\t-4\t1\t2" }, lines)
  end)

  it("waits in milliseconds, and gets ctx first", function()
    local lines, err, host = play [[local began
      local function again(ctx, ...)
        print(swg.now() - began, ctx.mine, select("#", ...))
        swg.timer(0, 500, again)
      end
      return 3, function(ctx) ctx.mine, began = "yes", swg.now() swg.timer(0, 1500, again) end]]
    assert.is_nil(err)
    assert.same({ "1500.0\tyes\t0", "2000.0\tyes\t0" }, { lines[1], lines[2] })
    assert.equal(198, #lines)
    assert.is_nil(host.error)
  end)

  it("sends and receives on RS485", function()
    local lines = init [[swg.sndrcv485(mbus.unhex "10400A4A16", 20, 300, 10, function(ctx, result, data)
      print(ctx.tag, result, mbus.hex(data))
      swg.sndrcv485(mbus.short(0x7B, 10), 20, 300, 261, function(_, result, data)
        local telegram = mbus.decode(data)
        print(result, #data, telegram.id, #telegram.records, telegram.records[2].raw, telegram.records[2].value)
        swg.sndrcv485(mbus.short(0x5B, 10), 20, 300, 50, function(_, result, data)
          print(result, #data)
          swg.sndrcv485(mbus.short(0x5B, 99), 20, 300, 261, function(_, result, data) print(result, #data) end)
        end)
      end)
    end)]]
    assert.same({ "T\t1\tE5", "173\t173\t82969010\t26\t18342\t18342000", "-5\t50", "-2\t0" }, { lines[1],
      (lines[2]:gsub("\t(%d+)\t18342\t.*", "\t26\t18342\t18342000")), lines[3], lines[4] })
  end)

  it("is told of damaged characters", function()
    local description = { baudrate = 2400, meters = {
      { address = 1, telegrams = { { data = "01 00 00 00 24 40 01 07 55 00 00 00 01 13 01" } }, delay = 0.03 },
      { address = 2, telegrams = { { data = "02 00 00 00 24 40 01 07 55 00 00 00 01 13 02" } }, delay = 0.0312 } } }
    local printed = {}
    local host = assert(start(INIT:format [[swg.sndrcv485(mbus.short(0x7B, 254), 0, 300, 261, function(_, result) print(result) end)]],
      { print = function(text) printed[1] = text end }))
    host:run(assert(mbus.open(assert(mbus.simulator.new(description)))), 5)
    assert.same({ "-3" }, printed)
  end)

  it("runs over TCP, receives in pieces, resets, and is told what went wrong", function()
    local served <close> = assert(server.tcp(assert(mbus.simulator.new "spec/fixtures/sim_small.lua")))
    local lines = {}
    local host = assert(start(INIT:format [[
      swg.sndrcvtcp(mbus.short(0x7B, 1), 4, 4, 1000, function(_, result, data)
        print(result, mbus.hex(data))
        swg.sndrcvtcp(nil, 2, 300, 1000, function(_, result)
          print(result > 1)
          swg.tcpreset()
          swg.sndrcvtcp(mbus.short(0x40, 2), 1, 1, 1000, function(_, result, data)
            print(result, mbus.hex(data))
            swg.sndrcvtcp(nil, 1, 1, 50, function(_, result) print(result) end)
          end)
        end)
      end)]], { bus = bus { type = "tcp" }, print = function(text) lines[#lines + 1] = text end }))
    local line = assert(mbus.open("tcp://127.0.0.1:" .. served.port, { baudrate = 9600 }))
    local ok, err = host:run(line)
    line:close()
    assert.is_nil(ok)
    assert.equal("closed", err.kind)
    assert.same({ "4\t68 12 12 68", "true", "1\tE5", "-1" }, lines)
    assert.equal(2, served.clients)
  end)

  it("is told that nobody is there, and does not spin", function()
    local served = assert(server.tcp(assert(mbus.simulator.new "spec/fixtures/sim_small.lua")))
    local line <close> = assert(mbus.open("tcp://127.0.0.1:" .. served.port .. "?connect_timeout=0.05"))
    served:close()
    local results = {}
    local host = assert(start([[local function try(_, result)
        if result then print(result) end
        swg.sndrcvtcp(mbus.short(0x40, 1), 1, 1, 100, try)
      end
      return 3, try]], { bus = bus { type = "tcp" }, print = function(text) results[#results + 1] = text end }))
    assert(host:run(line, 0.5))
    assert.is_true(#results >= 2 and #results <= 6, #results .. " tries")
    for _, result in ipairs(results) do assert.matches("^%-[234]$", result) end
  end)

  it("updates points, and reads them back", function()
    local updates, online = {}, {}
    local lines = init([[print(swg.pointvalue(1, 1))
      swg.updatepoint(1, 1, 21.5, 0) swg.updatepoint(1, 2, true, 0) swg.updatepoint(1, 3, 2, 0)
      swg.updatepoint(1, 1, nil, 7) swg.updatepoint(1, 2, nil, nil)
      print(swg.pointvalue(1, 1)) print(swg.pointvalue(1, 2)) print(swg.pointvalue(1, 3))
      swg.onoff(1, true) swg.onoff(1, true) swg.onoff(1, false)]],
      { update = function(...) updates[#updates + 1] = { ... } end, status = function(...) online[#online + 1] = { ... } end })
    assert.same({ "nil\tnil", "21.5\t7", "true\t0", "2\t0" }, lines)
    assert.same({ { 1, 1, 21.5, 0 }, { 1, 2, true, 0 }, { 1, 3, 2, 0 }, { 1, 1, 21.5, 7 } }, updates)
    assert.same({ { 1, true }, { 1, false } }, online)
  end)

  it("gets what is written", function()
    local host = assert(start [[local function look()
        local d, p, v = swg.firstwrite()
        if d then print(d, p, v, swg.getwrite(1, 3)) end
        swg.timer(0, 10, look)
      end
      return 3, look]])
    local lines = {}
    host.box.print = function(text) lines[#lines + 1] = text end
    assert(host:write(1, 2, true))
    assert(host:write(1, 3, 1))
    assert(host:write(1, 3, 2))       -- overtakes the one before
    local line <close> = assert(mbus.open "sim:")
    assert(host:run(line, 0.05))
    assert(host:write(1, 3, nil))
    assert(host:run(line, 0.05))
    assert.same({ "1\t2\ttrue\t2", "1\t3\t2\t2", "1\t3\tnil\tnil" }, lines)
    for _, case in ipairs { { 1, 1, 5 }, { 1, 2, 5 }, { 1, 3, 4 }, { 1, 2, nil } } do
      local ok, err = host:write(table.unpack(case, 1, 3))
      assert.is_nil(ok)
      assert.equal("invalid", err.kind)
    end
    assert.has_error(function() host:write(2, 1, 1) end, "no such point")
  end)

  it("does one thing at a time", function()
    local _, err = init "swg.timer(0, 1, print) swg.timer(0, 1, print)"
    assert.matches("test.lua:2: swg.timer: one operation at a time, and swg.timer is under way", tostring(err), 1, true)
    _, err = init "swg.timer(0, 1, print) swg.sndrcv485('x', 1, 1, 1, print)"
    assert.matches("one operation at a time", tostring(err))
  end)

  it("is told of wrong arguments at its line", function()
    for body, message in pairs {
      ["swg.timer(1, 2, print)"] = "the first argument is 0", ["swg.timer(0, 'x', print)"] = "the time is a number, not string",
      ["swg.timer(0, 0/0, print)"] = "the time is a number", ["swg.timer(0, 5)"] = "the callback is a function, not nil",
      ["swg.sndrcv485('', 1, 1, 1, print)"] = "a packet has 1 to 2048 bytes, not 0",
      ["swg.sndrcv485(('x'):rep(2049), 1, 1, 1, print)"] = "a packet has 1 to 2048 bytes, not 2049",
      ["swg.sndrcv485(5, 1, 1, 1, print)"] = "the packet is a string, not number",
      ["swg.sndrcv485('x', -1, 1, 1, print)"] = "the idle time is from 0 to 60000, not -1",
      ["swg.sndrcv485('x', 1, math.huge, 1, print)"] = "the timeout is from 0",
      ["swg.sndrcv485('x', 1, 1, 2049, print)"] = "maxlen is from 1 to 2048",
      ["swg.sndrcvtcp('x', 1, 1, 1, print)"] = "this bus is no tcp one", ["swg.tcpreset()"] = "this bus is no tcp one",
      ["swg.updatepoint(2, 1, 1, 0)"] = "the device is from 1 to 1, not 2", ["swg.updatepoint(1, 0, 1, 0)"] = "the point is from 1 to 3, not 0",
      ["swg.updatepoint(1, 1, 'x', 0)"] = "the value of this point is a number, not string",
      ["swg.updatepoint(1, 1, 0/0, 0)"] = "NaN", ["swg.updatepoint(1, 2, 1, 0)"] = "is a boolean, not number",
      ["swg.updatepoint(1, 3, 4, 0)"] = "the value is from 1 to 3, not 4", ["swg.updatepoint(1, 3, 1.5, 0)"] = "the value is a whole number",
      ["swg.updatepoint(1, 1, 1, 'x')"] = "the reliability is a number", ["swg.pointvalue()"] = "the device is a number, not nil",
      ["swg.onoff(1, 1)"] = "true or false, not number", ["mbus.decode(5)"] = "bytes are a string, not number",
      ["mbus.short('x')"] = "bad argument", ["nothing()"] = "nothing", ["error('mine', 0)"] = "mine", ["while true do end"] = "endless loop" } do
      local _, err = init(body)
      assert.equal("invalid", err.kind)
      assert.matches(message, tostring(err), 1, true)
    end
  end)

  it("ends when it waits for nothing", function()
    local _, err, host = init "print 'done'"
    assert.matches("the script has ended: its last call started nothing", tostring(err))
    assert.equal(err, host.error)
    assert.same({ nil, err }, { host:run(assert(mbus.open "sim:")) })
  end)

  it("fails alone: an error in a callback ends it, whatever it is", function()
    for _, body in ipairs { "swg.timer(0, 1, function() error({}) end)", "swg.timer(0, 1, function() local x = nil + 1 end)",
      "swg.timer(0, 1, function() while true do pcall(error) end end)", "swg.timer(0, 1, function() local s = 'x' while true do s = s .. s end end)",
      "local kept = {} local function f() kept[#kept + 1] = ('x'):rep(100000) .. #kept swg.timer(0, 1, f) end f()" } do
      local lines, err = init(body, nil, 1000)
      assert.same({}, lines)
      assert.equal("invalid", err.kind)
    end
  end)

  it("that never waits does not keep time from passing", function()
    local _, err = play("local function f() swg.timer(0, 0, f) end return 3, f", nil, 1)
    assert.is_nil(err)
    _, err = play("local function f() swg.timer(0, -1e9, f) end return 3, f", nil, 1)
    assert.is_nil(err)
  end)

  it("gets no object of ours", function()
    local lines = init [[local function walk(value, seen)
        if type(value) == "userdata" or type(value) == "thread" then print("found a " .. type(value)) end
        if type(value) ~= "table" or seen[value] then return end
        seen[value] = true
        for k, v in pairs(value) do walk(k, seen) walk(v, seen) end
        if getmetatable(value) then print("found a metatable") end
      end
      local seen = {}
      walk(_G, seen) walk(ctx, seen)
      walk(mbus.decode(mbus.unhex "68 13 13 68 08 05 72 78 56 34 12 24 40 01 07 55 00 00 00 0A 5A 20 02 DA 16"), seen)
      print(select(2, mbus.decode("x")), select(2, mbus.unhex("x")) ~= nil)
      mbus.decode, swg.now = nil, nil]]
    assert.equal(1, #lines)
    assert.is_function(mbus.decode)
    assert.is_function((init "print(mbus.decode ~= nil, swg.now ~= nil)") and mbus.decode)
  end)

  it("keeps what it has learnt between two runs, and stops when it is told to", function()
    local host
    host = assert(start([[local n = 0 local function f() n = n + 1 swg.updatepoint(1, 1, n, 0) swg.timer(0, 100, f) end return 3, f]],
      { update = function(_, _, n) if n == 50 then host:stop() end end }))
    local line <close> = assert(mbus.open "sim:")
    assert(host:run(line, 1))
    assert.is_true(math.abs(host:value(1, 1) - 11) <= 1)
    assert(host:run(line, 100))
    assert.equal(50, (host:value(1, 1)))
  end)

  -- A stream whose bytes come at their times after something was written, on a clock of its own.
  local function stream(answer)
    local self = { name = "stream", now_at = 0, coming = {} }
    function self.now() return self.now_at end
    function self.drain()
      local bytes = ""
      while self.coming[1] and self.coming[1].at <= self.now_at do bytes = bytes .. table.remove(self.coming, 1).bytes end
      return bytes
    end
    function self.read(_, seconds)
      local first = self.coming[1]
      self.now_at = math.max(self.now_at, math.min(self.now_at + seconds, first and first.at or math.huge))
      return self.drain()
    end
    function self.sleep(_, seconds) self.now_at = self.now_at + seconds end
    function self.close() end
    function self.write()
      for i, bytes in ipairs(answer) do self.coming[i] = { at = self.now_at + 0.1 * i, bytes = bytes } end
      return true
    end
    return self
  end

  it("is not asked any more once it is told to stop, whatever it waits for", function()
    for _, case in ipairs { { "rs485", "swg.sndrcv485('x', 0, 600000, 10, print)" },
      { "rs485", "swg.sndrcv485('x', 0, 1, 10, function() swg.sndrcv485('x', 60000, 100, 10, print) end)" },
      { "tcp", "swg.sndrcvtcp('x', 1, 2, 600000, print)" }, { "tcp", "swg.timer(0, 600000, print)" }, { "rs485", "swg.timer(0, 1e9, print)" } } do
      local printed, host, line = {}, nil, stream {}
      for _, name in ipairs { "read", "sleep" } do
        local fn = line[name]
        line[name] = function(...)
          if line.now_at > 2 then host:stop() end
          return fn(...)
        end
      end
      host = assert(start(INIT:format(case[2]), { bus = bus { type = case[1] }, print = function(text) printed[#printed + 1] = text end }))
      assert(host:run(assert(mbus.open(line))))
      assert.same({}, printed, case[2])
      assert.is_true(line.now_at < 4, case[2] .. " took " .. line.now_at)
    end
  end)

  it("loses no bytes of a TCP connection while it waits for a timer", function()
    local lines = {}
    local host = assert(start(INIT:format [[swg.sndrcvtcp("x", 4, 4, 1000, function(_, result, data)
      print(result, data)
      swg.timer(0, 500, function()
        print(swg.now())
        swg.sndrcvtcp(nil, 5, 9, 200, function(_, result, data) print(result, data) end)
      end)
    end)]], { bus = bus { type = "tcp" }, print = function(text) lines[#lines + 1] = text end }))
    host:run(assert(mbus.open(stream { "head", "bo", "dy!" })))
    assert.same({ "4\thead", "600.0", "5\tbody!" }, lines)
  end)

  it("cannot use what it is lent to fill our memory", function()
    local _, err = init "mbus.hex(('x'):rep(1000), ('y'):rep(1e6))"
    assert.matches("test.lua:2: mbus.hex: at most 65536 bytes, and 16 between them", tostring(err), 1, true)
    _, err = init "mbus.hex(('x'):rep(100000))"
    assert.matches("test.lua:2: mbus.hex: at most 65536 bytes", tostring(err), 1, true)
    for _, name in ipairs { "hex", "unhex" } do
      _, err = init("mbus." .. name .. "({})")
      assert.matches("test.lua:2: mbus." .. name .. ": a string is needed, not table", tostring(err), 1, true)
    end
    assert.same({ "0A-0B" }, (init "print(mbus.hex('\\n\\v', '-'))"))
  end)

  it("commands no terminal", function()
    local code = ([[local freeclient = require "mbus.freeclient"
      local host = freeclient.new("return 1, function() print(%s) error(%s) end",
        { bus = { type = "rs485", devices = {} }, name = "a" .. %s })
      io.stderr:write(tostring(select(2, host:begin(os.clock))))]]):gsub("%%s", [['\\27[2J\\7\\r\\nb\\tc\\u{9B}m']])
    local path = os.tmpname()
    helper.write(path, code)
    local _, _, err = helper.shell(helper.environment() .. "lua5.4 " .. path)
    os.remove(path)
    assert.matches("\\x1B[2J\\x07\\x0D\nb\tc\\x9Bm\n", err, 1, true)
    assert.is_nil(err:find "[\27\7\r\u{9B}]")
  end)

  it("cannot make us busy with what it says", function()
    local began = os.clock()
    local _, err = init "error(('\\1'):rep(4e6), 0)"
    assert.equal("\\x01\\x01", tostring(err):sub(1, 8))
    assert.is_true(#tostring(err) < 20000)
    local path = os.tmpname()
    helper.write(path, [[local freeclient = require "mbus.freeclient"
      local host = freeclient.new("return 1, function() print(('\\1'):rep(1e6)) end", { bus = { type = "rs485", devices = {} } })
      host:begin(os.clock)]])
    local _, _, printed = helper.shell(helper.environment() .. "lua5.4 " .. path)
    os.remove(path)
    assert.is_true(#printed > 4000 and #printed < 20000, #printed .. " bytes")
    _, err = init "mbus.decode(('h'):rep(4e6)) mbus.decode(('\\x68'):rep(4e6)) mbus.unhex(('6'):rep(4e6))"
    assert.is_truthy(err)
    assert.is_true(os.clock() - began < 2)
  end)

  it("ends with the bus", function()
    local host = assert(start [[local function f() swg.timer(0, 100, f) end return 3, f]])
    local line = assert(mbus.open "sim:")
    line:close()
    local ok, err = host:run(line, 1)
    assert.is_nil(ok)
    assert.equal("closed", err.kind)
  end)
end)
