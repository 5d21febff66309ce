-- Whatever a meter sends, each format prints it: every data field with every VIF of the four tables, and telling values.
local annotated = require "mbus.format.annotated"
local core = require "mbus.core"
local mbus = require "mbus"

local SIZES = { [0] = 0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, nil, 6 }    -- bytes of a data field (EN 13757-3, Table 4)
local TABLES = { "", "\xFB", "\xFD", "\xEF" }
local PLAIN_TEXT = 0x7C

-- Zero, all ones, the largest and the least number, the largest real32, infinity, not a number, 1.5, no BCD digits.
local FILLS = { "\0", "\xFF", "\x7F", "\0\x80", "\xFF\x7F\x7F", "\0\x80\x7F", "\0\xC0\x7F", "\0\xC0\x3F", "\xAA" }

-- The end of `fill` is that of the data, its first byte goes before.
local function data(fill, size) return (fill:sub(1, 1):rep(size) .. fill:sub(2)):sub(-size) end

local function telegram(vib, fill)
  local records = {}
  for field = 0, 14 do
    if SIZES[field] then
      records[#records + 1] = string.char(field) .. vib .. (SIZES[field] > 0 and data(fill, SIZES[field]) or "")
    end
  end
  return core.long(0x08, 1, 0x72, "\x78\x56\x34\x12\x24\x40\x01\x07\x55\0\0\0" .. table.concat(records))
end

describe("every format", function()
  for _, name in ipairs { "json", "csv", "xml", "table", "annotated" } do
    local format = require("mbus.format." .. name)
    local print_it = format == annotated and function(bytes) return annotated.bytes(bytes, {}) end
      or function(bytes) return format.telegram(assert(mbus.decode(bytes)), {}) end

    it("prints every record there can be: " .. name, function()
      for _, extension in ipairs(TABLES) do
        for code = 0, 0x7F do
          if extension ~= "" or code ~= PLAIN_TEXT then
            for _, fill in ipairs(FILLS) do
              local bytes = telegram(extension .. string.char(code), fill)
              local ok, text = pcall(print_it, bytes)
              assert.is_true(ok and utf8.len(text) ~= nil, core.hex(bytes) .. ": " .. tostring(text))
            end
          end
        end
      end
    end)
  end
end)
