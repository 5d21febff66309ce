local Backoff = require "mbus.transport.backoff"
local Error = require "mbus.error"
local runtime = require "mbus.runtime"

local gone = Error.new("refused", "nobody there", { bus = "tcp://h:1" })

describe("mbus.transport.backoff", function()
  it("doubles its pauses up to a limit, each a little different", function()
    local low, high = Backoff.new(0.5, 5, function() return 0 end), Backoff.new(0.5, 5, function() return 1 end)
    local pauses = { 0.5, 1, 2, 4, 5, 5 }
    for _, pause in ipairs(pauses) do
      low:failed(gone, 100)
      high:failed(gone, 100)
      assert.near(100 + 0.75 * pause, low.due, 1e-9)
      assert.near(100 + math.min(5, 1.25 * pause), high.due, 1e-9)
    end
    low:worked()
    low:failed(gone, 0)
    assert.near(0.375, low.due, 1e-9)
  end)

  it("differs between two of them", function()
    local dues = {}
    for i = 1, 20 do
      local backoff = Backoff.new(1)
      backoff:failed(gone, 0)
      dues[i] = backoff.due
    end
    table.sort(dues)
    assert.is_true(dues[20] - dues[1] > 0.01)
  end)

  local function persist(backoff, patience, results)
    local count = 0
    local ok, err = backoff:persist(patience, function()
      count = count + 1
      return table.unpack(results[count] or results[#results], 1, 2)
    end, function(seconds)
      runtime.sleep(seconds)
      return true
    end)
    return count, ok, err
  end

  it("attempts until one succeeds", function()
    local count, ok = persist(Backoff.new(0.001), 5, { { nil, gone }, { nil, gone }, { true } })
    assert.same({ 3, true }, { count, ok })
  end)

  it("does not begin to wait for an attempt that would come too late", function()
    local start = runtime.now()
    local backoff = Backoff.new(10)
    local count, ok, err = persist(backoff, 1, { { nil, gone } })
    assert.same({ 1, nil, "refused" }, { count, ok, err.kind })
    assert.matches("nobody there %(next attempt in %d+%.%d s%)", err.message)
    count = persist(backoff, 1, { { true } })
    assert.equal(0, count)
    assert.is_true(runtime.now() - start < 0.5)
  end)

  it("does not wait for what somebody has to change", function()
    for _, kind in ipairs { "permission", "invalid", "unsupported", "busy" } do
      assert.equal(1, (persist(Backoff.new(0.001), 5, { { nil, Error.new(kind, "no") } })))
    end
  end)

  it("ends when it is given up", function()
    local backoff = Backoff.new(0.001)
    backoff:failed(gone, runtime.now())
    local lost = Error.new("closed", "closed")
    assert.equal(lost, select(2, backoff:persist(5, function() return true end, function() return nil, lost end)))
  end)
end)
