local core = require "mbus.core"
local runtime = require "mbus.runtime"
local simulator = require "mbus.simulator"
local open_url = require("mbus.transport").open

local CHARACTER = 11 / 2400
local NKE_5 = core.short(0x40, 5)

local function transport_to(description) return assert(simulator.new(description)):transport() end

describe("the transport to a simulated bus", function()
  it("reads byte by byte and moves its clock to each", function()
    local transport = transport_to { meters = { { address = 5, delay = 0.05, telegrams = { { data = "00" } } } } }
    assert.equal(0, transport:now())
    assert.is_true(transport:write(core.short(0x7B, 5)))
    assert.equal(0, transport:now())
    for i = 1, 10 do
      local bytes, errors = transport:read(1)
      assert.same({ 1, 0 }, { #bytes, errors })
      assert.near((5 + i) * CHARACTER + 0.05, transport:now(), 1e-9)
    end
    local before = transport:now()
    assert.equal("", (transport:read(0.5)))
    assert.near(before + 0.5, transport:now(), 1e-9)
  end)

  it("polls with 0 and never reads ahead", function()
    local transport = transport_to { meters = { { address = 5, delay = 0.05 } } }
    transport:write(NKE_5)
    assert.equal("", (transport:read(0)))
    assert.equal("", (transport:read(0.07)))
    assert.near(0.07, transport:now(), 1e-9)
    assert.equal("\xE5", (transport:read(0.1)))
  end)

  it("still takes a byte that is complete at the deadline itself", function()
    local transport = transport_to { meters = { { address = 5, late = 0 } } }
    for _ = 1, 100 do
      transport:sleep(0.1)
      transport:write(NKE_5)
      assert.equal("\xE5", (transport:read(55 / 2400 + 341 / 2400 + 0.05)))
    end
  end)

  it("counts damaged characters", function()
    local transport = transport_to { meters = { { delay = 0.05 }, { delay = 0.05 + 1 / 2400 } } }
    transport:write(core.short(0x40, 0))
    assert.same({ "\xC0", 1 }, { transport:read(1) })
  end)

  it("waits on behind characters that the gateway drops", function()
    local transport = transport_to { converter = { damaged = "drop" },
      meters = { { delay = 0.05 }, { delay = 0.05 + 1 / 2400 }, { delay = 0.1 } } }
    transport:write(core.short(0x40, 0))
    assert.same({ "\xE5", 0 }, { transport:read(1) })
    assert.near(5 * CHARACTER + 0.1 + CHARACTER, transport:now(), 1e-9)
  end)

  it("drains what has come, sleeps, and closes", function()
    local transport = transport_to { meters = { { address = 5, delay = 0.05 } } }
    transport:write(NKE_5)
    transport:sleep(1)
    assert.near(1, transport:now(), 1e-9)
    assert.equal("\xE5", transport:drain())
    assert.equal("", transport:drain())
    transport:close()
    transport:close()
    for _, try in ipairs { function() return transport:write("x") end, function() return transport:read(1) end,
      function() return transport:drain() end } do
      local result, err = try()
      assert.is_nil(result)
      assert.equal("closed", err.kind)
    end
  end)

  it("changes the baud rate of the master", function()
    local transport = transport_to { meters = { { address = 5, baudrate = 9600 } } }
    transport:write(NKE_5)
    assert.equal("", (transport:read(1)))
    assert.is_true(transport:set_baudrate(9600))
    assert.same({ 9600, 33 / 9600 }, { transport.baudrate, transport.gap })
    transport:write(NKE_5)
    assert.equal("\xE5", (transport:read(1)))
  end)

  it("opens a description file, at the baud rate that it names", function()
    local transport = assert(open_url "sim:spec/fixtures/sim_small.lua")
    assert.same({ "sim:spec/fixtures/sim_small.lua", 9600, 0, 33 / 9600 },
      { transport.name, transport.baudrate, transport.margin, transport.gap })
    transport:write(core.short(0x40, 2))
    assert.equal("\xE5", (transport:read(1)))
  end)

  it("lets the caller choose baud rate, margin and gap", function()
    local transport = assert(open_url("sim:spec/fixtures/sim_small.lua", { baudrate = 300, margin = 0.5, gap = 0.7 }))
    assert.same({ 300, 0.5, 0.7 }, { transport.baudrate, transport.margin, transport.gap })
    transport:write(core.short(0x40, 2))
    assert.equal("", (transport:read(3)))
  end)

  it("takes the clock of the computer if asked", function()
    local transport = assert(open_url "sim:spec/fixtures/sim_small.lua?clock=real")
    local start = runtime.now()
    transport:write(core.short(0x40, 2))
    assert.equal("\xE5", (transport:read(1)))
    local took, least = runtime.now() - start, 66 / 9600 + 0.02
    assert.is_true(took >= least and took < least + 0.05, ("%.4f s instead of %.4f s"):format(took, least))
  end)

  it("names options that it does not know", function()
    local _, err = open_url "sim:spec/fixtures/sim_small.lua?speed=9"
    assert.same({ "invalid", 'unknown option "speed" (sim has: clock)' }, { err.kind, err.message })
    _, err = open_url "sim:spec/fixtures/sim_small.lua?clock=sun"
    assert.same({ "invalid", 'bad clock "sun" (allowed: real, virtual)' }, { err.kind, err.message })
    _, err = open_url "sim:spec/fixtures/sim_nothing.lua"
    assert.equal("not_found", err.kind)
  end)
end)
