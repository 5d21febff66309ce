local helper = require "spec.helper"
local core = require "mbus.core"
local mbus = require "mbus"

-- Runs Lua code in a process of its own; returns what it printed.
local function fresh(code)
  local status, out, err = helper.shell(helper.environment() .. "lua5.4 -e " .. helper.quote(code))
  assert.equal(0, status, err)
  return out
end

describe("mbus", function()
  it("decodes a telegram", function()
    local telegram = assert(mbus.decode(core.unhex(helper.HYD)))
    assert.same({ "31892747", "HYD", 14 }, { telegram.id, telegram.manufacturer, #telegram })
  end)

  it("refuses what is no frame with an error that reads well", function()
    local bytes = core.unhex(helper.HYD)
    for _, case in ipairs { { bytes:sub(1, -2), "truncated" }, { bytes:sub(1, -3) .. "\x00\x16", "checksum" },
      { bytes .. "\x00", "framing" }, { "", "truncated" }, { "\x42", "framing" } } do
      local telegram, err = mbus.decode(case[1])
      assert.is_nil(telegram)
      assert.equal(case[2], err.kind)
      assert.matches(" at byte %d+$", tostring(err))
    end
    assert.has_error(function() mbus.decode(5) end, "bytes are a string, not number")
  end)

  it("refuses options of decoding that there are not", function()
    local bytes = core.unhex(helper.HYD)
    assert.has_error(function() mbus.decode(bytes, { key = "00" }) end, "there is no option key")
    assert.has_error(function() mbus.decode(bytes, "000102030405060708090A0B0C0D0E0F") end, "options are a table, not string")
    assert.has_error(function() mbus.decode(bytes, { formats = true }) end, "option formats: a table expected")
    assert.has_error(function() mbus.decode(bytes, { keys = 5 }) end,
      "option keys: a key, a table of keys, or a function expected")
  end)

  it("decodes without luv, libserialport or anything else but the core", function()
    local out = fresh(([[
      package.preload.luv = function() error "luv was loaded" end
      package.preload["mbus.serial"] = function() error "libserialport was loaded" end
      local before = {}
      for name in pairs(package.loaded) do before[name] = true end
      local mbus = require "mbus"
      local telegram = assert(mbus.decode(assert(mbus.unhex(%q))))
      for _ in telegram:records() do end
      mbus.decode("garbage")
      local loaded = {}
      for name in pairs(package.loaded) do if not before[name] then loaded[#loaded + 1] = name end end
      table.sort(loaded)
      print(#telegram, table.concat(loaded, " "))]]):format(helper.HYD))
    assert.equal("14\tmbus mbus.core mbus.decode mbus.error\n", out)
  end)

  it("reads a simulated meter, or one driven by hand, without luv and libserialport", function()
    local out = fresh([[
      package.preload.luv = function() error "luv was loaded" end
      package.preload["mbus.serial"] = function() error "libserialport was loaded" end
      local mbus = require "mbus"
      local bus <close> = assert(mbus.open("sim:house"))
      print(#assert(bus:read("3189274724232804")))
      local manual = mbus.open("manual:")
      manual:begin("read", 5)
      print(manual:wants())]])
    assert.equal("14\ndrain\tnil\n", out)
  end)

  it("sets no globals", function()
    assert.equal("0\n", fresh([[
      local before = {}
      for name in pairs(_G) do before[name] = true end
      local mbus = require "mbus"
      local bus = mbus.open("sim:house")
      bus:read(10)
      local count = 0
      for name in pairs(_G) do if not before[name] then count = count + 1 end end
      print(count)]]))
  end)

  it("encodes frames and records", function()
    assert.equal("10 40 05 45 16", mbus.hex(mbus.encode.short(0x40, 5)))
    assert.equal("68 03 03 68 53 01 BD 11 16", mbus.hex(mbus.encode.long(0x53, 1, 0xBD)))
    assert.equal("\xE5", mbus.encode.ACK)
    assert.equal("0C 06 35 00 00 00", mbus.hex(mbus.encode.record {
      quantity = "energy", unit = "Wh", value = 35000, exponent = 3, data = "bcd8" }))
  end)

  it("turns hex into bytes and back", function()
    assert.equal("\x68\x0B", mbus.unhex "68:0B")
    assert.equal("680B", mbus.hex("\x68\x0B", ""))
    local bytes, err = mbus.unhex "6X"
    assert.is_nil(bytes)
    assert.equal("invalid", err.kind)
  end)

  it("opens what a URL names, or says why not", function()
    local bus <close> = assert(mbus.open("sim:house"))
    assert.equal("mbus.Bus (sim:house)", tostring(bus))
    for url, kind in pairs { ["/dev/no-such-port"] = "not_found", ["tcp://127.0.0.1:1"] = "refused", ["what"] = "invalid",
      ["tcp://127.0.0.1"] = "invalid", ["manual:x"] = "invalid", ["sim:/no/such/file"] = "not_found" } do
      local none, err = mbus.open(url)
      assert.is_nil(none)
      assert.equal(kind, err.kind, url)
      assert.is_true(#tostring(err) > 10)
    end
    assert.has_error(function() mbus.open(5) end, "a URL or a transport is needed, not number")
    assert.has_error(function() mbus.open() end, "a URL or a transport is needed, not nil")
  end)

  it("loads the rest when it is asked for", function()
    assert.equal(require "mbus.simulator", mbus.simulator)
    assert.equal(require("mbus.runtime").spawn, mbus.spawn)
    assert.equal(require("mbus.runtime").run, mbus.run)
    assert.is_nil(mbus.no_such_name)
  end)
end)
