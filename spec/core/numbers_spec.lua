-- Exact decimals, glyphs of invalid digits, units in plain text and lengths of data, at their bounds.
local core = require "mbus.core"

local function bytes(text) return assert(core.unhex(text)) end

local function telegram(text) return assert(core.telegram(core.long(0x08, 1, 0x78, bytes(text)))) end

local function record(text)
  local t = telegram(text)
  assert.is_nil(t.error, text)
  assert.are.equal(1, #t, text)
  return t:record(0)
end

describe("the decimal text of a number", function()
  it("has all digits and places", function()
    for text, want in pairs {
      ["01 13 00"] = "0.000", ["01 16 00"] = "0", ["01 17 00"] = "0", ["01 17 05"] = "50", ["01 13 FF"] = "-0.001", ["01 10 FF"] = "-0.000001",
      ["02 13 E8 03"] = "1.000", ["02 13 E7 03"] = "0.999", ["04 06 FF FF FF 7F"] = "2147483647000",
      ["07 06 FF FF FF FF FF FF FF 7F"] = "9223372036854775807000", ["07 10 01 00 00 00 00 00 00 80"] = "-9223372036854.775807",
      ["07 FD 0F FE FF FF FF FF FF FF FF"] = "18446744073709551614", ["04 FD 0F FF FF FF FE"] = "4278190079",
      ["07 21 FF FF FF FF FF FF FF 7F"] = "553402322211286548420", ["07 FB 68 FE FF FF FF FF FF FF FF"] = "4503599627370495.999511718750",
      ["07 A3 77 FF FF FF FF FF FF FF 7F"] = "7968993439842526297248000", -- tens of days
      ["07 FB 68 00 00 00 00 00 00 00 80"] = "2251799813685248.000000000000",
    } do
      assert.are.equal(want, core.decimal(record(text)), text)
    end
  end)

  it("adds what a VIFE adds", function()
    for text, want in pairs {
      ["01 AB 78 00"] = "0.001", ["01 AB 78 FF"] = "-0.999", ["01 AB 7B FF"] = "0.000", ["01 AB 7B FE"] = "-1.000", ["01 A8 78 05"] = "0.006",
      ["01 90 78 05"] = "0.001005", ["01 90 78 FF"] = "0.000999", ["01 AF 7B 03"] = "30001.000", ["01 AF FB 7B FD"] = "-29998.000",
      ["02 90 78 18 FC"] = "0.000000", ["02 90 78 17 FC"] = "-0.000001", ["07 AB 79 FF FF FF FF FF FF FF 7F"] = "9223372036854775807.010",
      ["07 AB 79 01 00 00 00 00 00 00 80"] = "-9223372036854775806.990",
    } do
      assert.are.equal(want, core.decimal(record(text)), text)
    end
  end)

  it("follows many corrections", function()
    local thousand = record "0D AB FD FD FD FD FD FD FD FD FD 7D C1 05"
    assert.are.equal("5" .. ("0"):rep(30), core.decimal(thousand))
    assert.are.equal("0." .. ("0"):rep(59) .. "5", core.decimal(record "0D AB F0 F0 F0 F0 F0 F0 F0 F0 F0 70 C1 05"))
  end)
end)

describe("digits that are none", function()
  it("take the sign with them", function()
    for _, text in ipairs { "0A 13 A0 F0", "0A 13 0A F0", "0A 13 00 FA" } do
      assert.are.same({ "bcd_invalid" }, { table.unpack(record(text).flags) }, text)
    end
  end)

  it("show as a meter's display would", function()
    local first, others = {}, {}
    for digit = 10, 15 do
      first[#first + 1] = record(("0A 13 0A %X0"):format(digit)).text:sub(1, 1)
      others[#others + 1] = record(("0A 13 0A 0%X"):format(digit)).text:sub(2, 2)
    end
    assert.are.same({ "0", "1", "2", " ", "8", "9" }, first)
    assert.are.same({ "A", "-", "C", " ", "E", "F" }, others)
  end)
end)

describe("the length of data", function()
  it("is what DIF or LVAR says, and no more is taken", function()
    local sizes = { [1] = 1, [2] = 2, [3] = 3, [4] = 4, [5] = 4, [6] = 6, [7] = 8, [8] = 0, [9] = 1, [10] = 2, [11] = 3, [12] = 4, [14] = 6, [0] = 0 }
    for field, size in pairs(sizes) do
      local t = telegram(("%02X 13"):format(field) .. ("01"):rep(size) .. "01 13 05")
      assert.are.same({ 2, size * 2 }, { #t, #t:record(0).raw_data_hex })
      if size > 0 then
        assert.are.equal("premature_end_of_data", telegram(("%02X 13"):format(field) .. ("01"):rep(size - 1)).error.code)
      end
    end
  end)

  it("by LVAR has a code for each length", function()
    for lvar = 0, 255 do
      local size = lvar <= 0xBF and lvar or lvar <= 0xC9 and lvar - 0xC0 or lvar >= 0xD0 and lvar <= 0xD9 and lvar - 0xD0
        or lvar >= 0xE0 and lvar <= 0xEF and lvar - 0xE0 or lvar >= 0xF0 and lvar <= 0xF4 and 4 * (lvar - 0xEC)
        or lvar == 0xF5 and 48 or lvar == 0xF6 and 64
      local t = telegram(("0D 13 %02X"):format(lvar) .. ("01"):rep(size or 1) .. "01 13 05")
      if size then
        assert.are.same({ 2, 2 + 2 * size }, { #t, #t:record(0).raw_data_hex }, ("%02X"):format(lvar))
        assert.are.equal(0.005, t:record(1).value)
      else
        assert.are.same({ 0, "reserved_lvar" }, { #t, t.error.code }, ("%02X"):format(lvar))
      end
    end
  end)

  it("by LVAR says what the data is", function()
    local function seen(text)
      local r = record(text)
      return r.value, r.type, table.concat(r.flags, " ")
    end
    assert.are.same({ ("a"):rep(191), "string", "" }, { seen("0D FD 10 BF" .. ("61"):rep(191)) })
    assert.are.same({ nil, "number", "value_invalid" }, { seen "0D 13 C0" }) -- no digit is no number
    assert.are.same({ 0.001, "number", "" }, { seen "0D 13 C1 01" })
    assert.are.same({ nil, "number", "bcd_invalid" }, { seen "0D 13 C1 F1" }) -- the sign is in LVAR
    assert.are.same({ nil, "number", "bcd_invalid" }, { seen "0D 13 D1 1A" })
    assert.are.same({ -0.001, "number", "" }, { seen "0D 13 D1 01" })
    assert.are.same({ -1, "number", "" }, { seen "0D 2B D9 01 00 00 00 00 00 00 00 00" })
    assert.are.same({ 1, "number", "" }, { seen "0D 2B C9 01 00 00 00 00 00 00 00 00" })
    assert.are.same({ 9.999, "number", "" }, { seen "0D 13 C2 99 99" })
    assert.are.same({ "", "bytes", "" }, { seen "0D 13 E0" })
    assert.are.same({ -0.001, "number", "binary_lvar" }, { seen "0D 13 E1 FF" })
    assert.are.same({ -0.001, "number", "binary_lvar" }, { seen "0D 13 E8 FF FF FF FF FF FF FF FF" })
    assert.are.same({ "010101010101010101", "bytes", "" }, { seen "0D 13 E9 01 01 01 01 01 01 01 01 01" })
    assert.are.same({ "01", "bytes", "" }, { seen "0D 6D E1 01" }) -- type M
    assert.are.same({ "a", "string", "data_field_mismatch" }, { seen "0D 6D 01 61" })
    assert.are.same({ 1, "number", "data_field_mismatch" }, { seen "0D 6D C1 01" })
    assert.are.same({ "01", "bytes", "opaque" }, { seen "0D 7F E1 01" })
  end)

  it("of texts marks what no printer shows", function()
    for code = 0, 255 do
      local printable = code >= 0x20 and code <= 0x7E or code >= 0xA0
      local r = record(("0D FD 10 03 61 %02X 62"):format(code))
      assert.are.equal(printable and "" or "not_printable", table.concat(r.flags, " "), ("%02X"):format(code))
      assert.are.equal("b" .. utf8.char(code) .. "a", r.value)
      for _, at_the_edge in ipairs { "0D FD 10 03 %02X 61 62", "0D FD 10 03 61 62 %02X" } do
        local flags = record(at_the_edge:format(code)).flags
        assert.are.equal(printable and "" or "not_printable", table.concat(flags, " "), at_the_edge:format(code))
      end
    end
  end)
end)

describe("a unit in plain text", function()
  it("is printable, and directly behind the VIF", function()
    for code = 0, 255 do
      local printable = code >= 0x20 and code <= 0x7E or code >= 0xA0
      local text = ("01 FC 03 61 %02X 62 74 05"):format(code)
      local t = telegram(text)
      if printable then assert.are.equal("b" .. utf8.char(code) .. "a", t:record(0).unit, text)
      else assert.is_true(t.error ~= nil or t:record(0).unit ~= "b" .. utf8.char(code) .. "a", text) end
    end
  end)

  it("is printable from its first character to its last", function()
    for code = 0, 255 do
      local printable = code >= 0x20 and code <= 0x7E or code >= 0xA0
      for text, unit in pairs { ["01 FC 02 %02X 61 74 05"] = "a%s", ["01 FC 02 61 %02X 74 05"] = "%sa" } do
        local t = telegram(text:format(code))
        local is_unit = not t.error and t:record(0).unit == unit:format(utf8.char(code))
        assert.are.equal(printable, is_unit, text:format(code))
      end
    end
  end)

  it("stands before data that tell their own length, wherever it stands itself", function()
    for _, text in ipairs { "0D FC 02 62 61 F4 74 02 64 63", "0D FC F4 74 02 62 61 02 64 63", "0D 7C 02 62 61 02 64 63" } do
      local r = record(text)
      assert.are.same({ "ab", "cd" }, { r.unit, r.value }, text)
    end
  end)

  it("stands where there is room for the data behind it", function()
    -- 33 characters or VIFE 21, then 32 characters: the former would leave no data.
    local r = record("01 FC 21 20 " .. ("61 "):rep(32) .. "05")
    assert.are.same({ ("a"):rep(32) .. "/min", 5 }, { r.unit, r.value })
  end)

  it("stands nowhere where the data have no room", function()
    for _, text in ipairs { "04 FC F4 74 02 62 61 05", "04 FC 02 62 61 F4 74 05" } do
      assert.are.equal("premature_end_of_var_vif", telegram(text).error.code, text)
    end
  end)

  it("stands before VIFE that end, and before data of no length", function()
    for _, text in ipairs { "00 FC 02 62 61 F4", "00 FC F4 74 02 62" } do
      assert.are.equal("premature_end_of_var_vif", telegram(text).error.code, text)
    end
    for text, unit in pairs { ["00 FC 02 62 61 3C"] = "ab", ["08 FC BC 3C 02 62 61"] = "ab", ["01 FC 01 61 3C 05"] = "a", ["01 FC 02 62 61 12 05"] = "ab" } do
      assert.are.equal(unit, record(text).unit, text)
    end
  end)

  it("needs no room for data in a format frame", function()
    local signature, headers = telegram("01 FC 02 62 61 74 05"):format()
    assert.are.equal("01 FC 02 62 61 74", core.hex(headers))
    local format = assert(core.telegram(core.long(0x08, 1, 0x69, string.pack("<BI2", 2 + #headers, signature) .. headers)))
    assert.are.same({ "ab", "none" }, { format:record(0).unit, format:record(0).type })
  end)

  it("may stand behind up to ten VIFE", function()
    local ten, eleven = ("F4 "):rep(9) .. "74 ", ("F4 "):rep(10) .. "74 "
    assert.are.equal("ab", record("01 FC 02 62 61 " .. ten .. "05").unit)
    assert.are.equal("ab", record("01 FC " .. ten .. "02 62 61 05").unit)
    assert.are.equal("premature_end_of_var_vif", telegram("01 FC 02 62 61 " .. eleven .. "05").error.code)
    assert.are.equal("premature_end_of_var_vif", telegram("01 FC " .. eleven .. "02 62 61 05").error.code)
  end)

  it("without VIFE is told by its length alone", function()
    assert.are.equal("ab", record("01 7C 02 62 61 05").unit)
    assert.are.same({ 5, "a\1" }, { record("01 7C 02 01 61 05").value, record("01 7C 02 01 61 05").unit })
    assert.are.equal(5, record("01 7C 00 05").value)
    assert.are.equal("premature_end_of_var_vif", telegram("01 7C 02 62").error.code)
    assert.are.equal("premature_end_of_var_vif", telegram("01 7C").error.code)
    assert.are.equal("premature_end_of_var_vif", telegram("01 FC 00 74 05").error.code) -- nothing tells that it is empty
    assert.are.equal("premature_end_of_var_vif", telegram("01 FC").error.code)
  end)
end)

describe("DIFE and VIFE", function()
  it("are ten at most, and a final DIFE", function()
    local function difes(n, last) return "81 " .. ("80 "):rep(n - 1) .. last .. " 13 05" end
    assert.are.equal(0.005, record(difes(10, "01")).value)
    assert.are.equal(1 << 37, record(difes(10, "01")).storage)
    assert.are.equal("too_many_dife", telegram(difes(11, "01")).error.code)
    assert.are.same({ 0, true }, { record(difes(11, "00")).storage, record(difes(11, "00")).final_dife })
    assert.are.equal("too_many_dife", telegram(difes(12, "00")).error.code)
    assert.are.equal(5, record("01 AB " .. ("BA "):rep(9) .. "3A 05").value)
    assert.are.equal("too_many_vife", telegram("01 AB " .. ("BA "):rep(10) .. "3A 05").error.code)
  end)

  it("each carry their bits of storage, tariff and subunit", function()
    for n = 1, 10 do
      local head = "81 " .. ("80 "):rep(n - 1)
      assert.are.equal(1 << (1 + 4 * (n - 1)), record(head .. "01 13 05").storage)
      assert.are.equal(8 << (1 + 4 * (n - 1)), record(head .. "08 13 05").storage)
      assert.are.equal(1 << 2 * (n - 1), record(head .. "10 13 05").tariff)
      assert.are.equal(2 << 2 * (n - 1), record(head .. "20 13 05").tariff)
      assert.are.equal(1 << (n - 1), record(head .. "40 13 05").subunit)
    end
    assert.are.same({ 1, "error" }, { record("71 13 05").storage, record("71 13 05")["function"] })
  end)
end)
