local core = require "mbus.core"
local format = require "mbus.format.table"
local helper = require "spec.helper"
local mbus = require "mbus"
local text = require "mbus.format.text"

local function decode(hex) return assert(mbus.decode(assert(mbus.unhex(hex)))) end

-- A telegram with a long header of meter 12345678 PAD and the given records.
local function telegram_of(...)
  local header = core.unhex "78 56 34 12 24 40 01 07 55 04 00 00"
  return assert(mbus.decode(core.long(0x08, 5, 0x72, header .. table.concat { ... })))
end

local function table_of(...) return format.telegram(telegram_of(...)):match("Value.-\n(.*)$") end

describe("the table of a telegram", function()
  it("shows a heat meter as a person wants to read it", function()
    assert.equal([[
Meter       31892747, HYD, heat, version 40
Address     0, secondary 3189274724232804
Status      00h, no error; access number 237

 #  Quantity                     Details               Value  Unit
 0  energy                                         174843100  Wh
 1  volume                                          264.7291  m3
 2  power                                                0.0  W
 3  volume flow                                       0.0000  m3/h
 4  flow temperature                                    52.2  °C
 5  return temperature                                  42.3  °C
 6  temperature difference                               9.9  K
 7  date and time                           2024-09-10 22:33
 8  energy                       storage 1          11783000  Wh
 9  date and time                storage 1  2008-04-30 00:00
10  date and time, future value  storage 1  2009-12-31 00:00
11  energy                       storage 2         169302000  Wh
12  date and time                storage 2  2023-12-31 00:00
13  operating time                                    160302  h
]], format.telegram(decode(helper.HYD)))
  end)

  it("says the status in words", function()
    assert.matches("Status +04h, power low; access number 85\n", format.telegram(telegram_of()))
  end)

  it("keeps the resolution of the meter, and shows durations as it counts them", function()
    local rows = table_of(core.unhex "0A 5A 20 02", core.unhex "02 23 B5 00", core.unhex "02 26 F8 10", core.unhex "01 21 00")
    assert.matches("flow temperature +22.0  °C\n", rows)
    assert.matches("181  d\n", rows)
    assert.matches("4344  h\n", rows)
    assert.matches("0  min\n", rows)
    assert.matches(" 1.5  h\n", table_of("\x05\x22" .. ("<f"):pack(1.5)))
    assert.matches(" 9223372036854775808  min\n", table_of("\x07\xFD\x2D" .. ("\0"):rep(7) .. "\x80"))
  end)

  it("never breaks a number, which would be another one", function()
    local rows = table_of(core.unhex "D4 C1 01 06 FF FF FF 7F", core.unhex "D7 C1 01 0E FF FF FF FF FF FF FF 7E",
      core.unhex "07 FB D5 DD 1D FE FF FF FF FF FF FF 7F")
    assert.matches(" 9151314442816847871000000  J\n", rows)
  end)

  it("shows a duration with an additive correction as it is", function()
    assert.matches(" 301.000  s\n", table_of(core.unhex "04 A1 7B 05 00 00 00"))
  end)

  it("knows the status of the fixed structure", function()
    for status, words in pairs { [0] = "BCD, actual values", "binary, actual values", "BCD, stored values", "binary, stored values",
      "BCD, actual values, power low" } do
      local bytes = core.long(0x08, 5, 0x73, core.unhex "78 56 34 12 0A" .. string.char(status) .. core.unhex "E9 7E 01 00 00 00 35 01 00 00")
      assert.matches("Status +%x%xh, " .. words .. ";", format.telegram(assert(mbus.decode(bytes))))
    end
  end)

  it("shows what is no value as --, and why", function()
    assert.matches("volume +invalid BCD digits +%-%-  m3\n", table_of(core.unhex "0C 13 3F 12 00 00"))
    assert.matches("date +no valid date +%-%-\n", table_of(core.unhex "02 6C 00 00"))
    assert.matches("volume +not a number +%-%-  m3\n", table_of(core.unhex "05 13 00 00 C0 7F"))
  end)

  it("names function, storage, tariff and subunit where they are not plain", function()
    assert.matches("energy +maximum, tariff 2, subunit 1 +7  Wh\n", table_of(core.unhex "91 60 03 07"))
  end)

  it("shows real32 with the digits it has", function()
    assert.matches(" 0.1  m3\n", table_of("\x05\x16" .. ("<f"):pack(0.1)))
    assert.matches(" 16777216  m3\n", table_of("\x05\x16" .. ("<f"):pack(16777216)))
  end)

  it("quotes text with blanks around it, and defuses control characters", function()
    assert.matches('"ab "\n', table_of(core.unhex "0D FD 11 03 20 62 61"))
    assert.matches("\\x1B%[2J\n", table_of(core.unhex "0D FD 11 04 4A 32 5B 1B"))
  end)

  it("shows the good records before the damage", function()
    local shown = format.telegram(telegram_of(core.unhex "01 13 07", core.unhex "04 13 00"))
    assert.matches("0  volume +0.007  m3\n", shown)
    assert.matches("\nProblem +the telegram ends inside the data of a record at byte %d+\n$", shown)
  end)

  it("shows the maker's data, and that more records follow", function()
    local shown = format.telegram(telegram_of(core.unhex "1F DE AD"))
    assert.matches("\nMaker data +DE AD\n\nMore records follow in the next telegram.\n$", shown)
  end)

  it("names frames that carry no records", function()
    assert.equal("Frame       acknowledgement E5\n", format.telegram(decode "E5"))
    assert.equal("Frame       short frame, C 7Bh (REQ_UD2), address 5\n", format.telegram(decode "10 7B 05 80 16"))
    assert.matches("Selects +FFFFFF11, manufacturer FFFFh, version FFh, medium FFh\n",
      format.telegram(decode "68 0B 0B 68 53 FD 52 11 FF FF FF FF FF FF FF AC 16"))
    assert.matches("Error +application error 8, application busy\n", format.telegram(decode "68 04 04 68 08 01 70 08 81 16"))
  end)

  it("fits whatever width it is given, down to what its columns need", function()
    local long = telegram_of(core.unhex "91 FF FF FF 03 03 07", "\x0D\xFD\x11\x40" .. ("x"):rep(64),
      core.unhex "0D 7C 08 44 49 20 2E 74 73 75 63 0A 20 20 20 20 20 20 20 20 20 20", core.unhex "07 83 BB 3C FF FF FF FF FF FF FF 7F")
    for _, width in ipairs { 72, 80, 100 } do
      for line in format.telegram(long, { width = width }):gmatch("[^\n]+") do
        assert.is_true(text.width(line) <= width, line)
      end
    end
  end)

  it("is bold only where asked", function()
    assert.is_nil(format.telegram(decode(helper.HYD)):find("\27", 1, true))
    assert.matches("\27%[1mMeter", format.telegram(decode(helper.HYD), { colour = true }))
  end)
end)

describe("the table of a readout", function()
  it("counts the records of all telegrams and shows the address that was asked", function()
    local Readout = require "mbus.readout"
    local first, second = telegram_of(core.unhex "01 13 07", "\x1F"), telegram_of(core.unhex "01 13 08", "\x0F\x01")
    local shown = format.readout(Readout.new("12345678FFFFFFFF", { first, second }))
    assert.matches("Address +12345678FFFFFFFF, secondary 1234567824400107\n", shown)
    assert.matches("Telegrams +2\n", shown)
    assert.matches("0  volume +0.007  m3\n", shown)
    assert.matches("2  volume +0.008  m3\n", shown)
    assert.matches("Maker data +01\n", shown)
  end)
end)
