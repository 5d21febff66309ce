-- What hardly ever happens on a line, driven by hand: answers that are none, one that comes late each time, frames cut short.
local core = require "mbus.core"
local mbus = require "mbus"
local by_hand = require "spec.procedure.by_hand"

local function bus_by_hand(options) return assert(mbus.open("manual:", options)) end

---Runs one request against a meter given as a function.
local function play(meter, name, ...)
  local bus = bus_by_hand()
  assert(bus:begin(name, ...))
  return by_hand.play(bus, meter)
end

-- A meter of the fixed structure knows no secondary address, only its identification.
local function fixed_meter(address, id)
  return function(bytes)
    local frame = assert(core.frame(bytes))
    if frame.type == "long" and frame.a == address then
      address = frame.data:byte(3)
      return "\xE5"
    end
    if frame.a ~= address then return nil end
    if frame.c == 0x40 then return "\xE5" end
    return core.long(0x08, address, 0x73, id .. "\1\0\xE9\x7E\1\0\0\0\x35\1\0\0")
  end
end

describe("setting an address", function()
  it("knows a meter of the fixed structure by its identification", function()
    local result, err = play(fixed_meter(5, "\x78\x56\x34\x12"), "set_address", 5, 9)
    assert.is_nil(err)
    assert.same({ 9, 5, "12345678" }, { result.address, result.previous, result.telegram.id })
  end)

  it("is not believed where another meter answers at the new address", function()
    local ask = fixed_meter(5, "\x78\x56\x34\x12")
    local other = fixed_meter(9, "\x79\x56\x34\x12")
    local is_set = false
    local result, err = play(function(bytes)
      local frame = core.frame(bytes)
      if frame.type == "long" then is_set = true return "\xE5" end
      if frame.a == 9 then return is_set and other(bytes) or nil end
      return ask(bytes)
    end, "set_address", 5, 9)
    assert.is_nil(result)
    assert.is_string(err.kind)
  end)
end)

describe("an acknowledgement", function()
  it("is no short frame of another function", function()
    local result, err, world = play(function() return core.short(0x0B, 5) end, "reset", 5)
    assert.is_nil(result)
    assert.equal("timeout", err.kind)
    assert.is_true(#world.sent > 1) -- it was asked for again
  end)

  it("may be a short frame of function 0", function()
    local result, err = play(function(bytes)
      local c = core.frame(bytes).c
      return (c == 0x5B or c == 0x7B) and core.long(0x08, 5, 0x78, "\1\x13\5") or core.short(0x00, 5)
    end, "reset", 5)
    assert.is_nil(err)
    assert.is_truthy(result)
  end)
end)

describe("monitoring", function()
  it("tells of a frame that is never finished once its time is over", function()
    local bus, seen, fed = bus_by_hand(), {}, false
    assert(bus:begin("monitor", { duration = 3 }))
    local now, frame = 0, core.long(0x08, 5, 0x78, "\1\x13\5")
    local what, argument = bus:wants()
    while what ~= "done" do
      if what == "event" then
        seen[#seen + 1] = core.hex(argument.value.bytes)
        assert.is_true(now < 2) -- long before the end
        bus:feed("", now)
      else
        now = math.max(now, argument)
        bus:feed(fed and "" or frame:sub(1, -3), now)
        fed = true
      end
      what, argument = bus:wants()
    end
    assert.equal(core.hex(frame:sub(1, -3)), table.concat(seen, " "))
  end)
end)

describe("options that are none", function()
  it("are the caller's mistake", function()
    local bus = bus_by_hand()
    for _, duration in ipairs { 0, -1, 0 / 0, "long", {} } do
      assert.has_error(function() bus:begin("monitor", { duration = duration }) end, "option duration: seconds expected")
    end
    for _, listen in ipairs { -1, 0 / 0, math.huge, "long", {} } do
      assert.has_error(function() bus:begin("send", "\x10\x40\x05\x45\x16", { listen = listen }) end, "option listen: seconds expected")
    end
  end)
end)
