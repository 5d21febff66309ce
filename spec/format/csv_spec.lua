local core = require "mbus.core"
local csv = require "mbus.format.csv"
local helper = require "spec.helper"
local mbus = require "mbus"
local Readout = require "mbus.readout"

local function decode(hex) return assert(mbus.decode(assert(mbus.unhex(hex)))) end

-- A telegram with a long header of meter 12345678 PAD and the given records.
local function telegram_of(...)
  local header = core.unhex "78 56 34 12 24 40 01 07 55 04 00 00"
  return assert(mbus.decode(core.long(0x08, 5, 0x72, header .. table.concat { ... })))
end

-- A reader as RFC 4180 describes it, strict: every record ends with CR LF, quotes stand only around a whole field.
local function parse(text)
  local rows, row, at = {}, {}, 1
  while at <= #text do
    local field
    if text:sub(at, at) == '"' then
      local stop = at + 1
      while true do
        stop = assert(text:find('"', stop, true), "an open quote")
        if text:sub(stop + 1, stop + 1) ~= '"' then break end
        stop = stop + 2
      end
      field, at = text:sub(at + 1, stop - 1):gsub('""', '"'), stop + 1
    else
      field = text:match('^[^,"\r\n]*', at)
      at = at + #field
    end
    row[#row + 1] = field
    if text:sub(at, at + 1) == "\r\n" then
      rows[#rows + 1], row, at = row, {}, at + 2
    else
      assert(text:sub(at, at) == ",", "neither a comma nor a line end at " .. at)
      at = at + 1
    end
  end
  assert(#row == 0, "the last line has no end")
  return rows
end

-- Rows as tables by title.
local function records(text)
  local rows, out = parse(text), {}
  local titles = table.remove(rows, 1)
  for i, row in ipairs(rows) do
    assert.equal(#titles, #row)
    out[i] = {}
    for c, title in ipairs(titles) do out[i][title] = row[c] end
  end
  return out, titles
end

describe("CSV", function()
  it("has a header line and one row a record", function()
    local rows, titles = records(csv.telegram(decode(helper.HYD)))
    assert.equal("address id manufacturer version medium telegram index function storage tariff subunit quantity value unit type text "
      .. "modifiers error flags raw_dif_hex raw_vif_hex raw_data_hex", table.concat(titles, " "))
    assert.equal(14, #rows)
    local row = rows[9]
    assert.same({ "0", "31892747", "HYD", "40", "heat", "0", "8", "instantaneous", "1", "0", "0", "energy", "11783000", "Wh", "number",
      "", "", "", "", "4c", "05", "30781100" }, parse((csv.telegram(decode(helper.HYD))))[10])
    assert.equal("11783000", row.value)
    assert.equal("2024-09-10T22:33:00", rows[8].value)
    assert.equal("future_value", rows[11].modifiers)
  end)

  it("keeps every digit, in plain decimal", function()
    local rows = records(csv.telegram(telegram_of(core.unhex "07 03 FF FF FF FF FF FF FF 7F", core.unhex "0A 5A 20 02",
      core.unhex "0C 78 01 00 00 00", "\x05\x10" .. ("<f"):pack(0.5), "\x05\x1F" .. ("<f"):pack(3e38), core.unhex "07 17 01 00 00 00 00 00 00 00")))
    assert.equal("9223372036854775807", rows[1].value)
    assert.equal("22.0", rows[2].value)
    assert.equal("1", rows[3].value)
    assert.equal("00000001", rows[3].text)
    assert.equal("0.0000005", rows[4].value)
    assert.matches("^%d+$", rows[5].value)
    assert.equal(("<f"):pack(3e38), ("<f"):pack(tonumber(rows[5].value) / 1e4))
    assert.equal("10", rows[6].value)
  end)

  it("leaves empty what is no value, and says why", function()
    local rows = records(csv.telegram(telegram_of(core.unhex "0C 13 3F 12 00 00", core.unhex "02 6C 00 00", core.unhex "04 93 15 00 00 00 00")))
    assert.same({ "", "bcd_invalid" }, { rows[1].value, rows[1].flags })
    assert.same({ "", "date_invalid" }, { rows[2].value, rows[2].flags })
    assert.same({ "", "no_data_available" }, { rows[3].value, rows[3].error })
  end)

  it("quotes as RFC 4180 asks, and nothing else", function()
    local function text_of(text)
      return csv.telegram(telegram_of("\x0D\xFD\x11" .. string.char(#text) .. text:reverse()), { header = false })
    end
    assert.matches(',plain text,,string,', text_of "plain text", 1, true)
    assert.matches(',"a,b",,string,', text_of "a,b", 1, true)
    assert.matches(',"say ""hi""",,string,', text_of 'say "hi"', 1, true)
    assert.matches(',"two\r\nlines",,string,', text_of "two\r\nlines", 1, true)
    assert.matches(',"a\nb",,string,', text_of "a\nb", 1, true)
    assert.matches(',"a\rb",,string,', text_of "a\rb", 1, true)
    assert.matches(',"  padded ",,string,', text_of "  padded ", 1, true)
    assert.matches(",,,string,", text_of "", 1, true)
    assert.matches(",\xC3\xA4,,string,", text_of "\xE4", 1, true)
    for _, text in ipairs { '"', '""', ',', '\r\n', '"\r\n,"', ' ', '\t', 'a"b,c\nd' } do
      local rows = records(csv.telegram(telegram_of("\x0D\xFD\x11" .. string.char(#text) .. text:reverse())))
      assert.equal(text, rows[1].value)
    end
  end)

  it("has no control characters but tab and line ends", function()
    local all = {}
    for code = 0, 159 do
      if code < 32 or code > 126 then all[#all + 1] = string.char(code) end
    end
    local text = csv.telegram(telegram_of("\x0D\xFD\x11" .. string.char(#all) .. table.concat(all)))
    assert.is_nil(text:find("[\0-\8\11\12\14-\31\127]"))
    assert.is_nil(text:find("\xC2[\x80-\x9F]"))
    assert.matches("\\x1B", text, 1, true)
    assert.equal(2, #parse(text))
  end)

  it("gives no row to the manufacturer's data and to what cannot be read", function()
    assert.equal(2, #parse(csv.telegram(telegram_of(core.unhex "01 13 07", "\x0F\1\2"))))
    assert.equal(2, #parse(csv.telegram(telegram_of(core.unhex "01 13 07", core.unhex "04 13 00")))) -- cut
    assert.equal(1, #parse(csv.telegram(decode "E5")))
  end)

  it("counts the records of a readout through, with the address that was asked", function()
    local first, second = telegram_of(core.unhex "01 13 07", "\x1F"), telegram_of(core.unhex "01 13 08")
    local rows = records(csv.readout(Readout.new("12345678FFFFFFFF", { first, second })))
    assert.same({ "12345678FFFFFFFF", "0", "0" }, { rows[1].address, rows[1].telegram, rows[1].index })
    assert.same({ "12345678FFFFFFFF", "1", "2" }, { rows[2].address, rows[2].telegram, rows[2].index })
    assert.equal("12345678", rows[2].id)
  end)

  it("is one file with one header line when it is streamed", function()
    local parts = {}
    local out = csv.stream(function(text) parts[#parts + 1] = text end)
    out.telegram(decode(helper.HYD))
    out.failure({ kind = "checksum", message = "bad" })
    out.unread(7, { kind = "timeout", message = "no answer" })
    out.readout(Readout.new(5, { telegram_of(core.unhex "01 13 07") }))
    out.finish()
    local rows = parse(table.concat(parts))
    assert.equal(16, #rows)
    for i = 2, #rows do assert.not_equal("address", rows[i][1]) end
    parts = {}
    csv.stream(function(text) parts[#parts + 1] = text end).finish()
    assert.equal(1, #parse(table.concat(parts)))
  end)
end)
