-- Records from tables to bytes and back.
local core = require "mbus.core"

local function hex(record)
  return core.hex(core.record(record))
end

--- The first record of a telegram that holds these bytes.
local function decode(bytes)
  local telegram = assert(core.telegram(core.long(0x08, 1, 0x78, bytes)))
  assert.is_nil(telegram.error)
  return telegram:record(0)
end

describe("core.record", function()
  it("writes what the standard's examples show", function()
    for text, record in pairs {
      ["03 13 15 31 00"] = { quantity = "volume", unit = "m3", value = 12.565, data = "int24" },
      ["DA 02 3B 13 01"] = { quantity = "volume_flow", unit = "m3/h", value = 0.113, exponent = -3, data = "bcd4", storage = 5, ["function"] = "maximum" },
      ["8B 60 04 37 18 02"] = { quantity = "energy", unit = "Wh", value = 218370, exponent = 1, data = "bcd6", tariff = 2, subunit = 1 },
      ["01 7A 08"] = { quantity = "bus_address", value = 8, data = "int8" },
      ["0C 79 78 56 34 12"] = { quantity = "identification", value = 12345678, data = "bcd8" },
      ["04 6D 2D 0D 1D 32"] = { quantity = "datetime", value = "2024-02-29T13:45" },
      ["04 6D 00 8C 01 37"] = { quantity = "datetime", value = "2024-07-01T12:00:00", flags = { "summer_time" } },
      ["04 6D 2D 2D 1D 32"] = { quantity = "datetime", value = "2024-02-29T13:45", hundred_years = true },
      ["06 6D 9E 2D 8D 1D 32 09"] = { quantity = "datetime", value = "2024-02-29T13:45:30", data = "datetime48" },
      ["06 6D C0 40 2C 01 37 5B"] = { quantity = "datetime", value = "2024-07-01T12:00:00", data = "datetime48", flags = { "summer_time" } },
      ["06 6D C0 40 2C 08 37 5C"] = { quantity = "datetime", value = "2024-07-08T12:00:00", data = "datetime48", flags = { "summer_time" } },
      ["03 6D 1E 2D 0D"] = { quantity = "datetime", value = "13:45:30", data = "time" },
      ["42 6C 1F 3C"] = { quantity = "date", value = "2024-12-31", storage = 1 },
      ["42 EC 7E 1F 3C"] = { quantity = "date", value = "2024-12-31", storage = 1, modifiers = { "future_value" } },
      ["0D FD 10 05 31 30 2D 42 41"] = { quantity = "customer_location", value = "AB-01" },
      ["01 FD 9A 03 04"] = { quantity = "digital_output", value = 4, data = "int8", action = "or" },
      ["0C 93 0C"] = { quantity = "volume", unit = "m3", exponent = -3, data = "bcd8", action = "add_to_readout_list" },
      ["0C 93 0D"] = { quantity = "volume", unit = "m3", exponent = -3, data = "bcd8", action = "delete_from_readout_list" },
      ["01 FD 9A 06 04"] = { quantity = "digital_output", value = 4, data = "int8", action = "and_not" },
      ["40 DA 0B"] = { quantity = "flow_temperature", unit = "\u{b0}C", exponent = -1, data = "none", storage = 1, action = "freeze" },
      ["00 86 07"] = { quantity = "energy", unit = "Wh", exponent = 3, data = "none", action = "clear" },
      ["08 13"] = { quantity = "volume", unit = "m3", exponent = -3, data = "selection" },
      ["02 FC 03 48 52 25 74 22 15"] = { quantity = "plain_text", unit = "%RH", value = 54.10, data = "int16", modifiers = { "multiplied_1e-2" } },
      ["0B 61 18 00 F0"] = { quantity = "temperature_difference", unit = "K", value = -0.18, exponent = -2, data = "bcd6" },
      ["04 FD C8 FC 01 D1 08 00 00"] = { quantity = "voltage", unit = "V", value = 225.7, modifiers = { "at_phase_l1" }, data = "int32" },
      ["02 22 F8 10"] = { quantity = "on_time", unit = "h", value = 4344 * 3600, data = "int16" },
      ["02 7F 34 12"] = { vif = "\x7F", raw = 0x1234, data = "int16" },
      ["05 2B 00 00 20 3E"] = { quantity = "power", unit = "W", exponent = 0, value = 0.15625, data = "real32" },
      ["0D 2B D2 34 12"] = { quantity = "power", unit = "W", exponent = 0, value = -1234, data = "bcd" },
      ["0D 2B E2 FE FF"] = { vif = "\x2B", raw = -2, data = "binary", raw_data_hex = "e2feff" },
    } do
      assert.are.equal(text, hex(record))
    end
  end)

  it("takes the first resolution in which the value is exact and fits", function()
    assert.are.equal("04 03 B8 88 00 00", hex { quantity = "energy", unit = "Wh", value = 35000 })
    assert.are.equal("01 06 23", hex { quantity = "energy", unit = "Wh", value = 35000, data = "int8", exponent = 3 })
    assert.are.equal("01 06 23", hex { quantity = "energy", unit = "Wh", value = 35000, data = "int8" })
    assert.are.equal("02 5A DB 00", hex { quantity = "flow_temperature", unit = "\u{b0}C", value = 21.9, data = "int16" })
  end)

  it("refuses what does not fit and says what fits", function()
    local function problem(record)
      local ok, message = pcall(core.record, record)
      assert.is_false(ok)
      return message
    end
    assert.matches("4 digits hold %-999 to 9999", problem { quantity = "energy", unit = "Wh", value = 123456789, data = "bcd4" })
    assert.matches("one byte holds", problem { vif = "\x13", raw = 128, data = "int8" })
    assert.matches("one byte holds", problem { vif = "\x13", raw = -128, data = "int8" }) -- that code says "not available"
    assert.matches("resolution", problem { quantity = "volume", unit = "m3", value = 0.1234567891, data = "int32" })
    assert.matches("no VIF means energy in kWh", problem { quantity = "energy", unit = "kWh", value = 1 })
    assert.matches("no VIF means nonsense", problem { quantity = "nonsense", value = 1 })
    for _, date in ipairs { "2024-13-01", "2024-00-10", "2025-02-29", "2024-02-30", "2024-04-31", "2024-01-00" } do
      assert.matches("not a calendar date", problem { quantity = "date", value = date })
      assert.matches("not a calendar date", problem { quantity = "datetime", value = date .. "T12:00" })
    end
    assert.matches("1981 to 2080", problem { quantity = "date", value = "2100-01-01" })
    assert.matches("a date is written", problem { quantity = "datetime", value = "yesterday, noon", data = "datetime" })
    assert.matches("data is none of", problem { quantity = "energy", value = 1, data = "int12" })
    assert.matches("function is none of", problem { quantity = "energy", value = 1, ["function"] = "mean" })
    assert.matches("below 2%^41", problem { quantity = "energy", value = 1, storage = 1 << 41 })
    assert.matches("no such modifier", problem { quantity = "energy", value = 1, modifiers = { "sideways" } })
    assert.matches("ISO 8859%-1", problem { quantity = "customer", value = "\u{20ac}" })
    assert.matches("191 bytes", problem { quantity = "customer", value = ("x"):rep(192) })
    assert.matches("a quantity or a vif", problem { value = 1 })
    for _, field in ipairs { "quantity", "data", "function", "action", "error" } do
      local record = { quantity = "date", value = "2024-02-29", data = "date", ["function"] = "maximum" }
      record[field] = (record[field] or "clear") .. "\0x"
      assert.matches(field .. ": a NUL in a name", problem(record))
    end
    assert.matches("modifiers: a NUL in a name", problem { quantity = "energy", value = 1, modifiers = { "backward_flow\0x" } })
    assert.matches("flags: a NUL in a name", problem { quantity = "date", value = "2024-02-29", flags = { "summer_time\0x" } })
    assert.matches("no VIF means operating_time", problem { quantity = "operating_time", unit = "min\0x", value = 1 })
    for _, data in ipairs { "", "01 02 03", "01 02 03 04 05" } do
      assert.matches("raw_data_hex: %d bytes are not", problem { raw_dif_hex = "0C", raw_vif_hex = "13", raw_data_hex = data:gsub(" ", "") })
    end
    assert.matches("raw_data_hex: 2 bytes are not", problem { raw_dif_hex = "0D", raw_vif_hex = "13", raw_data_hex = "0561" })
    -- Text is no number, and a number no text.
    for _, data in ipairs { "int32", "bcd8", "real32" } do
      assert.matches("value must be a number, not a string", problem { quantity = "energy", unit = "Wh", value = "35000000", data = data })
    end
    assert.matches("a text is a string, not a number", problem { quantity = "customer_location", value = 12345678, data = "text" })
    -- A real32 has an end, and no additive correction that could be seen.
    for _, value in ipairs { 1e39, -1e39, 0 / 0, math.huge } do
      assert.matches("a real32 holds no such number", problem { quantity = "dimensionless", value = value, data = "real32" })
    end
    assert.matches("additive correction", problem { quantity = "flow_temperature", unit = "°C", value = 20.5, data = "real32",
      modifiers = { "added_1e0" } })
    -- Nothing is left out in silence.
    for _, modifiers in ipairs { "future_value", { "average", 5 }, { 0x7E } } do
      assert.matches("modifiers must be a list of names", problem { quantity = "energy", unit = "Wh", value = 5, modifiers = modifiers })
    end
    assert.matches("flags must be a list of names", problem { quantity = "datetime", value = "2024-07-01T12:00", flags = "summer_time" })
    assert.matches("a time of day is written", problem { quantity = "datetime", value = "2024-02-29T13:45:30", data = "time" })
    assert.matches("a time of day is written", problem { quantity = "datetime", value = "2024-02-29", data = "time" })
    assert.matches("a date of 2 bytes is written", problem { quantity = "date", value = "2024-02-29T13:45:30", data = "date" })
    assert.matches("has no seconds", problem { quantity = "datetime", value = "2024-02-29T13:45:30" })
    assert.matches("ISO 8859%-1", problem { quantity = "plain_text", unit = "\u{20ac}", value = 5 })
    assert.matches("ISO 8859%-1", problem { quantity = "customer", value = "\xC3A" })
    assert.matches("no sign", problem { quantity = "identification", value = -1, data = "bcd8" })
    assert.matches("vif: not a complete", problem { vif = "\x93", raw = 1 })
  end)

  it("writes a plain-text unit in the characters of the wire", function()
    local record = { quantity = "plain_text", unit = "m\u{b3}", value = 5, data = "int32" }
    assert.are.equal("04 7C 02 B3 6D 05 00 00 00", hex(record))
    assert.are.equal("m\u{b3}", core.telegram(core.long(8, 0, 0x78, core.record(record))):record(0).unit)
  end)

  it("takes no bytes over from mode 2, where they stand the other way round", function()
    local function mode2(text)
      local header = core.unhex "12 34 56 78 40 24 01 07 55 00 00 00"
      return core.telegram(core.long(8, 1, 0x76, header .. core.unhex(text))):record(0)
    end
    assert.are.equal("03 13 15 31 00", hex(mode2 "03 13 00 31 15"))
    for _, text in ipairs {
      "02 5A 80 00", "04 6D 00 00 1D 2D", "0C 13 12 34 56 F8", "01 7C 02 6B 57 05", "04 FD 72 A3 BB 9F 02",
    } do
      assert.matches("mode 2", select(2, pcall(core.record, mode2(text))))
    end
  end)

  it("does not write the unit's part of VIFEs into a plain-text unit again", function()
    for _, text in ipairs { "01 FC 01 78 22 01", "01 FC 03 48 52 25 22 01", "01 FC 02 68 2F 22 01", "01 FC 02 33 6D A2 74 01" } do
      local record = decode(core.unhex(text))
      assert.are.equal(text, hex { quantity = "plain_text", unit = record.unit, value = record.value, modifiers = record.modifiers,
        data = "int8" })
    end
  end)

  it("takes no pointer to another table for a reserved VIF", function()
    for _, modifiers in ipairs { {}, { "average" }, { "multiplied_1e-1" }, { "per_hour", "future_value" } } do
      local record = decode(core.record { quantity = "reserved", raw = 5, data = "int8", modifiers = modifiers })
      assert.are.same({ "reserved", modifiers, 5 }, { record.quantity, { table.unpack(record.modifiers) }, record.raw })
    end
  end)

  it("gives decoded records back, byte for byte", function()
    for _, text in ipairs {
      "04 06 23 00 00 00", "DA 02 3B 13 01", "0B 61 18 00 F0", "3C 2B BD EB DD DD", "04 6D 32 37 1F 15", "42 6C 00 00",
      "84 00 06 01 00 00 00", "05 2B 00 00 C0 7F", "0D 78 11 34 31 38 35 30 32 38 30 32 31 39 35 37 31 30 30 47",
      "0D FD 3B 03 01 02 03", "0D 2B C4 78 56 34 12", "07 2B 00 00 00 00 00 00 00 80", "04 93 15 01 00 00 00",
      "04 BE 50 71 BB B0 00", "02 FC 03 48 52 25 74 22 15", "01 AB 78 05", "07 FD 17 FE FF FF FF FF FF FF FF",
      "0D 13 E0",
    } do
      assert.are.equal(text, hex(decode(core.unhex(text))))
    end
  end)
end)

describe("random records", function()
  local INTEGERS = { int8 = 7, int16 = 15, int24 = 23, int32 = 31, int48 = 47, int64 = 63 }
  local BCD = { bcd2 = 2, bcd4 = 4, bcd6 = 6, bcd8 = 8, bcd12 = 12 }
  local FUNCTIONS = { "instantaneous", "maximum", "minimum", "error" }
  local VIFS = { "\x06", "\x13", "\x22", "\x2B", "\x3B", "\x5A", "\x61", "\xFB\x00", "\xFB\x2E", "\xFD\x48", "\xFD\x59", "\xFD\x3A", "\xFB\x68",
    "\x83\x3B", "\x93\x7D", "\xFD\xC8\xFC\x01", "\xBE\x50" }

  local function pick(list) return list[math.random(#list)] end

  local function keys(map)
    local list = {}
    for key in pairs(map) do list[#list + 1] = key end
    table.sort(list)
    return list
  end

  local function random_raw(data)
    if INTEGERS[data] then
      local bits = math.random(0, INTEGERS[data])
      local magnitude = math.random(0) >> (64 - bits)
      if bits == 0 then magnitude = 0 end
      return math.random(2) == 1 and magnitude or -magnitude
    end
    local digits = math.random(1, BCD[data])
    local magnitude = math.random(0, 10 ^ digits // 1 | 0) % (10 ^ digits // 1 | 0)
    return digits < BCD[data] and math.random(4) == 1 and -magnitude or magnitude
  end

  it("decode to what was encoded, for all numbers", function()
    math.randomseed(20181)
    local names = keys(INTEGERS)
    for _, name in ipairs(keys(BCD)) do names[#names + 1] = name end
    for _ = 1, 5000 do
      local data, vif = pick(names), pick(VIFS)
      local wanted = { vif = vif, data = data, raw = random_raw(data), storage = math.random(0, 1 << math.random(0, 40)),
        tariff = math.random(0, (1 << math.random(0, 19))), subunit = math.random(0, (1 << math.random(0, 9))), ["function"] = pick(FUNCTIONS) }
      if vif == "\xFB\x68" and wanted.raw < 0 then wanted.raw = -wanted.raw end
      local bytes = core.record(wanted)
      local got = decode(bytes)
      for _, key in ipairs { "raw", "storage", "tariff", "subunit", "function" } do assert.are.equal(wanted[key], got[key], core.hex(bytes)) end
      assert.are.equal(bytes, core.record(got), core.hex(bytes))
      if math.abs(wanted.raw) < 2 ^ 52 // (got.factor or 1) then -- else the value is a rounded double
        got.raw, got.raw_dif_hex, got.raw_vif_hex, got.raw_data_hex = nil, nil, nil, nil -- by quantity, unit and value alone
        got.data, got.error = data, nil
        local again = decode(core.record(got))
        assert.are.equal(got.value, again.value, core.hex(bytes))
        assert.are.equal(got.unit, again.unit)
      end
    end
  end)

  it("decode to what was encoded, for dates and texts", function()
    math.randomseed(20182)
    for _ = 1, 2000 do
      local date = ("%04d-%02d-%02d"):format(math.random(2000, 2080), math.random(12), math.random(28))
      local clock = ("%02d:%02d"):format(math.random(0, 23), math.random(0, 59))
      assert.are.equal(date, decode(core.record { quantity = "date", value = date }).value)
      assert.are.equal(date .. "T" .. clock .. ":00", decode(core.record { quantity = "datetime", value = date .. "T" .. clock }).value)
      local seconds = date .. "T" .. clock .. (":%02d"):format(math.random(0, 59))
      assert.are.equal(seconds, decode(core.record { quantity = "datetime", value = seconds, data = "datetime48" }).value)
      local text = {}
      for i = 1, math.random(0, 40) do text[i] = utf8.char(math.random(2) == 1 and math.random(0x20, 0x7E) or math.random(0xA0, 0xFF)) end
      text = table.concat(text)
      assert.are.equal(text, decode(core.record { quantity = "customer", value = text, data = "text" }).value)
    end
  end)
end)
