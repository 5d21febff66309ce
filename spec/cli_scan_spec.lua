-- `mbus scan` as a user meets it.
local dkjson = require "dkjson"
local helper = require "spec.helper"
local mbus, shell = helper.mbus, helper.shell

local HOUSE = [[
Secondary address  Primary  Id        Maker  Version  Medium
829690102D2C400D        10  82969010  KAM         64  heat/cooling
829690122D2C400D        12  82969012  KAM         64  heat/cooling
830036742D2C400D        74  83003674  KAM         64  heat/cooling
830036762D2C400D        76  83003676  KAM         64  heat/cooling
829690152D2C400D        15  82969015  KAM         64  heat/cooling
830036752D2C400D        75  83003675  KAM         64  heat/cooling
829690172D2C400D        17  82969017  KAM         64  heat/cooling
3189274724232804         0  31892747  HYD         40  heat
830036772D2C400D        77  83003677  KAM         64  heat/cooling
3189274924232804         0  31892749  HYD         40  heat
830036792D2C400D        79  83003679  KAM         64  heat/cooling
]]

local function count(text, pattern)
  local _, n = text:gsub(pattern, "")
  return n
end

describe("mbus scan", function()
  it("prints the meters as a table, and nothing else", function()
    local code, out, err = mbus "scan sim: --secondary"
    assert.same({ 0, HOUSE, "" }, { code, out, err })
  end)

  it("asks all primary addresses, and tells where several meters answer", function()
    local code, out, err = mbus "scan sim:"
    assert.equal(1, code)
    assert.equal(9, count(out, "\n +%d+  %x+"))
    assert.matches("\n      0 +several meters answer\n", out)
    assert.matches("mbus: address 0: several meters answer; mbus scan --secondary tells them apart\n", err, 1, true)
    code = mbus "scan sim: --range 10-20,74"
    assert.equal(0, code)
  end)

  it("has exit code 1 where nothing is found, or less than expected", function()
    local code, out, err = mbus "scan sim: --range 100-105"
    assert.same({ 1, "", "mbus: no meter found\n" }, { code, out, err })
    code, out, err = mbus "scan sim: -s --mask 31FFFFFF --expect 3"
    assert.equal(1, code)
    assert.equal(3, count(out, "\n"))
    assert.matches("found 2 of 3 meters", err)
  end)

  it("prints JSON, one document or one line a meter", function()
    local _, out = mbus "scan sim: -s --mask 31FFFFFF -f json"
    local list = assert(dkjson.decode(out))
    local code
    assert.equal(2, #list)
    assert.same({ address = "3189274724232804", id = "31892747", manufacturer = "HYD", version = 40, medium = 4,
      medium_name = "heat", secondary_address = "3189274724232804", primary_address = 0, baudrate = 2400, collision = false },
      setmetatable(list[1], nil))
    code, out = mbus "scan sim: --range 0-12 -f jsonl"
    assert.equal(1, code)
    local lines = {}
    for line in out:gmatch("[^\n]+") do lines[#lines + 1] = assert(dkjson.decode(line)) end
    assert.same({ 0, 10, 12 }, { lines[1].address, lines[2].address, lines[3].address })
    assert.is_true(lines[1].collision)
    assert.equal("[]\n", select(2, mbus "scan sim: --range 100 -f json"))
  end)

  it("prints CSV", function()
    local _, out = mbus "scan sim: --range 0-12 -f csv"
    assert.equal("address,id,manufacturer,version,medium,medium_name,secondary_address,primary_address,fabrication,baudrate,"
      .. "collision,error\r\n0,,,,,,,,,2400,true,\r\n10,82969010,KAM,64,13,heat/cooling,829690102D2C400D,10,,2400,false,\r\n"
      .. "12,82969012,KAM,64,13,heat/cooling,829690122D2C400D,12,,2400,false,\r\n", out)
  end)

  it("reads the meters on the way", function()
    local code, out = mbus "scan sim: -s --mask 31FFFFFF --read"
    assert.equal(0, code)
    assert.equal(2, count(out, "\nStatus "))
    assert.matches("31892749, HYD, heat, version 40", out, 1, true)
    code, out = mbus "scan sim: --range 17 --read -f jsonl"
    assert.equal(0, code)
    local meter = assert(dkjson.decode(out))
    assert.equal(3, #meter.readout.telegrams)
    assert.equal("82969017", meter.readout.id)
    code, out = mbus "scan sim: --range 10,12 --read -f csv"
    assert.equal(0, code)
    assert.equal(1, count(out, "quantity"))
    assert.matches("\r\n12,82969012,KAM", out, 1, true)
  end)

  it("shows the line speed where there are several", function()
    local code, out = mbus "scan sim: --range 10 --baud 300,2400"
    assert.equal(0, code)
    assert.matches("Address  Secondary address   Baud", out, 1, true)
    assert.matches("829690102D2C400D    2400", out, 1, true)
  end)

  it("refuses wrong usage before it opens the bus", function()
    for arguments, message in pairs { ["--range 0-300"] = "primary addresses are 0 to 250", ["-s --mask 31XX"] = "is no hex digit",
      ["--mask 31FFFFFF"] = "--mask goes with --secondary", ["-s --range 1"] = "--range goes without --secondary",
      ["--baud 1234"] = "is no line speed", ["--expect 0"] = "no whole number from 1", ["--start-depth 9"] = "0 to 3",
      ["-f xml"] = "must be one of", ["--resume spec"] = "spec" } do
      local code, out, err = mbus("scan /dev/nonexistent " .. arguments)
      assert.same({ 2, "" }, { code, out }, arguments)
      assert.matches(message, err, 1, true)
      assert.is_nil(err:find("traceback", 1, true))
    end
    assert.equal(3, (mbus "scan /dev/nonexistent"))
  end)

  it("explains itself", function()
    local code, out = mbus "scan --help"
    assert.equal(0, code)
    assert.matches("Examples:\n  mbus scan", out)
    for line in out:gmatch("[^\n]+") do assert.is_true(#line <= 80, line) end
  end)

  it("ends when nobody reads on, with no meter selected", function()
    local block = "%s lua5.4 lua/bin/mbus scan 'sim:?clock=real' -s --trace | head -1" -- head has time to end
    local _, out, err = shell(block:format(helper.environment()))
    assert.equal("Secondary address  Primary  Id        Maker  Version  Medium\n", out)
    assert.matches("10 40 FD 3D 16", err)
    assert.is_true(count(err, "SEND") < 20, err)
  end)

  it("stops at an interrupt with the bus deselected, and goes on with --resume", function()
    helper.with_folder(function(folder)
      helper.write(folder .. "/slow.lua", 'local house = { baudrate = 2400, meters = {} } for i = 0, 9 do '
        .. 'house.meters[i + 1] = { id = "1234567" .. i, telegrams = { { records = {} } } } end return house')
      local run = ("%s timeout -s %%s 2.5 lua5.4 lua/bin/mbus scan 'sim:%s/slow.lua?clock=real' -s --trace --resume %s/state")
        :format(helper.environment(), folder, folder)
      local code, out, err = shell(run:format("INT"))
      assert.is_true(code ~= 0)
      assert.matches("mbus: interrupted\n", err, 1, true)
      assert.matches("SEND %(005%) 10 40 FD 3D 16[^S]*$", err)
      local before = count(out, "\n1234567")
      assert.is_true(before > 0 and before < 10, out)
      assert.equal("12345670", dkjson.decode(helper.read(folder .. "/state")).found[1].id)
      code, out = mbus(("scan sim:%s/slow.lua -s --resume %s/state"):format(folder, folder))
      assert.equal(0, code)
      assert.equal(10, count(out, "\n1234567"))
      assert.is_nil(io.open(folder .. "/state"))
      assert.is_nil(io.open(folder .. "/state.new"))
    end)
  end)

  it("does not call a state file bad where memory runs out", function()
    helper.with_folder(function(folder)
      helper.write(folder .. "/state", "{}")
      helper.without_memory(dkjson, "decode", function()
        require("mbus.cli.scan").run { resume = folder .. "/state" }
      end)
      assert.equal("{}", helper.read(folder .. "/state"))
    end)
  end)

  it("says so where a state file belongs to another scan, or is none", function()
    helper.with_folder(function(folder)
      helper.write(folder .. "/state", "nonsense")
      local code, _, err = mbus("scan sim: --resume " .. folder .. "/state")
      assert.equal(2, code)
      assert.matches("this is not the state of a scan", err)
      assert.equal("nonsense", helper.read(folder .. "/state"))
      helper.write(folder .. "/state", dkjson.encode { version = 1, key = "secondary FFFFFFFFFFFFFFFF baud false", speed = 1,
        found = {}, nodes = {}, doubtful = {}, untrusted = {}, unaccounted = {}, remarks = {} })
      code, _, err = mbus("scan sim: --resume " .. folder .. "/state")
      assert.equal(2, code)
      assert.matches("another scan: secondary", err)
    end)
  end)

  it("draws its progress only on a terminal", function()
    local _, _, err = mbus "scan sim: -s"
    assert.equal("", err)
    helper.with_folder(function(folder)
      helper.write(folder .. "/run", helper.environment() .. " exec lua5.4 lua/bin/mbus scan sim: -s\n")
      local code, out = shell(("script -qec 'sh %s/run' /dev/null </dev/null"):format(folder))
      assert.equal(0, code)
      assert.matches("%[=*>? *%] +%d+%% +%d+ found  F", out)
      assert.is_nil(out:find("\r\27%[K[^\n\27]*%d\r\n$"))
    end)
  end)
end)

describe("the progress bar", function()
  local line = require("mbus.cli.progress").line
  local progress = { fraction = 0.25, found = 4, current = "FFFFFFF5FFFFFFFF", seconds_left = 71.2 }

  it("fits its terminal", function()
    assert.equal("[=======>                      ]  25%    4 found  FFFFFFF5FFFFFFFF  1:12 left", line(progress))
    for columns = 20, 120 do assert.is_true(#line(progress, columns) < columns, columns) end
  end)

  it("has no time before it is known, and hours where it takes some", function()
    assert.equal("[>                             ]   0%    0 found  17                ",
      line { fraction = 0, found = 0, current = 17 })
    assert.matches(" 1:01:05 left$", line { fraction = 0.5, found = 0, current = 17, seconds_left = 3664.5 })
  end)
end)
