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

  it("a capture with an impossible number of bytes is refused", function()
    local captured, err = require("mbus.capture").parse("0.1 SEND (99999999999999999999) E5\n")
    assert.is_nil(captured)
    assert.equal("line 1 of the capture: 1 bytes are there, not 99999999999999999999", err.message)
  end)

  it("a frame with a wrong checksum is explained whatever follows it", function()
    local frame = assert(mbus.unhex("68 03 03 68 08 05 70 7E 16"))
    local text = require("mbus.format.annotated").bytes(frame .. ("\xC4"):rep(300), {})
    assert.matches("wrong: it should be 7Dh", text, 1, true)
  end)

  -- A scan on a bus of one meter; `fn` is called within it.
  local function scan(options)
    local bus <close> = assert(mbus.open(assert(mbus.simulator.new { meters = { { address = 1 } } })))
    for _ in assert(bus:scan(options)) do end -- luacheck: ignore 542
  end

  it("an error within a scan is not lost when the scan is put in order", function()
    local ok, err = pcall(scan, { range = "1-2", save = function() error("no space left") end })
    assert.is_false(ok)
    assert.matches("no space left", err)
  end)

  it("a state to go on with is looked at before it is used", function()
    local states = {}
    local function keep(state) states[#states + 1] = require("dkjson").encode(state) end
    scan { range = "1-2", save = keep }
    local bus <close> = assert(mbus.open(assert(mbus.simulator.new { meters = { { address = 1 } } })))
    local search = assert(bus:scan { range = "1-2", resume = require("dkjson").decode(states[1]) })
    search:close()
    for name, value in pairs { found = { true }, nodes = { x = {} }, doubtful = { "a" }, untrusted = { {} }, remarks = { 1 },
      next = "1", speed = 0 } do
      local state = require("dkjson").decode(states[1])
      state[name] = value
      local refused, err = bus:scan { range = "1-2", resume = state }
      assert.is_nil(refused, name)
      assert.equal("this is not the state of a scan", err.message)
    end
  end)

  it("a number with an impossible exponent raises, and says so", function()
    local ok, err = pcall(require("mbus.core").decimal, { raw = 1, exponent = 300 })
    assert.is_false(ok)
    assert.not_match("memory", err)
  end)
end)
