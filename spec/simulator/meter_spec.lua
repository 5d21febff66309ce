local core = require "mbus.core"
local simulator = require "mbus.simulator"

local NKE, REQ_0, REQ_1, ALARM = 0x40, 0x5B, 0x7B, 0x5A
local SND_0, SND_1 = 0x53, 0x73

local HEADER = "78 56 34 12 24 40 01 07 55 00 00 00 "

-- A bus with one meter (or several) and a function that asks it.
local function bus_with(meter, ...)
  local sim = assert(simulator.new { meters = { meter, ... } })
  local time = 0
  local function ask(frame)
    sim:receive(frame, time)
    time = time + 2
    return core.hex((sim:take(time)))
  end
  return ask, sim, function(seconds) time = time + seconds end
end

local function with(defaults, changes)
  local meter = {}
  for name, value in pairs(defaults) do meter[name] = value end
  for name, value in pairs(changes or {}) do meter[name] = value end
  return meter
end

-- Three telegrams that differ in one byte.
local function three(changes)
  return with({ address = 5, telegrams = {
    { data = HEADER .. "01 13 01 1F" }, { data = HEADER .. "01 13 02 1F" }, { data = HEADER .. "01 13 03" } } }, changes)
end

local function short(c, a) return core.short(c, a) end
local function select_mask(hex, c, ci) return core.long(c or SND_0, 253, ci or 0x52, core.unhex(hex)) end

-- 1, 2 or 3: which telegram it is, "E5", or "" for silence.
local function which(answer)
  if #answer < 10 then return answer end
  local frame = assert(core.frame(core.unhex(answer)))
  return frame.data:byte(15)
end

describe("a simulated meter", function()
  describe("at the link layer", function()
    it("acknowledges SND_NKE to its own address and to 254, and is silent for others and for 255", function()
      local ask = bus_with(three())
      assert.equal("E5", ask(short(NKE, 5)))
      assert.equal("E5", ask(short(NKE, 254)))
      assert.equal("", ask(short(NKE, 6)))
      assert.equal("", ask(short(NKE, 255)))
      assert.equal("", ask(short(NKE, 253)))
    end)

    it("answers 254 with its own address", function()
      local ask = bus_with(three())
      local frame = assert(core.frame(core.unhex(ask(short(REQ_1, 254)))))
      assert.same({ 0x08, 5, 0x72 }, { frame.c, frame.a, frame.ci })
    end)

    it("is silent on a bad frame", function()
      local ask, sim = bus_with(three())
      assert.equal("", ask("\x10\x40\x05\x46\x16"))
      assert.equal("", ask("\x10\x40\x05\x45\x17"))
      assert.equal(0, sim.statistics.requests)
      assert.equal("E5", ask(short(NKE, 5)))
    end)

    it("is silent on frames that only a meter sends", function()
      local ask = bus_with(three())
      assert.equal("", ask(core.long(0x08, 5, 0x72, "\0")))
      assert.equal("", ask("\xE5"))
      assert.equal("", ask(short(0x00, 5)))
    end)

    it("sends the next telegram on a toggled FCB and the same on an unchanged one", function()
      local ask = bus_with(three())
      ask(short(NKE, 5))
      local seen = {}
      for _, c in ipairs { REQ_1, REQ_1, REQ_0, REQ_0, REQ_1, REQ_0 } do seen[#seen + 1] = which(ask(short(c, 5))) end
      assert.same({ 1, 1, 2, 2, 3, 1 }, seen)
    end)

    it("sends the same telegram on an unchanged FCB also after a command, with what has changed", function()
      local ask = bus_with(three())
      assert.equal(1, which(ask(short(REQ_1, 5))))
      assert.equal(2, which(ask(short(REQ_0, 5))))
      assert.equal("E5", ask(core.long(SND_1, 5, 0x51, core.unhex "01 7A 07")))
      local again = ask(short(REQ_0, 7))
      assert.same({ 2, "07" }, { which(again), again:sub(16, 17) })
      assert.equal(3, which(ask(short(REQ_1, 7))))
    end)

    it("begins again after SND_NKE, after application reset and at FCV = 0", function()
      local ask = bus_with(three())
      local function two() return which(ask(short(REQ_1, 5))), which(ask(short(REQ_0, 5))) end
      assert.same({ 1, 2 }, { two() })
      ask(short(NKE, 5))
      assert.same({ 1, 2 }, { two() })
      assert.equal("E5", ask(core.long(SND_1, 5, 0x50)))
      assert.same({ 1, 2 }, { two() })
      assert.equal(1, which(ask(short(0x4B, 5))))
    end)

    it("forgets the FCB at a request that does not count", function()
      local ask = bus_with(three())
      assert.same({ 1, 1, 1 }, { which(ask(short(REQ_1, 5))), which(ask(short(0x4B, 5))), which(ask(short(REQ_1, 5))) })
    end)

    it("forgets the FCB of 253 at a selection, an application reset and SND_NKE to all", function()
      local all = select_mask "FFFFFFFFFFFFFFFF"
      for _, frame in ipairs { all, core.long(0x43, 5, 0x50), short(NKE, 255) } do
        local ask = bus_with(three())
        ask(all)
        assert.equal(1, which(ask(short(REQ_1, 253))))
        ask(frame)
        assert.equal(1, which(ask(short(REQ_0, 253))))
      end
    end)

    it("takes the first FCB for new, whatever it is", function()
      local ask = bus_with(three())
      ask(short(NKE, 5))
      assert.equal(1, which(ask(short(REQ_0, 5))))
    end)

    it("keeps the frame count of 253 apart from that of its own address", function()
      local ask = bus_with(three())
      assert.equal(1, which(ask(short(REQ_1, 5))))
      assert.equal("E5", ask(select_mask "FFFFFFFFFFFFFFFF"))
      assert.equal(1, which(ask(short(REQ_1, 253))))
      assert.equal(2, which(ask(short(REQ_0, 253))))
      assert.equal(2, which(ask(short(REQ_0, 5))))
    end)

    it("answers REQ_UD1 with E5, or with its alarm", function()
      assert.equal("E5", (bus_with(three()))(short(ALARM, 5)))
      local alarm = (bus_with(three { alarm = 0x12 }))(short(ALARM, 5))
      assert.equal(core.hex(core.long(0x08, 5, 0x71, "\x12")), alarm)
    end)

    it("answers REQ_UD2 with E5 when it has no telegram", function()
      assert.equal("E5", (bus_with { address = 5 })(short(REQ_1, 5)))
    end)

    it("does not execute a command twice", function()
      local ask, sim = bus_with(three())
      local write = core.long(SND_1, 5, 0x51, "\x0C\x13\x00\x00\x00\x00")
      assert.equal("E5", ask(write))
      assert.equal("E5", ask(write))
      assert.same({ "0C 13 00 00 00 00" }, sim.meters[1].writes)
      assert.equal("E5", ask(core.long(SND_0, 5, 0x51, "\x0C\x13\x00\x00\x00\x00")))
      assert.equal(2, #sim.meters[1].writes)
    end)
  end)

  describe("made of records", function()
    it("gets its header, and 1F while more follow", function()
      local volume = { { quantity = "volume", unit = "m3", value = 1, exponent = 0, data = "int8" } }
      local ask = bus_with { address = 5, id = "12345678", manufacturer = "PAD", version = 1, medium = 7, status = 4,
        access_no = 255, telegrams = { { records = volume }, { records = volume, manufacturer = "AA BB" } } }
      assert.equal(core.hex(core.long(0x08, 5, 0x72, core.unhex "78563412 2440 01 07 FF 04 0000 01 16 01 1F")),
        ask(short(REQ_1, 5)))
      assert.equal(core.hex(core.long(0x08, 5, 0x72, core.unhex "78563412 2440 01 07 00 04 0000 01 16 01 0F AA BB")),
        ask(short(REQ_0, 5)))
    end)
  end)

  describe("made of bytes", function()
    it("counts its answers in the header, and nothing else", function()
      local records = { { quantity = "volume", unit = "m3", value = 1, exponent = 0, data = "int8" } }
      local ask, sim = bus_with { address = 5, access_no = 255, babbles = 1000, telegrams = { { records = records }, { records = records } } }
      local function access_no(request) return core.unhex(ask(request)):byte(16) end
      sim:take(0)
      for _ = 1, 3 do sim:next() end
      assert.equal(255, access_no(short(REQ_1, 5)))
      assert.equal(255, access_no(short(REQ_1, 5)))
      assert.equal(0, access_no(short(REQ_0, 5)))
      ask(core.long(SND_1, 5, 0x51, "\x08\x16"))
      assert.equal(1, access_no(short(REQ_1, 5)))
      assert.equal(2, access_no(short(REQ_0, 5)))
    end)

    it("puts records that were asked for behind its own header, also of telegrams that have none", function()
      local ask = bus_with { address = 5, id = "12345678", manufacturer = "PAD", version = 1, medium = 7,
        telegrams = { { ci = 0x78, data = "0C 13 00 25 01 00 02 5A 20 02 01 FD 17 00" }, { data = HEADER .. "01 16 09" } } }
      ask(core.long(SND_1, 5, 0x51, "\x08\x5A\x08\x16"))
      local frame = assert(core.frame(core.unhex(ask(short(REQ_1, 5)))))
      assert.equal(0x72, frame.ci)
      assert.equal("78 56 34 12 24 40 01 07 00 00 00 00 02 5A 20 02 01 16 09", core.hex(frame.data))
    end)

    it("keeps the order of bytes in records that were asked for", function()
      local ask = bus_with { address = 5, id = "12345678", manufacturer = "PAD", mode2 = true,
        telegrams = { { ci = 0x76, data = "12 34 56 78 40 24 00 00 55 00 00 00 0C 13 00 01 23 45 02 5A 00 10" } } }
      ask(core.long(SND_1, 5, 0x51, "\x08\x13"))
      local frame = assert(core.frame(core.unhex(ask(short(REQ_1, 5)))))
      assert.equal(0x76, frame.ci)
      assert.equal("12 34 56 78 40 24 00 00 00 00 00 00 0C 13 00 01 23 45", core.hex(frame.data))
    end)

    it("sends user data with the CI and C field that are set, and frames as they are", function()
      local ask = bus_with { address = 5, telegrams = { { data = "01 02", ci = 0x73, c = 0x18 }, { frame = "68 00 16" } } }
      assert.equal(core.hex(core.long(0x18, 5, 0x73, "\1\2")), ask(short(REQ_1, 5)))
      assert.equal("68 00 16", ask(short(REQ_0, 5)))
    end)
  end)

  describe("selected by its secondary address", function()
    local function found(mask, changes) return (bus_with(three(changes)))(select_mask(mask)) == "E5" end

    it("compares id digits with wildcard F and the rest with wildcard FF", function()
      for _, mask in ipairs { "7856341224400107", "FFFFFFFFFFFFFFFF", "78563412FFFFFFFF", "F8FFFFFFFFFFFFFF", "FFFFFF1FFFFFFFFF",
        "FFFFFFFF2440FFFF", "FFFFFFFFFF40FF07", "FFFFFFFFFFFFFF07" } do
        assert.is_true(found(mask), mask)
      end
      for _, mask in ipairs { "7956341224400107", "7856341225400107", "7856341224410107", "7856341224400207",
        "7856341224400106", "F7FFFFFFFFFFFFFF", "FFFFFF2FFFFFFFFF" } do
        assert.is_false(found(mask), mask)
      end
    end)

    it("knows hex digits in an id", function()
      local meter = { id = "0500023E", manufacturer = "ABC", telegrams = three().telegrams }
      local ask = bus_with(meter)
      assert.equal("E5", ask(select_mask "3E020005FFFFFFFF"))
      assert.equal("", ask(select_mask "3D020005FFFFFFFF"))
    end)

    it("answers 253 only while it is selected", function()
      local ask = bus_with(three())
      assert.equal("", ask(short(REQ_1, 253)))
      ask(select_mask "78563412FFFFFFFF")
      local frame = assert(core.frame(core.unhex(ask(short(REQ_1, 253)))))
      assert.equal(5, frame.a)
      assert.equal("", ask(select_mask "79563412FFFFFFFF"))
      assert.equal("", ask(short(REQ_1, 253)))
    end)

    it("is deselected by SND_NKE to 253 and by a selection of the other mode", function()
      for _, frame in ipairs { short(NKE, 253), select_mask("FFFFFFFFFFFFFFFF", SND_0, 0x56) } do
        local ask = bus_with(three())
        ask(select_mask "FFFFFFFFFFFFFFFF")
        ask(frame)
        assert.equal("", ask(short(REQ_1, 253)))
      end
    end)

    it("evaluates every selection, whatever the FCB", function()
      local ask = bus_with(three())
      assert.equal("E5", ask(select_mask("FFFFFFFFFFFFFFFF", SND_1)))
      assert.equal("", ask(select_mask("79563412FFFFFFFF", SND_1)))
    end)

    it("does not match a selection of another length", function()
      local ask = bus_with(three())
      assert.equal("", ask(select_mask "FFFFFFFFFFFFFF"))
      assert.equal("", ask(select_mask "FFFFFFFFFFFFFFFFFF"))
    end)

    it("compares the fabrication number if it knows enhanced selection", function()
      local enhanced = "78563412FFFFFFFF 0C 78 42 00 00 00"
      assert.is_false(found(enhanced))
      assert.is_true(found(enhanced, { fabrication = "00000042" }))
      assert.is_true(found("78563412FFFFFFFF 0C 78 F2 FF FF 00", { fabrication = "00000042" }))
      assert.is_false(found(enhanced, { fabrication = "00000043" }))
    end)

    it("in mode 2 is selected by CI 56 with the fields reversed", function()
      local ask = bus_with(three { mode2 = true })
      assert.equal("E5", ask(select_mask("1234567840240107", SND_0, 0x56)))
      assert.equal("", ask(select_mask "7856341224400107"))
    end)
  end)

  describe("given a new address", function()
    it("acknowledges from the old one and listens on the new one at once", function()
      local ask, sim = bus_with(three())
      ask(short(REQ_1, 5))
      assert.equal("E5", ask(core.long(SND_0, 5, 0x51, "\x01\x7A\x11")))
      assert.equal(0x11, sim.meters[1].address)
      assert.equal("", ask(short(NKE, 5)))
      assert.equal(0x11, assert(core.frame(core.unhex(ask(short(REQ_1, 0x11))))).a)
    end)

    it("ignores one above 250", function()
      local ask, sim = bus_with(three())
      assert.equal("E5", ask(core.long(SND_0, 5, 0x51, "\x01\x7A\xFB")))
      assert.equal(5, sim.meters[1].address)
    end)

    it("takes an id, a whole identity, and both in one frame", function()
      local ask, sim = bus_with(three())
      ask(core.long(SND_0, 5, 0x51, "\x0C\x79\x04\x03\x02\x01"))
      assert.equal("01020304", sim.meters[1].id)
      local data = assert(core.frame(core.unhex(ask(short(REQ_1, 5))))).data
      assert.equal("04 03 02 01 24 40 01 07", core.hex(data:sub(1, 8)))
      ask(core.long(SND_1, 5, 0x51, "\x01\x7A\x08\x07\x79\x99\x88\x77\x66\x2D\x2C\x40\x0D"))
      assert.equal(8, sim.meters[1].address)
      assert.equal("E5", ask(select_mask "998877662D2C400D"))
    end)

    it("never takes an id with other than decimal digits", function()
      local ask, sim = bus_with(three())
      assert.equal("E5", ask(core.long(SND_0, 5, 0x51, "\x0C\x79\xFF\xFF\xFF\xFF")))
      assert.equal("12345678", sim.meters[1].id)
    end)
  end)

  describe("switched to another baud rate", function()
    local TO_9600, TO_38400 = core.long(SND_0, 5, 0xBD), core.long(SND_0, 5, 0xBF)

    it("acknowledges at the old rate and talks at the new one", function()
      local ask, sim = bus_with(three())
      assert.equal("E5", ask(TO_9600))
      assert.equal("", ask(short(NKE, 5)))
      sim:set_baudrate(9600)
      assert.equal("E5", ask(short(NKE, 5)))
      assert.equal(1, which(ask(short(REQ_1, 5))))
    end)

    it("falls back when nothing valid comes, and stays when something did", function()
      local ask, sim, pass = bus_with(three { fallback = 30 })
      ask(TO_9600)
      pass(31)
      assert.equal("E5", ask(short(NKE, 5)))
      ask(core.long(SND_1, 5, 0xBD))
      sim:set_baudrate(9600)
      assert.equal("E5", ask(short(NKE, 5)))
      pass(1000)
      assert.equal("E5", ask(short(NKE, 5)))
    end)

    it("acknowledges a rate that it cannot do, and stays", function()
      local ask = bus_with(three())
      assert.equal("E5", ask(TO_38400))
      assert.equal("E5", ask(short(NKE, 5)))
    end)

    it("is switched by a broadcast without answering", function()
      local ask, sim = bus_with(three())
      assert.equal("", ask(core.long(SND_0, 255, 0xBD)))
      sim:set_baudrate(9600)
      assert.equal("E5", ask(short(NKE, 5)))
    end)
  end)

  describe("with a habit of its own", function()
    it("needs SND_NKE before every readout", function()
      local ask = bus_with(three { needs_nke = true })
      assert.equal("", ask(short(REQ_1, 5)))
      ask(short(NKE, 5))
      local seen = {}
      for _, c in ipairs { REQ_1, REQ_0, REQ_1, REQ_1, REQ_0, REQ_1 } do seen[#seen + 1] = which(ask(short(c, 5))) end
      assert.same({ 1, 2, 3, 3, "", "" }, seen)
      ask(short(NKE, 5))
      assert.equal(1, which(ask(short(REQ_1, 5))))
    end)

    it("ignores SND_NKE", function()
      local ask = bus_with(three { ignores_nke = true })
      assert.equal(1, which(ask(short(REQ_1, 5))))
      assert.equal("", ask(short(NKE, 5)))
      assert.equal(1, which(ask(short(REQ_1, 5))))
      assert.equal(2, which(ask(short(REQ_0, 5))))
    end)

    it("ignores the FCB", function()
      local ask = bus_with(three { ignores_fcb = true })
      assert.equal(1, which(ask(short(REQ_1, 5))))
      assert.equal(1, which(ask(short(REQ_0, 5))))
    end)

    it("has one FCB for all addresses", function()
      local ask = bus_with(three { shared_fcb = true })
      ask(select_mask "FFFFFFFFFFFFFFFF")
      assert.equal(1, which(ask(short(REQ_1, 253))))
      assert.equal(1, which(ask(short(REQ_1, 5))))
      assert.equal(2, which(ask(short(REQ_0, 5))))
    end)

    it("looks at the FCB before the selection", function()
      local ask = bus_with(three { fcb_before_selection = true })
      assert.equal("E5", ask(select_mask("FFFFFFFFFFFFFFFF", SND_1)))
      assert.equal("E5", ask(select_mask("79563412FFFFFFFF", SND_1)))
      assert.equal("", ask(select_mask("79563412FFFFFFFF", SND_0)))
    end)

    it("acknowledges with a short frame", function()
      assert.equal("10 00 05 05 16", (bus_with(three { short_ack = true }))(short(NKE, 5)))
    end)

    it("is deaf, or falls silent", function()
      assert.equal("", (bus_with(three { deaf = true }))(short(NKE, 5)))
      local ask = bus_with(three { silent_after = 2 })
      assert.same({ "E5", "E5", "" }, { ask(short(NKE, 5)), ask(short(NKE, 5)), ask(short(NKE, 5)) })
    end)
  end)

  describe("with a fault", function()
    local GOOD = core.long(0x08, 5, 0x72, core.unhex(HEADER .. "01 13 01 1F"))

    local function struck(faults, more) return bus_with(three(with({ faults = faults }, more))) end

    it("sends a wrong checksum, half an answer, another address, garbage around it", function()
      local request = short(REQ_1, 5)
      local sum = core.hex(GOOD:sub(1, -3) .. string.char((GOOD:byte(-2) + 1) & 0xFF) .. "\x16")
      assert.equal(sum, struck { checksum = true }(request))
      assert.equal(core.hex(GOOD:sub(1, 9)), struck { truncate = 9 }(request))
      assert.equal(core.hex(core.long(0x08, 6, 0x72, GOOD:sub(8, -3))), struck { address = 6 }(request))
      assert.equal("00 FF " .. core.hex(GOOD) .. " 00", struck { leading = "00 FF", trailing = "00" }(request))
    end)

    it("leaves acknowledgements alone unless told otherwise", function()
      assert.equal("E5", struck { leading = "00" }(short(NKE, 5)))
      assert.equal("00 E5", struck { leading = "00", acknowledgements = true }(short(NKE, 5)))
    end)

    it("does so only as often as told", function()
      local ask = struck { truncate = 9, answers = 1 }
      assert.equal(9, #core.unhex(ask(short(REQ_1, 5))))
      assert.equal(core.hex(GOOD), ask(short(REQ_1, 5)))
    end)

    it("gives the answer to the request before", function()
      local ask = struck { stale = true }
      assert.same({ "", 1, 2 }, { ask(short(REQ_1, 5)), which(ask(short(REQ_0, 5))), which(ask(short(REQ_1, 5))) })
    end)

    it("pauses between characters", function()
      local _, sim = struck({ gap = 0.02 }, { delay = 0.05 })
      sim:receive(short(REQ_1, 5), 0)
      local first = sim:next()
      sim:take(first)
      assert.near(first + 0.02 + 11 / 2400, sim:next(), 1e-9)
    end)

    it("is late", function()
      local _, sim = bus_with(three { late = 0.1 })
      sim:receive(short(NKE, 5), 0)
      assert.near(55 / 2400 + 330 / 2400 + 0.05 + 0.1 + 11 / 2400, sim:next(), 1e-9)
    end)
  end)
end)
