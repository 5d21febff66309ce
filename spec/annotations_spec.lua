-- What the annotations promise of the core, and that every class they name is one.
local core = require "mbus.core"
local helper = require "spec.helper"

local function lines_of_all()
  local text = {}
  for path in io.popen("find lua/mbus -name '*.lua'"):lines() do text[#text + 1] = helper.read(path) end
  return table.concat(text, "\n")
end

-- The fields of a class as core.meta.lua lists them.
local function fields_of(class)
  local fields = {}
  local block = helper.read("lua/mbus/core.meta.lua"):match("%-%-%-@class " .. class:gsub("%.", "%%.") .. "\n(.-)\n[^-]")
  for name in block:gmatch("@field ([%w_]+)") do fields[name] = true end
  return fields
end

describe("the annotations", function()
  it("name no class that there is not", function()
    local text, known, missing = lines_of_all(), {}, {}
    for kind, name in text:gmatch("%-%-%-@(%l+) ([%w_.]+)") do
      if kind == "class" or kind == "alias" then known[name] = true end
    end
    for line in text:gmatch("%-%-%-@%l+ ([^\n]*)") do
      for name in line:gmatch("%f[%w]mbus%.[%w_.]*%u%w*%f[^%w_.]") do
        if not known[name] then missing[name] = true end
      end
    end
    assert.same({}, missing)
  end)

  it("have all fields of records and telegrams, and none that there is not", function()
    local telegram = assert(core.telegram(core.unhex(helper.HYD)))
    local known = fields_of "mbus.Record"
    for _, record in telegram:records() do
      for name in pairs(record) do assert.is_true(known[name], name) end
    end
    local there = {}
    for name in helper.read("csrc/lua/telegram.c"):match("} fields%[%] = (%b{})"):gmatch('{"([%w_]+)"') do there[name] = true end
    assert.same(there, fields_of "mbus.Telegram")
    for name in helper.read("lua/mbus/core.meta.lua"):gmatch("function telegram:([%w_]+)") do
      assert.is_function(telegram[name], name)
    end
  end)
end)
