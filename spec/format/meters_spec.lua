local Error = require "mbus.error"
local meters = require "mbus.format.meters"

local FOUND = { address = 5, id = "12345678", manufacturer = "KAM", version = 1, medium = 4, medium_name = "heat",
  secondary_address = "123456782D2C0104", primary_address = 5, baudrate = 2400 }

local function written(format, list, options)
  local parts = {}
  local stream = meters.stream(format, function(text) parts[#parts + 1] = text end, options)
  for _, meter in ipairs(list) do stream.meter(meter) end
  stream.finish()
  return table.concat(parts)
end

describe("a list of meters", function()
  local mute = { address = 6, baudrate = 2400, error = Error.new("timeout", "acknowledges, and sends no data") }
  local twin = { address = "123456782D2C0104", id = "12345678", fabrication = "00000042", medium_name = "hot_water", baudrate = 300 }

  it("is a table whose columns stay where they are", function()
    assert.equal(table.concat({
      "Address  Secondary address  Id        Maker  Version  Medium",
      "      5  123456782D2C0104   12345678  KAM          1  heat",
      "      6                                               acknowledges, and sends no data",
      "      7                                               several meters answer", "" }, "\n"),
      written("table", { FOUND, mute, { address = 7, collision = true } }))
    assert.matches("hot water; fabrication number 00000042\n", written("table", { twin }, { secondary = true }))
    assert.matches("Secondary address  Primary   Baud  Id", written("table", { twin }, { secondary = true, speeds = true }))
    assert.equal("", written("table", {}))
    assert.matches("^\27%[1mAddress[^\n]*\27%[0m\n", written("table", { FOUND }, { colour = true }))
  end)

  it("does not print what a meter could do to a terminal", function()
    for _, format in ipairs(meters.formats) do
      assert.is_nil(written(format, { { address = 5, manufacturer = "\27[2J", baudrate = 2400 } }):find("\27"), format)
    end
  end)

  it("is JSON with all keys in order", function()
    assert.equal('{"address":6,"id":null,"manufacturer":null,"version":null,"medium":null,"medium_name":null,'
      .. '"secondary_address":null,"primary_address":null,"baudrate":2400,"collision":false,'
      .. '"error":{"kind":"timeout","text":"acknowledges, and sends no data"}}\n', written("jsonl", { mute }))
    assert.matches('"fabrication":"00000042"', written("json", { twin }))
    assert.equal("[]\n", written("json", {}))
  end)

  it("is CSV with a header line, also if it is empty", function()
    assert.matches("^address,id,.*,error\r\n$", written("csv", {}))
    assert.matches("\r\n6,,,,,,,,,2400,false,timeout\r\n$", written("csv", { mute }))
  end)

  it("has no other format", function()
    assert.has_error(function() meters.stream("xls", print) end, "unknown format: xls")
  end)
end)
