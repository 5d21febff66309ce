local capture = require "mbus.capture"
local helper = require "spec.helper"
local mbus = require "mbus"

local TEXT = [[
# mbus capture 1
# baudrate 9600
# start 2024-09-10T18:21:07
     0.023 SEND (005) 10 40 05 45 16
     0.072 RECV (001) E5
# a remark

     0.120 NOISE 00
     0.560 - (002) 12 34
]]

describe("a capture", function()
  it("is read", function()
    local captured = assert(capture.parse(TEXT))
    assert.same({ 9600, "2024-09-10T18:21:07", 4 }, { captured.baudrate, captured.start, #captured.entries })
    assert.same({ time = 0.023, direction = "SEND", bytes = "\x10\x40\x05\x45\x16" }, captured.entries[1])
    assert.same({ time = 0.12, direction = "NOISE", bytes = "\0" }, captured.entries[3])
    assert.same({ time = 0.56, bytes = "\x12\x34" }, captured.entries[4])
    assert.same(captured, capture.parse((TEXT:gsub("\n", "\r\n"))))
  end)

  it("is written as it is read", function()
    local captured = assert(capture.parse(TEXT))
    local text = capture.head { baudrate = 9600, start = "2024-09-10T18:21:07" }
    for _, entry in ipairs(captured.entries) do text = text .. capture.line(entry.direction, entry.bytes, entry.time) end
    assert.same(captured, capture.parse(text))
    assert.is_true(capture.is_capture(text))
  end)

  it("names the line that is wrong", function()
    for bad, message in pairs { ["x SEND 10"] = "time, SEND", ["1.0 SENT 10"] = "time, SEND", ["1.0 SEND 1G"] = "line 3",
      ["1.0 SEND (002) 10"] = "1 bytes are there, not 2" } do
      local captured, err = capture.parse("# mbus capture 1\n0.1 SEND 10\n" .. bad .. "\n")
      assert.is_nil(captured)
      assert.equal("invalid", err.kind)
      assert.matches("line 3 of the capture", err.message)
      assert.matches(message, err.message)
    end
  end)

  it("tells why a file cannot be read", function()
    assert.equal("not_found", select(2, capture.read("/nowhere/x")).kind)
    assert.equal("io", select(2, capture.read(".")).kind)
  end)

  it("with alarms and telegrams without a header is one meter for the simulator", function()
    local core = require "mbus.core"
    local header = core.unhex "47 27 89 31 24 23 28 04 00 00 00 00"
    local frames = { core.long(0x08, 5, 0x71, "\4"), core.long(0x08, 5, 0x72, header .. core.unhex "0C 13 00 25 01 00 1F"),
      core.long(0x08, 5, 0x78, core.unhex "0C 13 00 10 00 00"), core.long(0x08, 5, 0x70, "\8") }
    local lines = { capture.head { baudrate = 2400 } }
    for i, bytes in ipairs(frames) do lines[#lines + 1] = capture.line("RECV", bytes, i) end
    local description = require("mbus.simulator.script").description(assert(capture.parse(table.concat(lines))))
    assert.same({ 1, 2 }, { #description.meters, #description.meters[1].telegrams })
    local bus <close> = assert(mbus.open(assert(mbus.simulator.new(description))))
    local values = {}
    for _, record in assert(bus:read(5)):records() do values[#values + 1] = record.value end
    assert.same({ 12.5, 1.0 }, values)
  end)

  it("is a bus for the simulator", function()
    local recorded = { capture.head { baudrate = 2400 } }
    local bus = assert(mbus.open("sim:house", { trace = function(direction, bytes, time)
      recorded[#recorded + 1] = capture.line(direction, bytes, time)
    end }))
    local wanted = {}
    local addresses = { 17, 74, "3189274724232804", 17 }
    for i, address in ipairs(addresses) do wanted[i] = assert(bus:read(address)) end
    helper.with_folder(function(folder)
      helper.write(folder .. "/bus.cap", table.concat(recorded))
      local again = assert(mbus.open("sim:" .. folder .. "/bus.cap"))
      for i, address in ipairs(addresses) do
        local readout, err = again:read(address)
        assert.is_truthy(readout, tostring(err))
        assert.same({ #wanted[i].telegrams, #wanted[i], wanted[i].secondary_address },
          { #readout.telegrams, #readout, readout.secondary_address })
        local expected = wanted[i]:find { quantity = "energy" }
        assert.equal(expected.value, readout:find({ quantity = "energy" }).value)
      end
      helper.write(folder .. "/bad.cap", "# mbus capture 1\nx\n")
      local none, err = mbus.simulator.load(folder .. "/bad.cap")
      assert.is_nil(none)
      assert.matches("bad.cap: line 2", err.message)
    end)
  end)
end)
