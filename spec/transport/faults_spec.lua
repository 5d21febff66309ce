local mbus = require "mbus"
local gateways = require "spec.transport.gateways"
local runtime = require "mbus.runtime"

local BAUDRATE = 38400

-- What gateways do to a readout: which values, which errors, how long until the next good one.
describe("a readout over a gateway that", function()
  local addresses, truth = gateways.truth { 10, 12 }
  local there

  after_each(function() there:close() end)

  local function open(faults, options)
    there = gateways.tcp(gateways.house(BAUDRATE), faults)
    local all = { baudrate = BAUDRATE, banner = 0.02, backoff = 0.05, probe = 0.5 }
    for name, value in pairs(options or {}) do all[name] = value end
    return assert(mbus.open(there.url, all))
  end

  -- All meters, and one again: nothing wrong, only these errors, and in the end all is good.
  local function read_twice(bus, kinds)
    local first = gateways.read_all(bus, addresses, truth)
    local second = gateways.read_all(bus, { addresses[1] }, truth)
    for _, result in ipairs { first, second } do
      assert.equal(0, result.wrong)
      for kind in pairs(result.errors) do assert.is_true(kinds[kind] ~= nil, kind) end
    end
    assert.equal(1, second.good)
    return first
  end

  for _, fault in ipairs { "closes", "resets" } do
    it(fault .. ", in the middle of an answer: that request fails with closed, the next one is good", function()
      local bus <close> = open { fault = fault, after = 60 }
      local result = read_twice(bus, { closed = true })
      assert.same({ closed = 1 }, result.errors)
      assert.equal(#addresses - 1, result.good)
      assert.equal(2, there.accepted)
    end)
  end

  it("hangs: noticed when the probe is over", function()
    local bus <close> = open({ fault = "hangs", after = 60 }, { retries = 0 })
    local start = runtime.now()
    local result = gateways.read_all(bus, addresses, truth)
    while result.good < #addresses and runtime.now() - start < 10 do
      assert.equal(0, result.wrong)
      result = gateways.read_all(bus, addresses, truth)
    end
    assert.equal(#addresses, result.good)
    assert.equal(2, there.accepted)
  end)

  it("refuses for a while: the request waits for it", function()
    local bus <close> = open { fault = "refuses", after = 60, away = 0.4 }
    local result = read_twice(bus, { closed = true })
    assert.same({ closed = 1 }, result.errors)
    assert.is_true(result.longest >= 0.3)
  end)

  it("refuses for longer than a request waits", function()
    local bus <close> = open({ fault = "refuses", after = 60, away = 0.6 }, { connect_timeout = 0.2 })
    local start, results = runtime.now(), {}
    repeat
      local result = gateways.read_all(bus, addresses, truth)
      results[#results + 1] = result
      assert.equal(0, result.wrong)
      for kind in pairs(result.errors) do assert.is_true(kind == "closed" or kind == "refused", kind) end
      runtime.sleep(0.05)
    until result.good == #addresses or runtime.now() - start > 10
    assert.equal(#addresses, results[#results].good)
    assert.is_true(results[1].errors.refused > 0)
  end)

  it("sends one byte a packet", function()
    local bus <close> = open { delivery = "drip" }
    assert.equal(#addresses, gateways.read_all(bus, addresses, truth).good)
  end)

  it("is 300 ms away: it is measured", function()
    local bus <close> = open { delivery = "late", latency = 0.3 }
    assert.equal(#addresses, gateways.read_all(bus, addresses, truth).good)
    local margin = bus.transport.margin - bus.transport.held
    assert.is_true(margin > 0.6 and margin < 1.2, margin)
  end)

  it("delivers whole answers: the window has room for them", function()
    there = gateways.tcp(gateways.house(2400), { delivery = "whole" })
    local bus <close> = assert(mbus.open(there.url, { baudrate = 2400, retries = 0 }))
    local one = { addresses[1] }
    assert.equal(1, gateways.read_all(bus, one, truth).good)
    assert.near(261 * 11 / 2400, bus.transport.held, 0.001)
  end)

  it("glues an answer to the next one", function()
    local bus <close> = open { delivery = "whole", packing = 0.015, glue = 3 }
    assert.equal(#addresses, gateways.read_all(bus, addresses, truth).good)
  end)

  it("never stops talking: a request ends in time", function()
    local bus <close> = open({ chatter = 0.01 }, { retries = 0, margin = 0.1, gap = 0.1 })
    local start = runtime.now()
    local readout, err = bus:read(addresses[1])
    assert.is_nil(readout)
    assert.is_true(err.kind == "noise" or err.kind == "collision" or err.kind == "checksum", err.kind)
    assert.is_true(runtime.now() - start < 3)
  end)

  it("greets, and serves one client only", function()
    local bus <close> = open({ greeting = "Gateway 1.0\r\n", exclusive = true }, { banner = 0.1 })
    local other, err = require("mbus.transport").open(there.url)
    assert.is_nil(other)
    assert.equal("busy", err.kind)
    assert.equal(1, gateways.read_all(bus, { addresses[1] }, truth).good)
  end)
end)

describe("a readout over a UDP gateway", function()
  local addresses, truth = gateways.truth { 10, 12 }

  it("is not disturbed by copies", function()
    local there <close> = gateways.udp(gateways.house(BAUDRATE), { copies = 3 })
    local bus <close> = assert(mbus.open(there.url, { baudrate = BAUDRATE }))
    assert.equal(2, gateways.read_all(bus, addresses, truth).good)
  end)

  it("is not misled by a late answer", function()
    local there <close> = gateways.udp(gateways.house(BAUDRATE), { late = 0.4 })
    local bus <close> = assert(mbus.open(there.url, { baudrate = BAUDRATE, margin = 0.1 }))
    local result = gateways.read_all(bus, addresses, truth)
    assert.equal(0, result.wrong)
    assert.equal(2, gateways.read_all(bus, addresses, truth).good)
  end)
end)
