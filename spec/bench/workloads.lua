---What is measured in Lua, by name: { unit, prepare }. `prepare(telegrams, pieces)` gives a function that does one round and
---returns what it has done, counted in the unit.
local core = require "mbus.core"
local encode = require "mbus.encode"
local json = require "mbus.format.json"
local mbus = require "mbus"

local M = {}

local function each_telegram(work)
  return { unit = "telegrams", prepare = function(telegrams)
    return function()
      for _, bytes in ipairs(telegrams) do work(bytes) end
      return #telegrams
    end
  end }
end

M.open = each_telegram(function(bytes) return mbus.decode(bytes) end)

M.each = each_telegram(function(bytes)
  for _ in mbus.decode(bytes):each() do end -- luacheck: ignore
end)

M.tables = each_telegram(function(bytes)
  for _ in mbus.decode(bytes):records() do end -- luacheck: ignore
end)

M.json = each_telegram(function(bytes) return json.telegram(mbus.decode(bytes)) end)

M.feed = { unit = "bytes", prepare = function(_, pieces)
  local size = #table.concat(pieces)
  return function()
    local deframer = core.deframer()
    for _, piece in ipairs(pieces) do deframer:feed(piece) end
    return size
  end
end }

local METER = { id = "12345678", manufacturer = "ABC", version = 1, medium = 4 }
local RECORDS = {
  { quantity = "energy", unit = "Wh", value = 123456000, exponent = 3, data = "int32" },
  { quantity = "volume", unit = "m3", value = 1234.56, exponent = -2, data = "bcd8" },
  { quantity = "power", unit = "W", value = 1200, data = "int32" },
  { quantity = "volume_flow", unit = "m3/h", value = 0.512, exponent = -3, data = "int32", ["function"] = "maximum" },
  { quantity = "flow_temperature", unit = "°C", value = 60.5, exponent = -1, data = "int16" },
  { quantity = "return_temperature", unit = "°C", value = 40.5, exponent = -1, data = "bcd4" },
  { quantity = "datetime", data = "datetime", value = "2024-01-01T00:00" },
  { quantity = "energy", unit = "Wh", value = 98765000, exponent = 3, data = "int32", storage = 1, tariff = 2 },
}

M.encode_records = { unit = "records", prepare = function()
  return function()
    for _, record in ipairs(RECORDS) do encode.record(record) end
    return #RECORDS
  end
end }

M.encode_telegram = { unit = "telegrams", prepare = function()
  return function()
    encode.telegram(5, METER, RECORDS)
    return 1
  end
end }

return M
