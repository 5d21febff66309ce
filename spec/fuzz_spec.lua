---What the fuzzers found once, through the Lua API; csrc/fuzz holds the rest of them.
local mbus = require "mbus"

---A telegram with CI 78 and these user data.
local function telegram(hex)
  return assert(mbus.decode(mbus.encode.long(0x08, 1, 0x78, (assert(mbus.unhex(hex))))))
end

describe("findings of the fuzzers:", function()
  it("a plain-text unit in front of a counting VIFE is no VIFE itself", function()
    for _, hex in ipairs { "02 FC 03 48 52 25 41 05 00", "02 FC 41 03 48 52 25 05 00" } do
      local record = telegram(hex):record(0)
      assert.equal(5, record.value, hex)
      assert.is_nil(record.unit, hex)
      assert.same({ "lower_limit_exceed_count" }, setmetatable(record.modifiers, nil), hex)
    end
  end)

  it("nor in front of one that means a date", function()
    local record = telegram("02 FC 39 03 48 52 25 1F 3C"):record(0)
    assert.equal("2024-12-31", record.value)
    assert.same({ "start_of" }, setmetatable(record.modifiers, nil))
  end)

  it("headers too long for a frame expand nothing", function()
    local headers = "\x02\xFC\x00\xFE" .. ("x"):rep(254)
    local core = require "mbus.core"
    local signature = 0 -- CRC-16 of EN 13757
    for byte in headers:gmatch "." do
      signature = signature ~ byte:byte() << 8
      for _ = 1, 8 do signature = (signature & 0x8000 ~= 0 and signature << 1 ~ 0x3D65 or signature << 1) & 0xFFFF end
    end
    local data = ("<I2I2"):pack(~signature & 0xFFFF, 0) .. "\1\2"
    local compact = assert(core.telegram(core.long(0x08, 1, 0x79, data)))
    local frame, err = compact:expand(headers)
    assert.is_nil(frame)
    assert.equal("unknown_format", err.code)
  end)

  it("half months end within their month", function()
    local elements = assert(telegram("02 6C EF 21 04 13 10 27 00 00 0D 93 1F 08 72 FD 01 00 02 00 02 00"):profile(2))
    for _, element in ipairs(elements) do
      local year, month, day = (element.time or ""):match "^(%d+)-(%d+)-(%d+)"
      assert(year, "no time")
      assert.equal(tonumber(day), os.date("*t", os.time { year = year, month = month, day = day, hour = 12 }).day, element.time)
    end
  end)

  it("a number with an impossible exponent raises, and says so", function()
    local ok, err = pcall(require("mbus.core").decimal, { raw = 1, exponent = 300 })
    assert.is_false(ok)
    assert.not_match("memory", err)
  end)
end)
