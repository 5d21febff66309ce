local anatomy = require "mbus.format.anatomy"
local annotated = require "mbus.format.annotated"
local core = require "mbus.core"
local helper = require "spec.helper"
local mbus = require "mbus"
local Readout = require "mbus.readout"
local text = require "mbus.format.text"

local CORPUS = "../shared/corpus/"

-- The frame of a telegram with a long header of meter 12345678 PAD and the given records.
local function frame_of(...)
  return core.long(0x08, 5, 0x72, core.unhex "78 56 34 12 24 40 01 07 55 04 00 00" .. table.concat { ... })
end

local function hex_frame_of(hex) return frame_of(assert(core.unhex(hex))) end

local function explain(bytes, options) return (annotated.bytes(bytes, options)) end

-- The bytes that are shown, which must stand at the offsets that are shown.
local function bytes_in(shown)
  local bytes = {}
  for line in shown:gmatch "[^\n]+" do
    local offset, rest = line:match "^ *(%d+)  (%x%x .*)$"
    offset, rest = offset or line:match "^ *(%d+)  %x%x$", rest or line:match "^ *%d+  (%x%x)$"
    if offset then
      assert.equal(#bytes, tonumber(offset), line)
      for byte in (rest:match "^(.-)  " or rest):gmatch "%x%x" do bytes[#bytes + 1] = string.char(tonumber(byte, 16)) end
    end
  end
  return table.concat(bytes)
end

local function check_whole(bytes, what)
  local shown = explain(bytes)
  assert.equal(core.hex(bytes), core.hex(bytes_in(shown)), what)
  for line in shown:gmatch "[^\n]+" do assert.is_true(text.width(line) <= 80, line) end
end

local OWN = {
  helper.HYD, "E5", "10 7B 05 80 16", "68 03 03 68 08 05 70 7D 16", "68 04 04 68 08 01 70 08 81 16",
  "68 0B 0B 68 53 FD 52 11 FF FF FF FF FF FF FF AC 16", "68 13 13 68 08 05 73 78 56 34 12 0a 00 e9 7e 01 00 00 00 35 01 00 00 3c 16",
  "68 04 04 68 53 FE 50 10 B1 16", "68 03 03 68 53 FE BB 0C 16",
}

local RECORDS = {
  "04 13 37 18 02 00", "84 50 2B 0A 00 00 00", "0C 13 3F 12 00 00", "02 6C BF 1C", "04 6D 21 16 0A 39", "06 6D 2C 1A A1 D5 21 00",
  "03 FD 65 00 1E 0C", "05 13 00 00 C0 7F", "05 5B 2B 4B AC 41", "0D FD 11 03 61 62 63", "0D 13 C2 34 12", "0D 13 D2 34 12", "0D 7E E3 01 02 03",
  "02 FC 03 48 52 25 74 22 15", "02 7C 03 48 52 25 36 00", "04 BE 50 71 BB B0 00", "04 FD C8 FC 01 D1 08 00 00", "02 FD C9 FF 01 E9 00",
  "04 83 3B 88 13 00 00", "04 93 15 00 00 00 00", "2F 2F 01 13 07 2F", "0F AB CD", "1F", "00 13", "01 FD FD 02 30", "01 FB 6A 10", "01 A4 7D 02",
}

describe("an explained telegram", function()
  it("shows a heat meter as a person wants to read it", function()
    local shown = explain(core.unhex(helper.HYD))
    assert.equal([[
   0  68                 start     long frame
   1  5E 5E              length    94 bytes from C up to the checksum, twice
   3  68                 start     again
   4  08                 C         RSP_UD, the meter's answer
   5  00                 A         address 0, not set up yet
   6  72                 CI        variable data, long header
   7  47 27 89 31        ident     identification number 31892747
  11  24 23              maker     2324h: HYD
  13  28                 version   version 40
  14  04                 medium    medium 04h: heat
  15  ED                 access    access number 237
  16  00                 status    no error
  17  00 00              config    not encrypted

record 0: energy = 174843100 Wh
  19  0C                 DIF       8-digit BCD, instantaneous
  20  05                 VIF       energy in 10^2 Wh
  21  31 84 74 01        data      BCD 01748431 × 10^2 = 174843100 Wh

]], shown:match "^(.-\n)record 1:")
    assert.matches([[

record 7: datetime = 2024-09-10T22:33:00
  54  04                 DIF       32-bit integer, instantaneous
  55  6D                 VIF       datetime
  56  21 16 0A 39        data      type F: minute 33, hour 22, day 10, month 9,
                                   year 24 = 2024-09-10T22:33:00
]], shown, 1, true)
    assert.matches([[

end of the frame
  98  F5                 checksum  F5h, the sum of bytes 4 to 97
  99  16                 stop      end of the frame
]], shown, 1, true)
  end)

  it("shows every byte once, in order, and no line too long", function()
    for _, hex in ipairs(OWN) do check_whole(core.unhex(hex), hex) end
    for _, hex in ipairs(RECORDS) do check_whole(hex_frame_of(hex), hex) end
    check_whole(hex_frame_of(table.concat(RECORDS, " ", 1, 18)))
  end)

  it("shows every byte of what is damaged, wherever it is cut or changed", function()
    for _, hex in ipairs(OWN) do
      local bytes = core.unhex(hex)
      for cut = 0, #bytes - 1 do
        check_whole(bytes:sub(1, cut), hex .. " cut after " .. cut)
        check_whole(bytes:sub(1, cut) .. "\x8B" .. bytes:sub(cut + 2), hex .. " with 8B at " .. cut)
      end
      check_whole(bytes .. "\0\1", hex .. " and more")
      check_whole(bytes:sub(1, -2) .. "\xFF\0", hex .. " with a wrong stop byte and more")
    end
    for _, hex in ipairs(RECORDS) do
      local record = core.unhex(hex)
      for cut = 1, #record - 1 do check_whole(frame_of(record:sub(1, cut)), hex .. " cut after " .. cut) end
    end
  end)

  it("takes any bytes", function()
    local seed = 42
    local function random(n)
      seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
      return (seed >> 8) % n
    end
    for _ = 1, 1500 do
      local bytes = {}
      for i = 1, random(50) do bytes[i] = string.char(random(256)) end
      local data = table.concat(bytes)
      check_whole(data)
      check_whole(core.long(random(256), random(256), random(256), data))
      check_whole(frame_of(data))
    end
  end)
end)

describe("an explained record", function()
  -- Its parts as "role: meaning".
  local function parts(hex, c, ci)
    local telegram = assert(mbus.decode(core.long(c or 0x08, 5, ci or 0x78, core.unhex(hex))))
    local out, size = {}, 0
    for i, part in ipairs(anatomy.parts(telegram:record(0), telegram)) do
      out[i] = (part.role .. ": " .. part.meaning):gsub("^: ", "")
      size = size + part.size
    end
    assert.equal(#core.unhex(hex), size)
    return out
  end

  it("says how the digits become the value", function()
    assert.same({ "DIF: 16-bit integer, instantaneous", "VIF: flow temperature in 10^-1 °C", "data: FF0Bh = -245 × 10^-1 = -24.5 °C" },
      parts "02 5A 0B FF")
    assert.equal("data: BCD 000018 × 10^-2 = 0.18 K", parts("0B 61 18 00 00")[3])
    assert.equal("data: BCD F00018, F is a minus × 10^-2 = -0.18 K", parts("0B 61 18 00 F0")[3])
    assert.same({ "VIF: on time in hours", "data: 02h = 2 × 3600 = 7200 s" }, { table.unpack(parts "01 22 02", 2) })
    assert.equal("data: 07h = 7 Wh", parts("01 03 07")[3])
    assert.equal("data: real32 = 0.5 °C", parts("05 5B 00 00 00 3F")[3])
    assert.equal("data: 10h = 16 / 4096 = 0.00390625", (parts("01 FB 6A 10")[3]:gsub("0+$", "")))
  end)

  it("shows digits as people write them, whichever byte comes first", function()
    local function counter(ci, hex)
      return (explain(core.long(0x08, 5, ci, core.unhex(hex)), { width = 120 }):match "counter   ([^\n]*)")
    end
    assert.equal("00000123h = 291 × 10^-3 = 0.291 m3", counter(0x77, "12345678 01 01 E9 7E 00000123 FFFFFFFE"))
    assert.equal("BCD F0000123, F is a minus × 10^-3 = -0.123 m3", counter(0x77, "12345678 01 00 E9 7E F0000123 00000001"))
    assert.equal("BCD 00000123 = 123 m3", counter(0x73, "12345678 01 00 AC 9C 00000123 00000001")) -- a medium of mode 2
    assert.equal("BCD 00000123 = 123 m3", counter(0x73, "78563412 01 00 EC 7E 23010000 01000000"))
    local shown = explain(core.long(0x08, 5, 0x76, core.unhex "12345678 4024 01 07 55 00 0000 0D FD 11 03 61 62 63"))
    assert.matches('first character first: "abc"', shown, 1, true)
  end)

  it("takes DIFEs apart", function()
    assert.same({ "DIF: 32-bit integer, maximum, storage + 1", "DIFE: storage + 2, tariff + 1, subunit + 1", "DIFE: tariff + 8" },
      { table.unpack(parts "D4 D1 20 03 01 00 00 00", 1, 3) })
    assert.equal("DIFE: adds nothing", parts("84 00 03 01 00 00 00")[2])
  end)

  it("says what each VIFE does, by asking the decoder", function()
    assert.same({ "VIF: energy in 10^1 Wh", "VIFE: × 10^-1", "data: 02h = 2 Wh" }, { table.unpack(parts "01 84 75 02", 2) })
    assert.same({ "VIF: volume in 10^-3 m3", "VIFE: per input pulse 0, the unit is m3/input_pulse_0", "VIFE: forward only" },
      { table.unpack(parts "01 93 A8 3B 02", 2, 4) })
    assert.same({ "VIF: volume flow in m3/h", "VIFE: duration of first lower limit exceed; the data is a duration in s" },
      { table.unpack(parts "04 BE 50 71 BB B0 00", 2, 3) })
    assert.equal("VIFE: end of last; the data is a date or time", parts("04 DA 6F 32 14 7A 18")[3])
    assert.equal("VIFE: upper limit exceed count; the data is a count", parts("01 BE 49 03")[3])
    assert.same({ "VIF: voltage in 10^-1 V", "VIFE: at phase l1" }, { table.unpack(parts "04 FD C8 FC 01 D1 08 00 00", 2, 3) })
    assert.same({ "VIFE: from here on the manufacturer's own", "VIFE: the manufacturer's own" },
      { table.unpack(parts "02 FD C9 FF 01 E9 00", 3, 4) })
    assert.equal("VIFE: + 10^-1", parts("01 DB 7A 16")[3])
    assert.equal("data: 16h = 22 + 0.1 = 22.100 °C", parts("01 DB 7A 16")[4])
  end)

  it("tells record errors of a meter from actions of a master", function()
    assert.same({ "VIFE: record error: data overflow", "data: 00h = 0", "no value: record error: data overflow" },
      { table.unpack(parts "01 93 16 00", 3) })
    assert.equal("VIFE: no record error", parts("01 93 00 05")[3])
    assert.equal("VIFE: action: clear", parts("01 93 07 00", 0x53, 0x51)[3])
  end)

  it("shows units in plain text at either place", function()
    assert.same({ "VIF: unit in plain text", "unit: 3 characters: %RH", "VIFE: × 10^-2", "data: 1522h = 5410 × 10^-2 = 54.10 %RH" },
      { table.unpack(parts "02 FC 03 48 52 25 74 22 15", 2) })
    assert.same({ "VIF: unit in plain text", "VIFE: × 10^-2", "unit: 3 characters: %RH", "data: 1522h = 5410 × 10^-2 = 54.10 %RH" },
      { table.unpack(parts "02 FC 74 03 48 52 25 22 15", 2) })
    assert.equal("unit: 3 characters: %RH", parts("02 7C 03 48 52 25 36 00")[3])
  end)

  it("shows what has a length of its own", function()
    assert.same({ "LVAR: 3 characters or bytes follow", 'data: last character first: "cba"' }, { table.unpack(parts "0D FD 11 03 61 62 63", 3) })
    assert.same({ "LVAR: BCD number, 4 digits", "data: BCD 1234 × 10^-3 = 1.234 m3" }, { table.unpack(parts "0D 13 C2 34 12", 3) })
    assert.same({ "LVAR: negative BCD number, 4 digits", "data: BCD 1234 × 10^-3 = -1.234 m3" }, { table.unpack(parts "0D 13 D2 34 12", 3) })
  end)

  it("takes dates apart, and says why there is no value", function()
    assert.equal("data: type G: day 31, month 12, year 13 = 2013-12-31", parts("02 6C BF 1C")[3])
    assert.equal("data: type I: second 44, minute 26, hour 1, day 21, month 1, year 22 = 2022-01-21T01:26:44",
      parts("06 6D 2C 1A A1 D5 21 00")[3])
    assert.same({ "data: type G: day 0, month 0, year 0", "no value: no such date, or not set" },
      { (parts("02 6C 00 00")[3]), (parts("02 6C 00 00")[4]:gsub(", shown.*", "")) })
    assert.equal('no value: digits above 9, shown as "  E--4  "', parts("0C 2B DD B4 EB DD")[4])
  end)
end)

describe("an explained frame that is not good", function()
  it("has its content explained where only the end is wrong", function()
    local bytes = hex_frame_of "01 13 07"
    local shown, err = annotated.bytes(bytes:sub(1, -3) .. "\0\x16")
    assert.equal("bad_checksum", err.code)
    assert.matches("record 0: volume = 0.007 m3\n", shown, 1, true)
    assert.matches(("checksum  wrong: it should be %02Xh\n"):format(bytes:byte(-2)), shown, 1, true)
    assert.matches("\ndamaged: the checksum is wrong at byte 22\n", shown, 1, true)
    assert.matches("stop      wrong: it should be 16h\n", explain(bytes:sub(1, -2) .. "\x17"), 1, true)
    assert.matches("\ndamaged: bytes follow the frame at byte 24\n  24  00 01 ", explain(bytes .. "\0\1"), 1, true)
  end)

  it("has the good part explained where it is cut", function()
    local shown, err = annotated.bytes(core.unhex(helper.HYD):sub(1, 28))
    assert.equal("truncated_frame", err.code)
    assert.matches("length    94 bytes from C up to the checksum, 24 are\n", shown, 1, true)
    assert.matches("record 0: energy = 174843100 Wh\n", shown, 1, true)
    assert.matches([[
  25  0C                 DIF       8-digit BCD, instantaneous
  26  12                 VIF       volume in 10^-4 m3
  27  91                 data      1 of 4 bytes
]], shown, 1, true)
  end)

  it("shows where a record breaks, and the rest", function()
    local shown, err = annotated.bytes(hex_frame_of "01 13 07 8B 8B 8B 8B 8B 8B 8B 8B 8B 8B 8B 60 04 37 18 02")
    assert.equal("too_many_dife", err.code)
    assert.matches("record 0: volume = 0.007 m3\n", shown, 1, true)
    assert.matches("\ndamaged: .- at byte 33\n  22  8B .-\n  33  60 04 37 18 02 +`.7..\n\nend of the frame\n", shown)
  end)

  it("gives no role to bytes that it cannot know", function()
    local shown = explain(core.long(0x08, 5, 0x73, core.unhex "78563412 2440 01 07 55 00 0000 34 12 78 56 01 02"))
    assert.not_matches("signature of the record headers", shown, 1, true) -- which would stand behind the header
    assert.matches("a fixed data structure has 16 bytes", shown, 1, true)
    assert.not_matches("subcode", explain(core.long(0x53, 5, 0x50, "")))
  end)

  it("says that encrypted data is not read, and does not call it damaged", function()
    local header = core.unhex "78 56 34 12 24 40 01 07 55 00 10 05"
    local bytes = core.long(0x08, 5, 0x72, header .. ("\xAA"):rep(16))
    local shown, err = annotated.bytes(bytes)
    assert.equal("encrypted", err.kind)
    assert.matches("security mode 5\n", shown, 1, true)
    assert.matches("\nnot read: ", shown)
    assert.is_nil(shown:find "damaged")
    check_whole(bytes)
  end)
end)

describe("explaining", function()
  it("is coloured only where asked, and says the same", function()
    local bytes = core.unhex(helper.HYD)
    local plain, coloured = explain(bytes), explain(bytes, { colour = true })
    assert.is_nil(plain:find("\27", 1, true))
    for _, colour in ipairs { 33, 32, 35, 36, 94 } do assert.matches(("\27[%dm"):format(colour), coloured, 1, true) end
    assert.equal(plain, (coloured:gsub("\27%[%d*m", ""):gsub(" +\n", "\n")))
  end)

  it("fits the width it is given", function()
    for _, width in ipairs { 60, 72, 120 } do
      for line in explain(core.unhex(helper.HYD), { width = width }):gmatch "[^\n]+" do
        assert.is_true(text.width(line) <= width, line)
      end
    end
  end)

  it("defuses what a meter may send to a terminal", function()
    assert.is_nil(explain(frame_of "\x0D\xFD\x11\x04J2[\27"):find("\27", 1, true))
    assert.is_nil(explain(frame_of "\x0F\27[2J"):find("\27", 1, true))
    assert.is_nil(explain(frame_of "\x02\x7C\x03\27[2\0\0"):find("\27", 1, true))
  end)

  it("takes a readout telegram by telegram, and streams", function()
    local telegram = mbus.decode(hex_frame_of "01 13 07")
    local shown = annotated.readout(Readout.new(5, { telegram, telegram }))
    assert.matches("^address 5, telegram 1 of 2, 24 bytes\n   0  68", shown)
    assert.matches("\n\naddress 5, telegram 2 of 2, 24 bytes\n", shown, 1, true)
    local parts = {}
    local out = annotated.stream(function(part) parts[#parts + 1] = part end)
    out.telegram(telegram)
    out.failure({ kind = "noise", message = "x" }, nil, "\x55")
    out.failure({ kind = "invalid", message = "no hex" })
    out.finish()
    assert.equal(annotated.telegram(telegram) .. "\n" .. explain "\x55", table.concat(parts))
  end)
end)

describe("explaining the corpus", function()
  local index = io.open(CORPUS .. "index.csv")
  if not index then
    pending("skipped: there is no " .. CORPUS)
    return
  end
  index:close()

  it("shows every byte of every telegram", function()
    local count = 0
    for line in io.lines(CORPUS .. "index.csv") do
      local name, where = line:match "^([^,]+),([^,]+),"
      if where == "wired" or where == "errors" then
        check_whole(assert(core.unhex(helper.read(CORPUS .. where .. "/" .. name .. ".hex"))), name)
        count = count + 1
      end
    end
    print(("annotated: all bytes of %d telegrams"):format(count))
    assert.is_true(count > 0)
  end)
end)
