-- Frames and the deframer (EN 13757-2, IEC 60870-5-2).
local core = require "mbus.core"

local function bytes(text)
  return assert(core.unhex(text))
end

local function code(text)
  local frame, err = core.frame(bytes(text))
  assert.is_nil(frame)
  return err.code, err.kind, err.offset
end

describe("frames", function()
  it("are written as the standard's examples", function()
    local written = {
      [core.short(0x40, 0)] = "10 40 00 40 16",
      [core.short(0x40, 250)] = "10 40 FA 3A 16",
      [core.short(0x5B, 253)] = "10 5B FD 58 16",
      [core.short(0x7B, 254)] = "10 7B FE 79 16",
      [core.long(0x53, 1, 0xBD)] = "68 03 03 68 53 01 BD 11 16",
      [core.long(0x53, 1, 0x51, "\x01\x7A\x05")] = "68 06 06 68 53 01 51 01 7A 05 25 16",
      [core.long(0x53, 0xFD, 0x52, bytes "78 56 34 12 FF FF FF FF")] = "68 0B 0B 68 53 FD 52 78 56 34 12 FF FF FF FF B2 16",
    }
    for frame, text in pairs(written) do
      assert.are.equal(text, core.hex(frame))
      assert.are.equal(frame, core.frame(frame).bytes)
    end
  end)

  it("are read back with their fields", function()
    assert.are.same({ type = "ack", bytes = "\xE5" }, core.frame("\xE5"))
    assert.are.same({ type = "short", c = 0x7B, a = 1, bytes = bytes "10 7B 01 7C 16" }, core.frame(bytes "10 7B 01 7C 16"))
    local frame = core.frame(bytes "68 03 03 68 53 01 BD 11 16")
    assert.are.same({ "control", 0x53, 1, 0xBD, "" }, { frame.type, frame.c, frame.a, frame.ci, frame.data })
    local long = core.frame(core.long(0x08, 17, 0x72, ("x"):rep(252)))
    assert.are.same({ "long", 252, 261 }, { long.type, #long.data, #long.bytes })
  end)

  it("are refused with what is wrong and where", function()
    assert.are.same({ "truncated_frame", "truncated", 0 }, { code "" })
    assert.are.same({ "bad_start", "framing", 0 }, { code "A2" })
    assert.are.same({ "length_too_small", "framing", 1 }, { code "68 02 02 68 08 01" })
    assert.are.same({ "length_mismatch", "framing", 2 }, { code "68 03 04 68 08 01 72 7B 16" })
    assert.are.same({ "bad_second_start", "framing", 3 }, { code "68 03 03 69 08 01 72 7B 16" })
    assert.are.same({ "bad_second_start", "framing", 3 }, { code "68 03 03 69" }) -- as soon as the byte is there
    assert.are.same({ "length_mismatch", "framing", 2 }, { code "68 03 04" })
    assert.are.same({ "length_too_small", "framing", 1 }, { code "68 02" })
    assert.are.same({ "truncated_frame", "truncated", 8 }, { code "68 03 03 68 08 01 72 7B" })
    assert.are.same({ "bad_checksum", "checksum", 7 }, { code "68 03 03 68 08 01 72 7C 16" })
    assert.are.same({ "bad_stop", "framing", 8 }, { code "68 03 03 68 08 01 72 7B 17" })
    assert.are.same({ "trailing_bytes", "framing", 9 }, { code "68 03 03 68 08 01 72 7B 16 00" })
    assert.are.same({ "trailing_bytes", "framing", 1 }, { code "E5 E5" })
    assert.are.same({ "bad_checksum", "checksum", 3 }, { code "10 40 01 42 16" })
  end)

  it("take only what fits them", function()
    assert.has_error(function() core.long(0x53, 1, 0x51, ("x"):rep(253)) end)
    assert.has_error(function() core.short(256, 1) end)
    assert.has_error(function() core.short(0x40, -1) end)
    assert.has_error(function() core.short(0x40) end)
  end)
end)

--- Events as text: "E5", "frame:<hex>", "noise:<hex>", noise merged over feeds.
local function describe_events(...)
  local deframer, list, noise = core.deframer(), {}, ""
  local function note(events)
    for _, event in ipairs(events) do
      if event.kind == "noise" then
        noise = noise .. event.bytes
      else
        if noise ~= "" then list[#list + 1], noise = "noise:" .. core.hex(noise), "" end
        list[#list + 1] = "frame:" .. core.hex(event.bytes)
      end
    end
  end
  for _, chunk in ipairs { ... } do note(deframer:feed(chunk)) end
  note(deframer:flush())
  if noise ~= "" then list[#list + 1] = "noise:" .. core.hex(noise) end
  return list
end

describe("the deframer", function()
  local stream = bytes [[
    00 FF E5 E5 68 10 40 01 41 16 68 68 03 03 68 08 0B 72 85 16 A2
    68 06 06 68 53 01 51 01 7A 05 25 16 68 05 05 68 08 01 E5
  ]]

  it("finds every frame between garbage and reports the rest as noise", function()
    assert.are.same({
      "noise:00 FF", "frame:E5", "frame:E5", "noise:68", "frame:10 40 01 41 16", "noise:68",
      "frame:68 03 03 68 08 0B 72 85 16", "noise:A2", "frame:68 06 06 68 53 01 51 01 7A 05 25 16",
      "noise:68 05 05 68 08 01", "frame:E5",
    }, describe_events(stream))
  end)

  it("gives the same however the bytes are cut", function()
    local whole = describe_events(stream)
    for cut = 1, #stream - 1 do
      assert.are.same(whole, describe_events(stream:sub(1, cut), stream:sub(cut + 1)))
    end
    local single = {}
    for i = 1, #stream do single[i] = stream:sub(i, i) end
    assert.are.same(whole, describe_events(table.unpack(single)))
  end)

  it("drops one byte of a bad candidate and finds the good frame inside it", function()
    local good = core.long(0x08, 1, 0x72, bytes "78 56 34 12 24 40 01 07 55 00 00 00 03 13 15 31 00")
    local false_start = bytes "68 1F 1F 68"
    local events = describe_events(false_start .. good)
    assert.are.same({ "noise:68 1F 1F 68", "frame:" .. core.hex(good) }, events)
  end)

  it("tells what it waits for", function()
    local deframer = core.deframer()
    assert.are.same({ 0, 0 }, { deframer:pending() })
    deframer:feed("\x68")
    assert.are.same({ 1, 0 }, { deframer:pending() })
    deframer:feed("\xF7\xF7\x68\x08")
    assert.are.same({ 5, 253 }, { deframer:pending() })
    deframer:reset()
    assert.are.same({ 0, 0 }, { deframer:pending() })
    assert.are.same({}, deframer:flush())
  end)

  it("keeps long runs of noise together", function()
    local events = core.deframer():feed(("\0"):rep(1000) .. "\xE5")
    assert.are.equal(2, #events)
    assert.are.same({ "noise", 1000 }, { events[1].kind, #events[1].bytes })
    assert.are.equal("frame", events[2].kind)
  end)

  it("never stalls on random bytes and loses none", function()
    math.randomseed(7)
    for _ = 1, 200 do
      local chunk = {}
      for i = 1, 300 do
        chunk[i] = string.char(({ 0x68, 0x10, 0xE5, 0x16, 3, math.random(0, 255) })[math.random(6)])
      end
      local text, total = table.concat(chunk), 0
      local deframer = core.deframer()
      for _, events in ipairs { deframer:feed(text), deframer:flush() } do
        for _, event in ipairs(events) do total = total + #event.bytes end
      end
      assert.are.equal(300, total)
    end
  end)
end)

describe("hex text", function()
  it("is written and read", function()
    assert.are.equal("00 FF 5A", core.hex("\0\xFF\x5A"))
    assert.are.equal("00ff5a", core.hex("\0\xFF\x5A", ""):lower())
    assert.are.equal("", core.hex(""))
    assert.are.equal("\x68\x03\xAB", core.unhex("0x68, 0X03\n\tab"))
    assert.are.equal("\x68\x03", core.unhex("68:03-"))
    assert.are.equal("\x00", core.unhex("00"))
  end)

  it("is refused with the place of the error", function()
    local _, err = core.unhex("68 0G")
    assert.are.same({ "invalid", "half a byte at character 4" }, { err.kind, err.message })
    _, err = core.unhex("68 zz")
    assert.are.equal("not a hex digit at character 4", err.message)
    _, err = core.unhex("68 0")
    assert.are.equal("half a byte at character 4", err.message)
  end)
end)
