local mbus = require "mbus"
local core = require "mbus.core"

-- A transport of one's own: a meter at address 5, as a table with four functions.
local function my_transport()
  local answers = {
    [core.short(0x40, 5)] = core.ACK,
    [core.short(0x7B, 5)] = core.long(0x08, 5, 0x72, mbus.unhex "78563412 2423 28 04 01 00 0000 0C05 31847401"),
  }
  local waiting = ""
  return {
    name = "my own",
    baudrate = 9600,
    write = function(_, bytes)
      waiting = waiting .. (answers[bytes] or "")
      return true
    end,
    read = function()
      local bytes = waiting
      waiting = ""
      return bytes
    end,
    drain = function(self) return self:read(0) end,
    close = function(self) self.is_closed = true end,
  }
end

describe("a transport of one's own", function()
  it("carries a bus", function()
    local line = my_transport()
    local bus <close> = assert(mbus.open(line))
    local readout = assert(bus:read(5))
    assert.equal("12345678", readout.id)
    assert.equal(174843100, readout:find({ quantity = "energy" }).value)
    assert.equal("my own", bus.name)
    bus:close()
    assert.is_true(line.is_closed)
  end)

  it("has its errors passed on", function()
    local line = my_transport()
    line.write = function() return nil, { kind = "closed", message = "the cable is cut" } end
    local bus <close> = assert(mbus.open(line))
    local readout, err = bus:read(5)
    assert.is_nil(readout)
    assert.same({ "closed", "my own" }, { err.kind, err.bus })
    assert.matches("the cable is cut", tostring(err), 1, true)
  end)
end)
