-- The commands that change something on a bus, as a user meets them.
local helper = require "spec.helper"
local mbus = helper.mbus

local BUS = [[return { meters = {
  { address = 5, id = "31892747", manufacturer = "HYD", version = 40, medium = 4, alarm = 4, baudrates = { 2400, 9600 }, telegrams = {
    { records = { { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8" },
      { vif = "\x6D", data = "datetime", value = "2024-01-01T00:00" } } } } },
  { address = 6, id = "31892749", manufacturer = "HYD", version = 40, medium = 4 },
} }]]

-- Runs `mbus COMMAND sim:FILE ARGUMENTS`.
local function on_bus(command, arguments, text)
  return helper.with_folder(function(folder)
    helper.write(folder .. "/bus.lua", text or BUS)
    return mbus(("%s sim:%s/bus.lua %s"):format(command, folder, (arguments:gsub("FOLDER", folder))))
  end)
end

local function succeeds(wanted, command, arguments)
  local code, out, err = on_bus(command, arguments)
  assert.same({ 0, wanted .. "\n", "" }, { code, out, err })
end

local function fails(wanted_code, pattern, command, arguments)
  local code, out, err = on_bus(command, arguments)
  assert.equal(wanted_code, code, out .. err)
  assert.equal("", out)
  assert.matches(pattern, err)
end

-- Runs in a shell on a terminal; FOLDER is one with a bus in it.
local function on_terminal(command)
  return helper.with_folder(function(folder)
    helper.write(folder .. "/bus.lua", BUS)
    helper.write(folder .. "/run", "stty rows 24 cols 80\n" .. helper.environment() .. command:gsub("FOLDER", folder))
    local _, out = helper.shell(("script -qec 'sh %s/run' /dev/null </dev/null"):format(folder))
    return out
  end)
end

describe("the command", function()
  it("takes its progress away before it prints", function()
    local out = on_terminal "lua5.4 lua/bin/mbus read sim:FOLDER/bus.lua 5"
    assert.matches("reading 5 %(1 of 1%) … \r\27%[K[^\r\n]*Meter +31892747", out)
  end)

  it("ends at once when it is interrupted, without a traceback", function()
    for arguments, said in pairs { ["read 'sim:FOLDER/bus.lua?clock=real' 9 --timeout 20"] = "reading 9", decode = "Telegrams in hex" } do
      local start = os.time()
      local out = on_terminal(("timeout --foreground -s INT 1 lua5.4 lua/bin/mbus %s </dev/tty"):format(arguments))
      assert.is_true(os.time() - start < 10)
      assert.matches(said, out, 1, true)
      assert.is_nil(out:find("interrupted!", 1, true), out)
    end
  end)

  it("explains each, with examples, in 80 columns", function()
    for _, command in ipairs { "set-address", "set-baudrate", "set-clock", "reset", "send", "write", "select", "alarms",
      "synchronize", "monitor" } do
      local code, out = mbus(command .. " --help")
      assert.equal(0, code)
      assert.matches("Examples:\n  mbus " .. command:gsub("%-", "%%-"), out)
      for line in out:gmatch("[^\n]+") do assert.is_true(#line <= 80, line) end
    end
  end)

  it("sets addresses", function()
    succeeds("meter 3189274724232804 has the address 17 now, before it had 5", "set-address", "5 17")
    succeeds("meter 3189274724232804 has the address 5 already", "set-address", "31892747 5")
    succeeds("the meter has the secondary address 1234567824232804 now, before it had 3189274724232804", "set-address", "5 12345678")
    fails(1, "address 5: address 6 is in use", "set-address", "5 6")
    fails(1, "address 9: no answer", "set-address", "9 10 --retries 0")
    fails(2, "bad new address '1x'", "set-address", "5 1x")
    fails(2, "bad new address 251", "set-address", "5 251")
    fails(2, "bad address \"999\"", "set-address", "999 1")
    for _, number in ipairs { "1e1", "10.0", "0x0A" } do -- numbers for Lua alone
      fails(2, "bad address", "set-address", number .. " 17")
      fails(2, "bad new address", "set-address", "5 " .. number)
      fails(2, "bad address", "reset", number)
      fails(2, "bad address", "reset", "--link " .. number)
    end
  end)

  it("prints the frames of a dry run, and opens nothing", function()
    local code, out, err = mbus "set-address /dev/nowhere 5 8 --dry-run"
    assert.same({ 0, "" }, { code, err })
    assert.matches("SEND %(005%) 10 40 05 45 16\n.*SEND %(012%) 68 06 06 68 73 05 51 01 7A 08 4C 16\n", out)
    code, out = mbus "set-clock /dev/nowhere 255 2024-02-29T13:45 --dry-run"
    assert.same({ 0, "SEND (005) 10 40 FF 3F 16\nSEND (015) 68 09 09 68 73 FF 51 04 6D 2D 0D 1D 32 BD 16\n" }, { code, out })
    code, out = mbus "write /dev/nowhere 5 quantity=customer_location,value=00123,data=text --dry-run"
    assert.same({ 0, "SEND (005) 10 40 05 45 16\nSEND (018) 68 0C 0C 68 73 05 51 0D FD 10 05 33 32 31 30 30 DE 16\n" }, { code, out })
    assert.equal(2, (mbus "write /dev/nowhere 5 quantity=energy,unit=Wh,value=12abcd,data=int24 --dry-run"))
    code, out = mbus "synchronize /dev/nowhere --dry-run"
    assert.same({ 0, "SEND (005) 10 40 FF 3F 16\nSEND (009) 68 03 03 68 73 FF 5C CE 16\n" }, { code, out })
    code, err = select(1, mbus "reset /dev/nowhere 999 --dry-run"), select(3, mbus "reset /dev/nowhere 999 --dry-run")
    assert.equal(2, code)
    assert.matches("bad address", err)
  end)

  it("switches baud rates", function()
    succeeds("the meter answers at 9600 baud now; read it with --baudrate 9600", "set-baudrate", "5 9600")
    succeeds("all meters were told to switch to 4800 baud", "set-baudrate", "255 4800")
    fails(1, "address 5: the meter stays at 2400 baud", "set-baudrate", "5 300")
    fails(2, "", "set-baudrate", "5 1234")
  end)

  it("sets clocks", function()
    succeeds("the clock shows 2024-02-29T13:45:00 (type F)", "set-clock", "5 2024-02-29T13:45")
    succeeds("sent 2024-02-29T13:45:00 (type F); no clock was read back", "set-clock", "255 2024-02-29T13:45")
    fails(2, "bad time", "set-clock", "5 tomorrow")
    local code, out = on_bus("set-clock", "5")
    assert.equal(0, code)
    assert.matches("^the clock shows %d+%-%d+%-%d+T", out)
  end)

  it("resets", function()
    succeeds("done; meter 3189274724232804 sends 2 records", "reset", "5 --subcode 0x10")
    succeeds("sent to all meters", "reset", "255")
    succeeds("address 5 acknowledges", "reset", "5 --link")
    succeeds("no meter is selected now", "reset", "253 --link")
    fails(2, "SND_NKE goes to", "reset", "x --link")
    fails(1, "address 9: no answer", "reset", "9 --link")
  end)

  it("writes and verifies", function()
    succeeds("the meter has acknowledged it", "write", "5 '0C 13 00 00 00 00'")
    succeeds("the meter shows what was written", "write", "5 quantity=volume,unit=m3,value=0,exponent=-3,data=bcd8 --verify")
    local code, out = on_bus("write", "5 quantity=power,unit=W,value=1,data=bcd8 --verify")
    assert.equal(1, code)
    assert.matches("does not show 1 of the records", out)
    fails(2, "there is no field 'volume'", "write", "5 volume=1")
    fails(2, "neither hex digits nor name=value", "write", "5 xyz")
    fails(2, "record 1: no VIF means", "write", "5 quantity=colour,value=1")
  end)

  it("selects records", function()
    local code, out = on_bus("select", "5 quantity=volume,unit=m3,exponent=-3 -f json")
    assert.equal(0, code)
    local document = require("dkjson").decode(out)
    assert.equal(1, #document.records)
    assert.equal(0, (on_bus("select", "5 all")))
    assert.equal(2, (on_bus("select", "5 zzz")))
  end)

  it("refuses records that are none, or say something twice", function()
    fails(2, "record 1: the telegram ends inside the data of a record", "write", '5 "0C 13 00" "04 06 01 00 00 00"')
    fails(2, "quantity stands there twice", "write", "5 quantity=volume,quantity=energy,value=1")
    fails(2, "nobody answers", "write", "255 0C1300000000 --verify")
  end)

  it("asks for alarms, and synchronizes", function()
    succeeds("5: alarm 04\n6: no alarm", "alarms", "5 6")
    fails(2, "bad address \"255\"", "alarms", "5 255") -- before 5 is asked
    succeeds("sent to all meters", "synchronize", "")
    succeeds("the meter has acknowledged it", "synchronize", "5 --old")
  end)

  it("sends any frame and prints what comes", function()
    local code, out = on_bus("send", "10 40 05 --checksum")
    assert.equal(0, code)
    assert.matches("^ +0%.0%d%d RECV %(001%) E5   # acknowledgement\n$", out)
    code, out = on_bus("send", "'10 5B 05 60 16'")
    assert.equal(0, code)
    assert.matches("# RSP_UD of 5\n", out)
    assert.matches("volume", out)
    fails(1, "no answer", "send", "10 40 09 49 16")
    assert.equal(0, (on_bus("send", "10 40 FF 3F 16")))
    fails(2, "no beginning of a frame", "send", "99 --checksum")
    fails(2, "", "send", "1G")
  end)

  it("traces what technicians compare with other tools", function()
    local _, _, err = on_bus("reset", "5 --link --trace")
    assert.matches("^   0%.000 SEND %(005%) 10 40 05 45 16\n   0%.0%d%d RECV %(001%) E5\n$", err)
  end)

  it("monitors, records, and replays", function()
    helper.with_folder(function(folder)
      helper.write(folder .. "/bus.lua", (BUS:gsub("alarm = 4", "babbles = 1")))
      local code, out, err = mbus(("monitor sim:%s/bus.lua --duration 3.5 --record %s/bus.cap"):format(folder, folder))
      assert.same({ 0, "" }, { code, err })
      assert.matches("^ +1%.%d+ RECV %(%d+%) 68 .*# RSP_UD of 5\n", out)
      assert.matches("^# mbus capture 1\n# baudrate 2400\n# start %d+%-.*\n +1%.%d+ RECV %(", helper.read(folder .. "/bus.cap"))
      local replayed
      code, replayed = mbus(("decode --replay %s/bus.cap"):format(folder))
      assert.equal(0, code)
      assert.equal(out, replayed)
      code, replayed = mbus(("decode --replay %s/bus.cap -f jsonl"):format(folder))
      assert.equal(0, code)
      assert.equal(3, select(2, replayed:gsub("\n", "")))
      code, replayed = mbus(("read sim:%s/bus.cap 5"):format(folder))
      assert.equal(0, code)
      assert.matches("volume", replayed)
      code, out, err = mbus("monitor sim:house")
      assert.same({ 2, "" }, { code, out })
      assert.matches("%-%-duration", err)
      code, out, err = mbus("decode --replay /nowhere/bus.cap")
      assert.same({ 2, "" }, { code, out })
      assert.matches("nowhere", err)
      assert.equal(2, (mbus(("monitor sim:house --duration 1 --record %s/no/bus.cap"):format(folder))))
    end)
  end)

  it("decrypts what it hears with a key, and says so without", function()
    -- OMS Vol. 2, Annex N.5.4
    local data = "88 77 66 55 93 44 55 08 00 04 10 05 00 DF E2 A7 82 14 6D 15 13 58 1C D2 F8 3F 39 04"
    helper.with_folder(function(folder)
      helper.write(folder .. "/bus.lua", ("return { meters = { { address = 5, babbles = 1, telegrams = { { data = %q } } } } }"):format(data))
      for command, rest in pairs { send = "10 5B 05 60 16", monitor = "--duration 1.5" } do
        local line = ("%s 'sim:%s/bus.lua' %s"):format(command, folder, rest)
        local code, out = mbus(line .. " --key 000102030405060708090A0B0C0D0E0F")
        assert.equal(0, code)
        assert.matches("heat cost units +1234", out)
        assert.is_nil(out:find("key", 1, true))
        assert.matches("# RSP_UD of 5\n.*55667788.*is encrypted", select(2, mbus(line)))
        assert.matches("\n# the key is not that of meter 5566778893445508", select(2, mbus(line .. " --key " .. ("F"):rep(32))))
      end
    end)
  end)

  it("tells when a record or a wait is lost", function()
    local code, _, err = on_bus("monitor --duration 1 --record /dev/full", "", (BUS:gsub("alarm = 4", "babbles = 0.2")))
    assert.same({ 1, "mbus: /dev/full: No space left on device\n" }, { code, err })
    code = helper.shell(helper.environment() .. "timeout 2 lua5.4 lua/bin/mbus monitor sim: --duration 1e9")
    assert.equal(124, code) -- ended by timeout's SIGTERM, not by itself or SIGKILL
  end)

  it("ends a monitor on a signal, with the record complete", function()
    helper.with_folder(function(folder)
      helper.write(folder .. "/bus.lua", (BUS:gsub("alarm = 4", "babbles = 0.2")))
      local run = "%s timeout -s INT 1.5 lua5.4 lua/bin/mbus monitor 'sim:%s/bus.lua?clock=real' --record %s/bus.cap"
      local _, out, err = helper.shell(run:format(helper.environment(), folder, folder))
      assert.equal("", err)
      assert.is_true(select(2, out:gsub("RECV", "")) >= 3, out)
      assert.equal(0, (mbus(("decode --replay %s/bus.cap"):format(folder))))
    end)
  end)
end)
