local core = require "mbus.core"
local Line = require "mbus.simulator.line"
local Random = require "mbus.simulator.random"

local BIT = 1 / 2400

local function drain(line)
  local seen = {}
  while line:next() do
    local time = line:next()
    local bytes, errors = line:take(time)
    for i = 1, #bytes do seen[#seen + 1] = ("%02X%s"):format(bytes:byte(i), errors > 0 and "!" or "") end
  end
  return table.concat(seen, " ")
end

describe("the line", function()
  it("delivers each byte when its stop bit ends, and not before", function()
    local line = Line.new { baudrate = 2400 }
    local stop = line:add("\x10\x5B\x01", 100)
    assert.near(100 + 33 * BIT, stop, 1e-9)
    for i, byte in ipairs { "\x10", "\x5B", "\x01" } do
      local done = 100 + i * 11 * BIT
      assert.near(done, line:next(), 1e-9)
      assert.same({ "", 0 }, { line:take(done - 1e-6) })
      assert.same({ byte, 0 }, { line:take(done) })
    end
    assert.is_nil(line:next())
  end)

  it("carries every byte value unchanged at every baud rate", function()
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    local bytes = table.concat(all)
    for _, baudrate in ipairs { 300, 2400, 9600, 38400 } do
      local line = Line.new { baudrate = baudrate }
      line:add(bytes, 1e6)
      assert.same({ bytes, 0 }, { line:take(1e6 + 256 * 11 / baudrate) })
    end
  end)

  -- Two E5 as the receiver sees them, by the offset of the second in bits; "!" marks a parity or framing error.
  local COLLISIONS = {
    { 0, "E5" }, { 0.5, "E5" }, { 0.75, "C0!" }, { 1.5, "C0!" }, { 2, "85" }, { 2.5, "85" }, { 3, "21!" }, { 3.5, "21!" },
    { 4, "45!" }, { 4.5, "45!" }, { 5, "A5!" }, { 6, "45!" }, { 7, "A5 FE" }, { 8, "65! FE" }, { 9, "E5! F9!" },
    { 10, "E5! F9!" }, { 10.5, "E5! F9!" }, { 11, "E5 E5" }, { 30, "E5 E5" },
  }

  it("superposes two acknowledgements as UARTs see them", function()
    for _, case in ipairs(COLLISIONS) do
      for _, start in ipairs { 0, 86400 * 30 } do
        local line = Line.new { baudrate = 2400 }
        line:add("\xE5", start)
        line:add("\xE5", start + case[1] * BIT)
        assert.equal(case[2], drain(line), ("offset %g bits"):format(case[1]))
      end
    end
  end)

  it("does not care which of the two was put on the line first", function()
    for _, case in ipairs(COLLISIONS) do
      local line = Line.new { baudrate = 2400 }
      line:add("\xE5", 5 + case[1] * BIT)
      line:add("\xE5", 5)
      assert.equal(case[2], drain(line), ("offset %g bits"):format(case[1]))
    end
  end)

  it("damages two telegrams that overlap, and leaves what stands alone", function()
    local line = Line.new { baudrate = 2400 }
    local one = core.long(0x08, 1, 0x72, ("\x55"):rep(20))
    line:add(one, 0)
    line:add(core.long(0x08, 2, 0x72, ("\x33"):rep(20)), 5 * 11 * BIT + 3 * BIT)
    local bytes, errors = line:take(10)
    assert.equal(one:sub(1, 5), bytes:sub(1, 5))
    assert.not_equal(one, bytes:sub(1, #one))
    assert.is_true(errors > 0)
  end)

  it("hears nonsense from a meter at another baud rate", function()
    local line = Line.new { baudrate = 2400 }
    line:add("\xE5", 0, { baudrate = 300 })
    local bytes, errors = line:take(1)
    assert.not_equal("\xE5", bytes)
    assert.is_true(errors > 0)
  end)

  it("takes a spike of less than half a bit for no start bit", function()
    local line = Line.new { baudrate = 2400 }
    line:add("\xFF", 0, { baudrate = 38400 })
    line:add("\xE5", 0.001)
    assert.equal("E5", drain(line))
  end)

  it("thinks again when more comes onto the line, and when it listens at another rate", function()
    local line = Line.new { baudrate = 2400 }
    line:add("\xE5", 0)
    assert.near(11 * BIT, line:next(), 1e-9)
    line:add("\xE5", 8 * BIT)
    assert.equal("65! FE", drain(line))
    line:add("\xE5", 1, { baudrate = 9600 })
    line:next()
    line:set_baudrate(9600)
    assert.equal("E5", drain(line))
  end)

  it("pauses between characters", function()
    local line = Line.new { baudrate = 2400 }
    local stop = line:add("\x01\x02", 0, { gap = 0.1 })
    assert.near(22 * BIT + 0.1, stop, 1e-9)
    assert.equal("\x01", (line:take(0.1)))
    assert.near(stop, line:next(), 1e-9)
    assert.equal("\x02", (line:take(stop)))
  end)

  describe("with a converter that sees collisions", function()
    it("sends a break, heard as 00 with an error, and then what comes after it", function()
      local line = Line.new { baudrate = 2400, collision = "break" }
      line:add("\xE5", 0)
      line:add("\xE5", 0)
      line:add("\xE5", 0.1)
      assert.equal("00! E5", drain(line))
      assert.equal(1, line.collisions)
    end)

    it("holds the line for 50 ms, at least for 22 bits", function()
      for _, case in ipairs { { 2400, 0.05 }, { 300, 22 / 300 } } do
        local line = Line.new { baudrate = case[1], collision = "break" }
        line:add("\xE5", 0)
        line:add("\xE5", 0)
        line:add("\xE5", case[2] - 0.6 / case[1]) -- its start bit melts into the break
        assert.equal("00! F9!", drain(line))
        line:add("\xE5", 1)
        line:add("\xE5", 1)
        line:add("\xE5", 1 + case[2] + 1 / case[1])
        assert.equal("00! E5", drain(line))
      end
    end)

    it("holds the line for the time that is set", function()
      local line = Line.new { baudrate = 2400, collision = "break", break_time = 0.2 }
      line:add("\xE5", 0)
      line:add("\xE5", 0)
      line:add("\xE5", 0.1)
      assert.equal("00!", drain(line))
    end)

    it("lets acknowledgements through that do not overlap", function()
      local line = Line.new { baudrate = 2400, collision = "break" }
      line:add("\xE5", 0)
      line:add("\xE5", 11 * BIT)
      assert.equal("E5 E5", drain(line))
      assert.equal(0, line.collisions)
    end)

    it("does not take the master's echo for a meter", function()
      local line = Line.new { baudrate = 2400, collision = "break" }
      line:add("\xE5", 0, { kind = "echo" })
      line:add("\xE5", 0)
      assert.equal("E5", drain(line))
      line:add("\xE5", 1)
      line:add("\xE5", 1, { kind = "echo" })
      assert.equal("E5", drain(line))
    end)
  end)

  it("hides damaged characters when the gateway does", function()
    local line = Line.new { baudrate = 2400, damaged = "drop" }
    line:add("\xE5", 0)
    line:add("\xE5", 8 * BIT)
    assert.same({ "\xFE", 0 }, { line:take(1) })
  end)

  it("turns bits over as often as asked, the same ones for the same seed", function()
    local sent = ("\x55"):rep(1000)
    local function received(seed)
      local line = Line.new { baudrate = 2400 }
      line:add(sent, 0, { bit_flips = 0.001, random = Random.new(seed) })
      return { line:take(10) }
    end
    local first, second, other = received(1), received(1), received(2)
    assert.same(first, second)
    assert.not_same(first, other)
    assert.is_true(first[2] >= 3 and first[2] <= 40, first[2] .. " damaged of about 11")
  end)

  it("keeps no memory of what was taken", function()
    local line = Line.new { baudrate = 2400 }
    for i = 1, 100 do
      line:add("\xE5", i)
      line:take(i + 0.5)
    end
    assert.is_true(#line.waves <= 1)
  end)
end)
