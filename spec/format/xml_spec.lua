local core = require "mbus.core"
local helper = require "spec.helper"
local mbus = require "mbus"
local Readout = require "mbus.readout"
local xml = require "mbus.format.xml"

local CORPUS = "../shared/corpus/wired/"

local function decode(hex) return assert(mbus.decode(assert(mbus.unhex(hex)))) end

-- A telegram with a long header of meter 12345678 PAD and the given records.
local function telegram_of(...)
  local header = core.unhex "78 56 34 12 24 40 01 07 55 04 00 00"
  return assert(mbus.decode(core.long(0x08, 5, 0x72, header .. table.concat { ... })))
end

local ENTITY = { amp = "&", lt = "<", gt = ">", quot = '"', ["#13"] = "\r" }

local function unescape(text)
  assert(not text:find("[<>]"), "a bare < or >")
  return (text:gsub("&([^;]*);?", function(name) return assert(ENTITY[name], "no entity &" .. name) end))
end

-- A strict reader for the XML that we write: elements, attributes, comments. Raises where it is not well-formed.
local function parse(text)
  text = assert(text:match("^<%?xml [^?]-%?>\n(.*)$"), "no declaration")
  assert(utf8.len(text), "no UTF-8")
  assert(not text:find("[\0-\8\11\12\14-\31]"), "a character that XML cannot carry")
  local root = { children = {} }
  local stack, at = { root }, 1
  while at <= #text do
    local top = stack[#stack]
    local comment, after = text:match("^<!%-%-(.-)%-%->()", at)
    local close, after_close = text:match("^</(%w+)>()", at)
    local open, attributes, empty, after_open = text:match('^<(%w+)([^<>]-)(/?)>()', at)
    if comment then
      assert(not comment:find("--", 1, true), "-- in a comment")
      at = after
    elseif close then
      assert(close == top.name and #stack > 1, "</" .. close .. "> closes nothing")
      stack[#stack], at = nil, after_close
    elseif open then
      local element = { name = open, attributes = {}, children = {}, text = "" }
      for key, value in attributes:gmatch('(%w+)="([^"]*)"') do element.attributes[key] = unescape(value) end
      top.children[#top.children + 1] = element
      if empty == "" then stack[#stack + 1] = element end
      at = after_open
    else
      local content = text:match("^[^<]+", at)
      assert(content, "a stray < at " .. at)
      if #stack == 1 then assert(not content:find("%S"), "text outside the root") else top.text = top.text .. unescape(content) end
      at = at + #content
    end
  end
  assert(#stack == 1, "an element is left open")
  assert(#root.children == 1, "not one root")
  return root.children[1]
end

-- What an MBusData element holds: slave and records as lists of { name, content }, records with their attributes.
local function data_of(element)
  assert.equal("MBusData", element.name)
  local function fields(node)
    local list = {}
    for i, child in ipairs(node.children) do list[i] = { child.name, child.text } end
    return list
  end
  local data = { records = {} }
  for _, child in ipairs(element.children) do
    if child.name == "SlaveInformation" then
      assert(not data.slave and #data.records == 0)
      data.slave = fields(child)
    else
      assert.equal("DataRecord", child.name)
      data.records[#data.records + 1] = { attributes = child.attributes, fields = fields(child) }
    end
  end
  return data
end

local function value(fields, name)
  for _, field in ipairs(fields) do
    if field[1] == name then return field[2] end
  end
end

local function record_of(...) return data_of(parse(xml.telegram(telegram_of(...)))).records[1].fields end

describe("XML", function()
  it("is a normalized MBusData document", function()
    local text = xml.telegram(telegram_of(core.unhex "04 13 37 18 02 00", core.unhex "84 50 2B 0A 00 00 00", core.unhex "0F AB CD"))
    assert.equal([[
<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<MBusData>

    <SlaveInformation>
        <Id>12345678</Id>
        <Manufacturer>PAD</Manufacturer>
        <Version>1</Version>
        <ProductName></ProductName>
        <Medium>Water</Medium>
        <AccessNumber>85</AccessNumber>
        <Status>04</Status>
        <Signature>0000</Signature>
    </SlaveInformation>

    <DataRecord id="0">
        <Function>Instantaneous value</Function>
        <StorageNumber>0</StorageNumber>
        <Unit>m^3</Unit>
        <Quantity>Volume</Quantity>
        <Value>137.271</Value>
    </DataRecord>

    <DataRecord id="1">
        <Function>Instantaneous value</Function>
        <StorageNumber>0</StorageNumber>
        <Tariff>1</Tariff>
        <Device>1</Device>
        <Unit>W</Unit>
        <Quantity>Power</Quantity>
        <Value>10</Value>
    </DataRecord>

    <DataRecord id="2">
        <Function>Manufacturer specific</Function>
        <StorageNumber>0</StorageNumber>
        <Unit></Unit>
        <Quantity></Quantity>
        <Value>AB CD</Value>
    </DataRecord>

</MBusData>
]], text)
    parse(text)
  end)

  it("writes the identification as the number that it is, and letters in it as they are", function()
    local function id_of(id)
      local header = core.unhex(id .. "24 40 01 07 55 00 00 00")
      return value(data_of(parse(xml.telegram(assert(mbus.decode(core.long(8, 5, 0x72, header)))))).slave, "Id")
    end
    assert.equal("9011523", id_of "23 15 01 09")
    assert.equal("50002E5", id_of "E5 02 00 05")
    assert.equal("0", id_of "00 00 00 00")
  end)

  it("prints all digits, and none that the meter does not send", function()
    assert.equal("22.0", value(record_of(core.unhex "0A 5A 20 02"), "Value"))
    assert.equal("9223372036854775807", value(record_of(core.unhex "07 03 FF FF FF FF FF FF FF 7F"), "Value"))
    assert.equal("0.000000001", value(record_of(core.unhex "01 FD 40 01"), "Value"))
    assert.equal("3600", value(record_of(core.unhex "01 22 01"), "Value"))
  end)

  it("has no Value where there is none", function()
    for _, hex in ipairs { "0C 13 3F 12 00 00", "02 6C 00 00", "05 13 00 00 C0 7F", "04 93 15 00 00 00 00", "00 13" } do
      assert.equal("", value(record_of(core.unhex(hex)), "Value"), hex)
    end
  end)

  it("names dates, texts, plain-text units and extended units as its readers expect", function()
    assert.same({ "-", "Time point (date)", "2013-12-31" }, { value(record_of(core.unhex "02 6C BF 1C"), "Unit"),
      value(record_of(core.unhex "02 6C BF 1C"), "Quantity"), value(record_of(core.unhex "02 6C BF 1C"), "Value") })
    local moment = record_of(core.unhex "04 6D 21 16 0A 39")
    assert.equal("Time point (date & time)", value(moment, "Quantity"))
    assert.equal("2024-09-10T22:33:00Z", value(moment, "Value"))
    local plain = record_of(core.unhex "02 7C 03 48 52 25 36 00")
    assert.same({ "-", "%RH", "54" }, { value(plain, "Unit"), value(plain, "Quantity"), value(plain, "Value") })
    assert.equal("m^3/h", value(record_of(core.unhex "01 3B 01"), "Unit"))
    assert.equal("m^3/input_pulse_0", value(record_of(core.unhex "01 93 28 01"), "Unit"))
    assert.equal("Units for H.C.A.", value(record_of(core.unhex "01 6E 01"), "Unit"))
    assert.equal("Wh/m^3", value(record_of(core.unhex "01 83 2D 01"), "Unit"))
    assert.equal("American gallon/min", value(record_of(core.unhex "01 FB 25 01"), "Unit"))
    assert.equal("Duration of tariff", value(record_of(core.unhex "01 FD 31 01"), "Quantity"))
  end)

  it("escapes what XML would take for its own, and replaces what it cannot carry", function()
    local nasty = "a<b>&\"c\"' ]]>\r\n\t\1\27\127\xE4"
    local shown = value(record_of("\x0D\xFD\x11" .. string.char(#nasty) .. nasty:reverse()), "Value")
    assert.equal("a<b>&\"c\"' ]]>\r\n\t??\127\xC3\xA4", shown)
    assert.equal("abc", value(record_of("\x0D\xFD\x11\x05\0\0cba"), "Value")) -- padded
    local all = {}
    for code = 1, 0xBF do all[code] = string.char(code) end
    parse(xml.telegram(telegram_of("\x0D\xFD\x11\xBF" .. table.concat(all))))
    local maker = core.unhex "78 56 34 12 00 00 01 07 55 04 00 00" -- no letters
    assert.equal("@@@", value(data_of(parse(xml.telegram(assert(mbus.decode(core.long(8, 5, 0x72, maker)))))).slave, "Manufacturer"))
  end)

  it("tells of a damaged tail in a comment, behind the good records", function()
    local text = xml.telegram(telegram_of(core.unhex "01 13 07", core.unhex "04 13 00"))
    assert.equal(1, #data_of(parse(text)).records)
    assert.matches("<!%-%- the telegram ends inside the data of a record at byte 24 %-%->", text)
  end)

  it("has the shape for the fixed structure, with the status bits and the historic unit read right", function()
    local data = data_of(parse(xml.telegram(decode "68 13 13 68 08 05 73 78 56 34 12 0a 00 e9 7e 01 00 00 00 35 01 00 00 3c 16")))
    assert.same({ { "Id", "12345678" }, { "Medium", "Water" }, { "AccessNumber", "10" }, { "Status", "00" } }, data.slave)
    assert.same({ { "Function", "Actual value" }, { "Unit", "l" }, { "Value", "1" } }, data.records[1].fields)
    assert.same({ { "Function", "Stored value" }, { "Unit", "l" }, { "Value", "135" } }, data.records[2].fields)
    local binary = core.unhex "78 56 34 12 0A 03 05 2E FF FF FF FF 0A 00 00 00"
    data = data_of(parse(xml.telegram(assert(mbus.decode(core.long(8, 5, 0x73, binary))))))
    assert.same({ { "Function", "Stored value" }, { "Unit", "kWh" }, { "Value", "-1" } }, data.records[1].fields)
    assert.same({ { "Function", "Stored value" }, { "Unit", "100 m^3" }, { "Value", "10" } }, data.records[2].fields)
  end)

  it("says what a meter refuses, and what could not be read", function()
    assert.same({ { "Error", "Application busy" } }, data_of(parse(xml.telegram(decode "68 04 04 68 08 01 70 08 81 16"))).slave)
    local _, err = mbus.decode(core.unhex "68 03 03 68 08 05 70 80 16")
    assert.same({ { "Error", tostring(err) } }, data_of(parse(xml.failure(err))).slave)
  end)

  it("puts a readout into one document, with ids counted through", function()
    local first, second = telegram_of(core.unhex "01 13 07", core.unhex "1F"), telegram_of(core.unhex "01 13 08", core.unhex "0F 01")
    local data = data_of(parse(xml.readout(Readout.new(5, { first, second }), { time = 1700000000 })))
    local ids, frames = {}, {}
    for i, record in ipairs(data.records) do
      ids[i], frames[i] = record.attributes.id, record.attributes.frame
      assert.same({ "Timestamp", "2023-11-14T22:13:20Z" }, record.fields[#record.fields])
    end
    assert.same({ "0", "1", "2", "3" }, ids)
    assert.same({ "0", "0", "1", "1" }, frames)
    assert.equal("More records follow", value(data.records[2].fields, "Function"))
    assert.equal("Manufacturer specific", value(data.records[4].fields, "Function"))
    local single = data_of(parse(xml.readout(Readout.new(5, { first }))))
    assert.is_nil(single.records[1].attributes.frame)
    assert.is_nil(value(single.records[1].fields, "Timestamp"))
  end)

  it("stays one document when it is streamed", function()
    local function streamed(fn)
      local parts = {}
      local out = xml.stream(function(text) parts[#parts + 1] = text end)
      fn(out)
      out.finish()
      return table.concat(parts)
    end
    local one = streamed(function(out) out.telegram(decode(helper.HYD)) end)
    assert.equal(xml.telegram(decode(helper.HYD)), one)
    local many = parse(streamed(function(out)
      out.telegram(decode(helper.HYD))
      out.unread(7, { kind = "timeout", message = "no answer" })
      out.readout(Readout.new(5, { decode(helper.HYD) }))
      out.failure "bad"
    end))
    assert.equal("MBus", many.name)
    assert.equal(4, #many.children)
    assert.equal(14, #data_of(many.children[3]).records)
    assert.same({}, parse(streamed(function() end)).children)
  end)
end)

--- Against libmbus' own documents -------------------------------------------------------------------------------

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

local function names()
  local list = {}
  for line in io.lines(CORPUS .. "../index.csv") do
    local name, where = line:match "^([^,]+),([^,]+),"
    if where == "wired" and read_file(CORPUS .. name .. ".xml") then list[#list + 1] = name end
  end
  return list
end

local DATE_VIFE = { "^begin_of_", "^end_of_", "^start_of$" }

local function is_date_of(record)
  for _, modifier in ipairs(record.modifiers) do
    for _, pattern in ipairs(DATE_VIFE) do
      if modifier:find(pattern) then return true end
    end
  end
end

-- Where ours may differ: each reason with a test that knows the record.
local REASONS = {
  { "a product name from libmbus' own list", function(name, got) return name == "ProductName" and got == "" end },
  { "a date, where libmbus does not know the VIFE that says so", function(name, got, want, record)
    return record and is_date_of(record) and (name == "Unit" and got == "-" or name == "Value" and tonumber(want) ~= nil)
  end },
  { "a date that is not set or not valid", function(name, got, want, record)
    return name == "Value" and got == "" and record.value == nil and want:find("^%d%d%d%d%-%d%d%-%d%d") ~= nil
  end },
  { "letters among BCD digits", function(name, got, _, record)
    return name == "Value" and got == "" and record.value == nil and record.flags[1] == "bcd_invalid"
  end },
  { "a unit that a VIFE extends", function(name, got, want, record)
    return name == "Unit" and #record.modifiers > 0 and got:sub(1, #want + 1) == want .. "/"
  end },
  { "a stored counter of the fixed structure, with its unit", function(name, _, _, record)
    return record and record.raw_dif_hex == "" and record.storage == 1 and (name == "Function" or name == "Unit")
  end },
}

local function same(name, got, want)
  if got == want then return true end
  local a, b = tonumber(got), tonumber(want)
  -- libmbus prints six places
  return name == "Value" and a and b and math.abs(a - b) <= 0.5000001e-6 + 1e-15 * math.abs(b)
end

local function compare_fields(got, want, record, where, result)
  if #got ~= #want then result.unexplained[#result.unexplained + 1] = where .. ": other elements" end
  for i, field in ipairs(want) do
    local mine = got[i] or {}
    local name, content = field[1], field[2]
    result.compared = result.compared + 1
    if mine[1] ~= name then
      result.unexplained[#result.unexplained + 1] = ("%s: element %s, not %s"):format(where, mine[1], name)
    elseif not same(name, mine[2], content) then
      local reason
      for _, candidate in ipairs(REASONS) do
        if not reason and candidate[2](name, mine[2], content, record) then reason = candidate[1] end
      end
      if reason then
        result.counts[reason] = (result.counts[reason] or 0) + 1
      else
        result.unexplained[#result.unexplained + 1] = ("%s: %s is '%s', not '%s'"):format(where, name, mine[2], content)
      end
    end
  end
end

local function compare(name, result)
  local telegram = assert(mbus.decode(assert(core.unhex(read_file(CORPUS .. name .. ".hex")))))
  local got, want = data_of(parse(xml.telegram(telegram))), data_of(parse(read_file(CORPUS .. name .. ".xml")))
  compare_fields(got.slave, want.slave, nil, name .. ": slave", result)
  if #got.records ~= #want.records then result.unexplained[#result.unexplained + 1] = name .. ": other number of records" end
  for i, record in ipairs(want.records) do
    local mine = got.records[i] or { attributes = {}, fields = {} }
    if mine.attributes.id ~= record.attributes.id then result.unexplained[#result.unexplained + 1] = name .. ": record id" end
    compare_fields(mine.fields, record.fields, telegram:record(i - 1), ("%s: record %d"):format(name, i - 1), result)
    result.records = result.records + 1
  end
end

describe("XML beside libmbus'", function()
  if not read_file(CORPUS .. "../index.csv") then
    pending("skipped: there is no " .. CORPUS)
    return
  end

  it("has the same elements, ids, units, names and numbers, but for what is different on purpose", function()
    local list = names()
    local result = { unexplained = {}, counts = {}, compared = 0, records = 0 }
    for _, name in ipairs(list) do compare(name, result) end
    local lines = {}
    for _, reason in ipairs(REASONS) do
      lines[#lines + 1] = ("  different %3d times: %s"):format(result.counts[reason[1]] or 0, reason[1])
    end
    print(("xml: %d documents, %d records, %d elements compared\n%s"):format(#list, result.records, result.compared,
      table.concat(lines, "\n")))
    assert.equal("", table.concat(result.unexplained, "\n"))
    assert.is_true(#list > 0 and result.records > 0)
  end)
end)
