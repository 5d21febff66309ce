local core = require "mbus.core"
local dkjson = require "dkjson"
local format = require "mbus.format.json"
local helper = require "spec.helper"
local mbus = require "mbus"

local function decode(hex) return assert(mbus.decode(assert(mbus.unhex(hex)))) end

local function telegram_of(...)
  local header = core.unhex "78 56 34 12 24 40 01 07 55 00 00 00"
  return assert(mbus.decode(core.long(0x08, 5, 0x72, header .. table.concat { ... })))
end

local function value_of(record) return format.telegram(telegram_of(record)):match('"value":(.-),"modifiers"') end

describe("a telegram as JSON", function()
  it("is one line with its keys in order", function()
    assert.equal('{"kind":"valid","schema":1,"valid":true,"error":null,"frame":{"type":"long","c":8,"a":5,"ci":114},'
      .. '"header":{"type":"long","id":"12345678","manufacturer":"PAD","version":1,"medium":7,"access_no":85,"status":0,'
      .. '"signature":0},"records":[{"index":0,"function":"instantaneous","storage":0,"tariff":0,"subunit":0,'
      .. '"quantity":"flow_temperature","unit":"°C","type":"number","value":22,"modifiers":[],"error":null,"flags":[],'
      .. '"raw_dif_hex":"0a","raw_vif_hex":"5a","raw_data_hex":"2002","telegram":0,"position":0,"raw":220,"exponent":-1}],'
      .. '"more_records_follow":false,"manufacturer_data_hex":null}', format.telegram(telegram_of(core.unhex "0A 5A 20 02")))
  end)

  it("loses no digit", function()
    assert.equal("0.3", value_of(core.unhex "01 59 1E"))
    assert.equal("9223372036854775.806", value_of(core.unhex "07 13 FE FF FF FF FF FF FF 7F"))
    assert.equal("922337203685477580600", value_of(core.unhex "07 05 FE FF FF FF FF FF FF 7F"))
    assert.equal("53.39830780029297", value_of("\x05\x16" .. ("<f"):pack(53.39830780029297)))
    assert.equal("-0.001", value_of(core.unhex "01 13 FF"))
    assert.equal("100", value_of(core.unhex "02 15 E8 03"))
  end)

  it("is null where there is no value", function()
    assert.equal("null", value_of(core.unhex "02 6C 00 00"))
    assert.equal("null", value_of(core.unhex "05 13 00 00 C0 7F"))
  end)

  it("holds the good records before the damage", function()
    local object = dkjson.decode(format.telegram(telegram_of(core.unhex "01 13 07", core.unhex "04 13 00")))
    assert.is_false(object.valid)
    assert.equal("error", object.kind)
    assert.equal("premature_end_of_data", object.error.code)
    assert.equal(1, #object.records)
  end)

  it("has application errors, selections and the maker's data", function()
    assert.matches('"application_error":{.-}', format.telegram(decode "68 04 04 68 08 01 70 08 81 16"))
    assert.matches('"selection":{"id":"FFFFFF11","manufacturer_code":65535,"version":255,"medium":255}',
      format.telegram(decode "68 0B 0B 68 53 FD 52 11 FF FF FF FF FF FF FF AC 16"))
    assert.matches('"manufacturer_data_hex":"dead"', format.telegram(telegram_of(core.unhex "0F DE AD")))
    assert.matches('"frame":{"type":"ack"},"header":null', format.telegram(decode "E5"))
  end)

  it("escapes what a meter may send as text", function()
    assert.equal('"a\\u001b\\"ü"', value_of(core.unhex "0D FD 11 04 FC 22 1B 61"))
  end)

  it("can be indented", function()
    assert.equal([[
{
  "kind": "valid",
  "schema": 1,
  "valid": true,
  "error": null,
  "frame": {
    "type": "long",
    "c": 8,
    "a": 5,
    "ci": 114
  },
  "header": {
    "type": "long",
    "id": "12345678",
    "manufacturer": "PAD",
    "version": 1,
    "medium": 7,
    "access_no": 85,
    "status": 0,
    "signature": 0
  },
  "records": [],
  "more_records_follow": true,
  "manufacturer_data_hex": ""
}]], format.telegram(telegram_of "\x1F", { indent = true }))
    assert.same(dkjson.decode(format.telegram(decode(helper.HYD))),
      dkjson.decode(format.telegram(decode(helper.HYD), { indent = true })))
  end)
end)

-- What our own text shares with dkjson's, for values of every kind.
describe("JSON of any value", function()
  local function record(fields)
    for name, value in pairs { ["function"] = "instantaneous", modifiers = {}, flags = {}, raw_data_hex = "" } do
      fields[name] = fields[name] or value
    end
    return fields
  end

  local function written(fields, options)
    local list = { record(fields) }
    return format.telegram({ records = function() return ipairs(list) end }, options)
  end

  local function value_text(value) return written({ value = value }):match('"value":(.*),"modifiers"') end

  local NASTY = { "", " ", "a", '"', "\\", "\\\\", '\\"', "/", "{}[],:", "\n\r\t\b\f", "\0", "\x7F", "°C", "m³", "Ω", "日本", "😀", "\u{AD}",
    "\u{2028}\u{2029}", "\u{FEFF}", "\u{FFFD}", "\xFF", "\xC3", "\xE2\x80", "\xC2\x80", ("x"):rep(300) }
  for byte = 0, 255 do NASTY[#NASTY + 1] = "<" .. string.char(byte) .. ">" end

  it("quotes text as dkjson does", function()
    for _, text in ipairs(NASTY) do
      local quoted = dkjson.quotestring(text)
      assert.equal(quoted, value_text(text))
      assert.equal('"unit":' .. quoted .. ',"type"', written({ unit = text }):match '"unit":.*,"type"')
      assert.equal('"modifiers":[' .. quoted .. "," .. quoted .. '],"error"',
        written({ modifiers = { text, text } }):match '"modifiers":.*,"error"')
      assert.equal('"raw_data_hex":' .. quoted .. ',"telegram"', written({ raw_data_hex = text }):match '"raw_data_hex":.*,"telegram"')
    end
  end)

  it("spreads over lines what is between the strings, and nothing in them", function()
    for _, text in ipairs(NASTY) do
      local spread = written({ value = text, modifiers = { text } }, { indent = true })
      assert.truthy(spread:find('\n      "value": ' .. dkjson.quotestring(text) .. ",\n", 1, true), text)
      assert.equal(written { value = text, modifiers = { text } }, (spread:gsub("\n *", ""):gsub('": ', '":')))
    end
  end)

  it("writes integers as dkjson does", function()
    for _, integer in ipairs { 0, 1, -1, 255, 2 ^ 31 | 0, 2 ^ 53 + 1 | 0, 10 ^ 15 | 0, math.maxinteger, math.mininteger } do
      assert.equal(dkjson.encode(integer), value_text(integer))
      assert.equal(('"raw":%d}]'):format(integer), written({ raw = integer }):match '"raw":.-}%]')
    end
  end)

  it("writes floats that read back as the same number, and as dkjson does where 14 digits are enough", function()
    local random = require("mbus.simulator.random").new(7)
    local floats = { 0.1, 0.5, 1e-5, 1.5e-300, 1e300, 5e-324, 1 / 3, 2 / 3, 123456789.125, 1e15, 2.0 ^ 63, -0.0 }
    for _ = 1, 1000 do floats[#floats + 1] = (random:number() - 0.5) * 10.0 ^ (random:number() * 40 // 1 - 20) end
    for places = 1, 12 do floats[#floats + 1] = -123457 / 10 ^ places end
    local alike = 0
    for _, float in ipairs(floats) do
      local text = value_text(float)
      assert.equal(float, tonumber(text))
      if tonumber(("%.14g"):format(float)) == float and float % 1 ~= 0 and math.abs(float) > 1e-307 then
        alike = alike + 1
        assert.equal(dkjson.encode(float), text)
      end
    end
    assert.is_true(alike >= 16)
  end)

  it("is null where there is no number, as with dkjson", function()
    for _, none in ipairs { 0 / 0, math.huge, -math.huge } do
      assert.equal(dkjson.encode(none), value_text(none))
      assert.equal("null", value_text(none))
    end
    assert.equal("null", value_text(nil))
  end)

  it("forgets names before they are too many, and writes each right", function()
    for round = 1, 2 do
      for i = 1, 2500 do
        assert.truthy(written({ unit = "unit" .. i, index = i }):find(('"index":%d,.*"unit":"unit%d","type"'):format(i, i)), round)
      end
    end
  end)
end)

describe("what could not be read, as JSON", function()
  it("has the shape of a telegram", function()
    local _, err = mbus.decode(core.unhex "68 03 03 68 08 05 70 80 16")
    assert.equal('{"kind":"error","schema":1,"valid":false,"error":{"kind":"checksum","code":"bad_checksum",'
      .. '"text":"the checksum is wrong","offset":7},"frame":null,"header":null,"records":[],"more_records_follow":false,'
      .. '"manufacturer_data_hex":null}', format.failure(err))
  end)

  it("names the meter that did not answer", function()
    local err = require("mbus.error").new("timeout", "no answer", { bus = "x", address = 5, tries = 3, seconds = 1 })
    assert.equal('{"address":5,"valid":false,"error":{"kind":"timeout","code":"timeout","text":"no answer","offset":null},'
      .. '"telegrams":[],"records":[]}', format.unread(5, err))
  end)
end)

describe("a readout as JSON", function()
  it("has the identity, the telegrams without records, and all records", function()
    local Readout = require "mbus.readout"
    local first, second = telegram_of(core.unhex "01 13 07", "\x1F"), telegram_of(core.unhex "01 13 08")
    local object = dkjson.decode(format.readout(Readout.new(5, { first, second })))
    assert.equal(5, object.address)
    assert.equal("12345678", object.id)
    assert.equal("1234567824400107", object.secondary_address)
    assert.is_true(object.valid)
    assert.equal(2, #object.telegrams)
    assert.is_nil(object.telegrams[1].records)
    assert.is_true(object.telegrams[1].more_records_follow)
    assert.equal(2, #object.records)
    assert.equal(1, object.records[2].telegram)
  end)
end)
