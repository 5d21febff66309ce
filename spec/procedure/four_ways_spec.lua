-- The same readout, driven in four ways: blocking, in coroutines on several buses at once, by hand, and on the
-- simulator's virtual clock. What is sent, what comes back and what is made of it are the same.
local core = require "mbus.core"
local mbus = require "mbus"
local runtime = require "mbus.runtime"
local server = require "mbus.simulator.server"

local HEADER = "47 27 89 31 24 23 28 04 %02X 00 00 00 "
local FIRST = HEADER:format(1) .. "0C 05 31 84 74 01 0C 12 91 72 64 02 1F"
local SECOND = HEADER:format(2) .. "0A 5A 22 05 0A 5E 23 04 04 6D 21 16 0A 39"

local DESCRIPTION = {
  baudrate = 9600,
  meters = {
    { address = 5, telegrams = { { data = FIRST }, { data = SECOND } }, delay = 0.05 },
    { address = 6, telegrams = { { data = "01 00 00 10 2D 2C 40 0D 01 00 00 00 0C 05 78 56 34 12" } }, delay = 0.02 },
  },
}

local ADDRESSES = { 5, "31892747FFFFFFFF", 6, "100000012D2C400D", 7 }

local function simulate() return assert(mbus.simulator.new(DESCRIPTION)) end

-- What is to be the same: frames, and all that was read or the error.
local function recorder()
  local seen = {}
  local trace = function(direction, bytes) seen[#seen + 1] = direction .. " " .. core.hex(bytes) end
  local function keep(readout, err)
    if not readout then
      seen[#seen + 1] = err.kind .. ": " .. err.message
      return
    end
    seen[#seen + 1] = ("%s %s %d"):format(readout.id, readout.manufacturer, #readout)
    for index, quantity, value, unit in readout:each() do
      seen[#seen + 1] = ("%d %s %s %s"):format(index, quantity, value, unit)
    end
  end
  return seen, trace, keep
end

local function read_all(bus, keep)
  for _, address in ipairs(ADDRESSES) do keep(bus:read(address)) end
end

local function options(trace) return { trace = trace, baudrate = 9600, retries = 1 } end

local function blocking(open)
  local seen, trace, keep = recorder()
  local served = assert(open(simulate()))
  local bus = assert(mbus.open(served.path or ("tcp://%s:%d"):format(served.host, served.port), options(trace)))
  read_all(bus, keep)
  bus:close()
  served:close()
  return seen
end

local function in_coroutines(count)
  local results, served = {}, {}
  for i = 1, count do served[i] = assert(server.tcp(simulate())) end
  for i = 1, count do
    mbus.spawn(function()
      local trace, keep
      results[i], trace, keep = recorder()
      local bus = assert(mbus.open(("tcp://127.0.0.1:%d"):format(served[i].port), options(trace)))
      read_all(bus, keep)
      bus:close()
      served[i]:close()
    end)
  end
  mbus.run()
  return results
end

-- As a firmware would, with the simulator in place of the UART.
local function drive(bus, sim, now)
  while true do
    local what, argument, err = bus:wants()
    if what == "done" then return now, argument, err end
    if what == "send" then
      sim:receive(argument, now)
      bus:feed("", now)
    elseif what == "drain" then
      bus:feed(sim:take(now), now)
    else
      now = math.max(now, math.min(argument, sim:next() or argument))
      local bytes, errors = sim:take(now)
      bus:feed(bytes, now, errors)
    end
  end
end

local function by_hand()
  local seen, trace, keep = recorder()
  local sim, now = simulate(), 12345.678
  local bus = assert(mbus.open("manual:", options(trace)))
  for _, address in ipairs(ADDRESSES) do
    assert(bus:begin("read", address))
    local readout, err
    now, readout, err = drive(bus, sim, now)
    keep(readout, err)
  end
  return seen
end

local function virtual()
  local seen, trace, keep = recorder()
  local transport = simulate():transport()
  local bus = assert(mbus.open(transport, options(trace)))
  read_all(bus, keep)
  return seen, transport:now()
end

describe("a readout", function()
  local expected, duration = virtual()

  it("gives what the meters hold, on the virtual clock", function()
    local text = table.concat(expected, "\n")
    assert.matches("31892747 HYD 5\n0 energy 174843100 Wh\n1 volume 264.7291 m3\n3 flow_temperature", text)
    assert.matches("10000001 KAM 1\n0 energy", text)
    assert.matches("\ntimeout: no answer$", text)
    assert.is_true(duration > 1)
  end)

  it("is the same by hand", function() assert.same(expected, by_hand()) end)

  local alone
  it("is the same blocking, over TCP", function()
    local began = runtime.now()
    assert.same(expected, blocking(server.tcp))
    alone = runtime.now() - began
  end)

  it("is the same blocking, over a serial port", function() assert.same(expected, blocking(server.pty)) end)

  it("is the same in coroutines, on several buses at once", function()
    local began = runtime.now()
    local results = in_coroutines(8)
    local took = runtime.now() - began
    for i = 1, 8 do assert.same(expected, results[i]) end
    -- one after another they would take eight times as long
    assert.is_true(took < 3 * alone, ("%.2f s for 8 buses, %.2f s for one"):format(took, alone))
  end)
end)
