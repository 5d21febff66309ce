-- `mbus poll` and `mbus config` as a user meets them.
local dkjson = require "dkjson"
local helper = require "spec.helper"

local CONFIG = [[return { connections = { { name = "house", url = %q, period = 60000, bindings = {
  { name = "energy", tag = "h/e", address = 10, index = 1, transformation = { type = "scaling", factor = 0.001, unit = "kWh" } },
  { name = "flow", address = 12, find = { quantity = "flow_temperature" } },
} } } }]]

local function with_config(text, fn)
  helper.with_folder(function(folder)
    helper.write(folder .. "/c.lua", text)
    fn(folder .. "/c.lua", folder)
  end)
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  return lines
end

-- Starts `mbus poll` in the background; fn(pid, wait_for) ; whatever fn does, it is ended.
local function polling(arguments, folder, fn)
  os.execute(("( %s sh -c 'echo $$ >%s/pid; exec lua5.4 lua/bin/mbus poll %s' >%s/out 2>%s/err; echo $? >%s/code ) &")
    :format(helper.environment(), folder, arguments, folder, folder, folder))
  local function wait_for(file, pattern)
    for _ = 1, 200 do
      local ok, text = pcall(helper.read, folder .. "/" .. file)
      if ok and text:find(pattern) then return text end
      os.execute "sleep 0.03"
    end
    error(("%s never shows %s"):format(file, pattern), 2)
  end
  local pid = wait_for("pid", "%d+\n"):match "%d+"
  local ok, err = pcall(fn, pid, wait_for)
  if not ok then
    os.execute("kill -KILL " .. pid .. " 2>/dev/null")
    error(err, 0)
  end
end

describe("mbus poll on a terminal", function()
  local CONNECTION = [[{ name = "house", url = "sim:house?clock=real", bindings = {
    { name = "a", address = 10, index = 1 }, { name = "b", address = 10, index = 2 }, { name = "c", address = 10, index = 3 },
    { name = "d", address = 10, index = 4 }, { name = "e", address = 10, index = 5 } } }]]

  it("paints values as they come, says what does not fit, and leaves them there", function()
    with_config("return { connections = { " .. CONNECTION .. " } }", function(config, folder)
      helper.write(folder .. "/run", ("stty rows 6 cols 100\n%s exec timeout -s INT 4 lua5.4 lua/bin/mbus poll %s\n")
        :format(helper.environment(), config))
      local _, out = helper.shell(("script -qec 'sh %s/run' /dev/null </dev/null"):format(folder))
      local last = out:match "^.*\27%[H(.-)\27%[J" -- what was painted last
      assert.matches("house +a +18342000 +Wh +good", last)
      assert.matches("%.%.%. 2 more rows", last)
      assert.is_nil(last:find("shutdown", 1, true))
      assert.equal(5, select(2, last:gsub("\n", "")))
    end)
  end)

  it("shows what it has to say below the values, and follows the size of the terminal", function()
    with_config("return { connections = { " .. CONNECTION:gsub("bindings", "period = 5000, bindings") .. " } }", function(config, folder)
      helper.write(folder .. "/run", ("stty rows 20 cols 100\n( sleep 2; stty cols 50 ) </dev/tty &\n"
        .. "%s exec timeout --foreground -s INT 4 lua5.4 lua/bin/mbus poll %s\n"):format(helper.environment(), config))
      local _, out = helper.shell(("script -qec 'sh %s/run' /dev/null </dev/null"):format(folder))
      local last = out:match "^.*\27%[H(.-)\27%[J"
      assert.matches("warning: connections%[1%]%.period", last)
      for line in last:gsub("\27%[K", ""):gmatch("[^\r\n]+") do assert.is_true(utf8.len(line) <= 50, line) end
    end)
  end)
end)

describe("mbus poll of a BACRouter's export", function()
  local EXPORT = "spec/fixtures/bacrouter_bus.json"

  it("takes what its ports are here", function()
    local code, out, err = helper.mbus("poll " .. EXPORT .. " --once --port RS485-1=sim:")
    assert.equal(0, code, err)
    assert.matches("RS485%-1 M%-Bus/Heating.Energy +183420 +good\n", out)
    code, out = helper.mbus("config check --port RS485-1=tcp://127.0.0.1:1 " .. EXPORT)
    assert.equal(0, code)
    assert.matches("good, 1 connection with 5 bindings", out)
  end)

  it("refuses ports that it does not have", function()
    local code, _, err = helper.mbus("poll " .. EXPORT .. " --once --port RS485-1=sim: --port RS485-2=sim:")
    assert.equal(2, code)
    assert.equal("mbus: " .. EXPORT .. ": port RS485-2: no bus is at it; there are: RS485-1\n", err)
    code, _, err = helper.mbus("poll " .. EXPORT .. " --port RS485-1")
    assert.equal(2, code)
    assert.matches("'RS485%-1' is no NAME=URL", err)
    with_config(CONFIG:format "sim:", function(config)
      code, _, err = helper.mbus("poll --once --port RS485-1=sim: " .. config)
      assert.equal(2, code)
      assert.matches("only the export of a BACRouter has ports", err)
    end)
  end)

  it("names what is wrong in it", function()
    for _, command in ipairs { "poll --once", "config check" } do
      local code, _, err = helper.mbus(command .. " spec/fixtures/bacrouter_errors.json")
      assert.is_true(code > 0)
      assert.matches('bacrouter_errors.json: bus "[^\n]*column %d+: the typographic quote', err)
      assert.is_nil(err:find("nil", 1, true), err)
    end
  end)
end)

describe("mbus poll's options", function()
  it("are refused where they do nothing", function()
    with_config(CONFIG:format "sim:", function(config, folder)
      for arguments, reason in pairs {
        ["--status -o " .. folder .. "/x"] = "--output is for values, not for --status",
        ["--status -f csv"] = "--status is a table or jsonl",
        ["--rotate 1M"] = "--rotate needs --output",
        ["--keep 3 -o " .. folder .. "/x"] = "--keep needs --rotate",
        ["--interval 3"] = "--interval needs --status",
        ["--rotate 99999999999999999999 -o " .. folder .. "/x"] = "is no size such as 10M",
        ["--rotate 9999999999G -o " .. folder .. "/x"] = "is no size such as 10M",
        ["--keep 5000 --rotate 1M -o " .. folder .. "/x"] = "'5000' is no whole number from 0 to 1000",
      } do
        local code, out, err = helper.mbus("poll --once " .. arguments .. " " .. config)
        assert.equal(2, code, arguments)
        assert.equal("", out)
        assert.matches(reason, err, 1, true)
      end
    end)
  end)
end)

describe("mbus poll", function()
  it("lines up values behind long names", function()
    with_config(CONFIG:format("sim:"):gsub('"energy", tag', '"the energy of the second floor on the left", tag'), function(config)
      local code, out = helper.mbus("poll " .. config .. " --once")
      assert.equal(0, code)
      local first, second = lines_of(out)[1], lines_of(out)[2]
      assert.equal(first:find(" good", 1, true), utf8.len(second, 1, (second:find(" good", 1, true))))
    end)
  end)

  it("ends with 1 if values could not be written, with 3 if no bus could be opened", function()
    with_config(CONFIG:format "sim:", function(config)
      local code, _, err = helper.mbus("poll " .. config .. " --once -o /dev/full")
      assert.equal(1, code)
      assert.equal("mbus: /dev/full: No space left on device\n", err)
    end)
    with_config(CONFIG:format "tcp://127.0.0.1:1", function(config)
      local code, out = helper.mbus("poll " .. config .. " --once")
      assert.equal(3, code)
      assert.matches("house/energy +%-%- +bad +no connection", out)
    end)
  end)

  it("says that there is nothing to poll, and that it is disabled", function()
    with_config(CONFIG:format("sim:"):gsub('name = "house"', 'name = "house", disabled = true'), function(config)
      local _, _, err = helper.mbus("poll " .. config .. " --once")
      assert.matches("no binding to poll (disabled: 1 of 1 connections)", err, 1, true)
    end)
    with_config(CONFIG:format("sim:"):gsub('name = "house"', 'name = "house", nonsense = 1'), function(config)
      local _, _, err = helper.mbus("poll " .. config .. " --once --tolerant")
      assert.matches("connections%[1%]%.nonsense", err) -- why nothing is left
      assert.matches("no binding to poll", err)
    end)
    with_config("return { connections = {} }", function(config, folder)
      local code, _, err = helper.mbus("poll " .. config .. " --once")
      assert.equal(1, code)
      assert.matches("no binding to poll", err)
      polling(config, folder, function(pid, wait_for)
        wait_for("err", "there is none, so nothing is polled")
        os.execute("kill -TERM " .. pid)
        assert.equal("0\n", wait_for("code", "%d"))
      end)
    end)
  end)

  it("ends in time while a connection is being made", function()
    with_config([[return { connections = { { name = "far", url = "tcp://127.0.0.1:1", shutdown_timeout = 100, bindings = {
      { name = "a", address = 1, index = 0 } } } } }]], function(config, folder)
      -- A transport that takes half a minute to open.
      helper.write(folder .. "/slow.lua", [[
        require("mbus.transport").open = function() require("mbus.runtime").sleep(30) return nil, { kind = "refused", message = "no" } end
        local code = require("mbus.cli").main(arg)
        os.exit(code)]])
      local began = os.time()
      local code = helper.shell(("%s timeout -k 20 -s TERM 1 lua5.4 %s/slow.lua poll %s"):format(helper.environment(), folder, config))
      assert.equal(124, code) -- of timeout; 137 if it had to be killed
      assert.is_true(os.time() - began < 10)
    end)
  end)

  it("logs at the level that was asked for, also after the config is loaded again", function()
    with_config(CONFIG:format("sim:"), function(config, folder)
      polling(config .. " --log debug", folder, function(pid, wait_for)
        wait_for("err", "debug: RECV")
        wait_for("out", "flow")
        helper.write(config, (CONFIG:format("sim:"):gsub('"house"', '"renamed"')))
        os.execute("kill -HUP " .. pid)
        wait_for("err", "renamed: debug: RECV")
        os.execute("kill -TERM " .. pid)
        wait_for("code", "%d")
      end)
    end)
  end)
  it("prints values once, as lines, jsonl or csv", function()
    with_config(CONFIG:format "sim:", function(config)
      local code, out, err = helper.mbus("poll " .. config .. " --once")
      assert.equal(0, code, err)
      assert.matches("house/energy +18342 kWh +good\n", out)
      code, out = helper.mbus("poll " .. config .. " --once -f jsonl")
      assert.equal(0, code)
      local first = dkjson.decode(lines_of(out)[1])
      assert.same({ "house", "energy", "h/e", 10, 18342, "kWh", "good", "2024-09-10T18:21:00" }, { first.connection, first.binding,
        first.tag, first.address, first.value, first.unit, first.quality, first.meter_time })
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", first.time)
      code, out = helper.mbus("poll " .. config .. " --once -f csv")
      assert.equal(0, code)
      assert.equal("time,connection,binding,tag,address,value,unit,quality,error,meter_time\r", lines_of(out)[1])
      assert.matches(",house,energy,h/e,10,18342,kWh,good,,2024%-09%-10T18:21:00\r$", lines_of(out)[2])
    end)
  end)

  it("ends with 1 if a value is missing, and prints diagnostics if asked", function()
    with_config(CONFIG:format("sim:"):gsub("address = 12", "address = 99"), function(config)
      local code, out = helper.mbus("poll " .. config .. " --once --status")
      assert.equal(1, code)
      assert.matches("RUN on %S+, process %d+", out)
      assert.matches('house/flow +RUN +bad +unavailable address "99"', out)
      code, out = helper.mbus("poll " .. config .. " --once --status -f jsonl")
      assert.equal(1, code)
      local connection = dkjson.decode(out).connections[1]
      assert.equal(1, connection.errors.timeout)
      assert.equal("info", connection.log[1].level)
    end)
  end)

  it("ends with 2 on a wrong config, naming every problem", function()
    with_config(CONFIG:format("nowhere:x"):gsub("index = 1", "index = -1"), function(config)
      local code, out, err = helper.mbus("poll " .. config)
      assert.equal(2, code)
      assert.equal("", out)
      assert.matches("mbus: connections%[1%]%.url: unknown scheme", err)
      assert.matches("mbus: connections%[1%]%.bindings%[1%]%.index: a whole number", err)
    end)
    assert.equal(2, (helper.mbus "poll /nonexistent.lua"))
  end)

  it("runs until SIGTERM, loads the config again on SIGHUP, and rotates its file", function()
    with_config(CONFIG:format("sim:"):gsub("60000", "1000"), function(config, folder)
      polling(("%s -f jsonl -o %s/values --rotate 500 --keep 2 --log info"):format(config, folder), folder, function(pid, wait_for)
        wait_for("values", "flow")
        wait_for("err", "battery")
        helper.write(config, (CONFIG:format("sim:"):gsub("60000", "1000"):gsub('"flow"', '"renamed"')))
        os.execute("kill -HUP " .. pid)
        wait_for("err", "config loaded again")
        wait_for("values", "renamed")
        wait_for("values.1", "{")
        os.execute("kill -USR1 " .. pid)
        wait_for("err", "RUN on")
        helper.write(config, "return {")
        os.execute("kill -HUP " .. pid)
        wait_for("err", "not loaded again: .-c%.lua:1")
        os.execute("kill -TERM " .. pid)
        assert.equal("0\n", wait_for("code", "%d"))
        assert.matches("shutdown", helper.read(folder .. "/values"))
      end)
    end)
  end)
end)

describe("mbus config", function()
  it("checks", function()
    with_config(CONFIG:format("sim:"):gsub("60000", "5000"), function(config)
      local code, out, err = helper.mbus("config check " .. config)
      assert.equal(0, code)
      assert.matches("good, 1 connection with 2 bindings\n", out)
      assert.matches("warning: connections%[1%]%.period: 5000 ms", err)
    end)
    with_config("return {\n  connections = {\n    { nam = 'x' }\n  }\n", function(config)
      local code, _, err = helper.mbus("config check " .. config)
      assert.equal(1, code)
      assert.matches("c%.lua:5: '}' expected", err)
    end)
    assert.equal(2, (helper.mbus "config"))
  end)

  it("makes a config that polls every record of the meters", function()
    helper.with_folder(function(folder)
      local code, _, err = helper.mbus("config make sim: -a 10 -a 3189274724232804 -o " .. folder .. "/made.lua")
      assert.equal(0, code, err)
      local text = helper.read(folder .. "/made.lua")
      assert.matches('name = "m82969010_energy_tariff1", address = 10, telegram = 0, index = 2, quantity = "energy", unit = "Wh"', text, 1, true)
      assert.matches('or: id = 2, or: find = { quantity = "energy", unit = "Wh", ["function"] = "instantaneous", storage = 0, tariff = 1',
        text, 1, true)
      code = helper.mbus("config check " .. folder .. "/made.lua")
      assert.equal(0, code)
      local out
      code, out = helper.mbus("poll " .. folder .. "/made.lua --once -f jsonl")
      assert.is_true(code <= 1)
      local good = 0
      for _, line in ipairs(lines_of(out)) do
        local value = dkjson.decode(line)
        if value.quality == "good" then good = good + 1 end
        assert.is_nil((value.error or ""):find("another record", 1, true))
      end
      assert.is_true(good >= 36, good)
      code, _, err = helper.mbus("config make sim: -a 10 -o " .. folder .. "/made.lua")
      assert.equal(2, code)
      assert.matches("is there already", err)
    end)
  end)

  it("refuses what the config would refuse, before it searches", function()
    helper.with_folder(function(folder)
      helper.write(folder .. "/there.lua", "mine")
      for arguments, reason in pairs {
        ["--period 99"] = "'99' is no whole number from 100",
        ["--period 1.5"] = "'1.5' is no whole number from 100",
        ["--name a/b"] = "'a/b' is no name",
        ["--name ''"] = "'' is no name",
        ["--range abc"] = "range",
        ["--mask zz --secondary"] = "mask",
        ["--mask 31FFFFFF"] = "--mask goes with --secondary",
        ["--range 1-5 --secondary"] = "--range goes without --secondary",
        ["-a 10 --range 1-5"] = "--address goes without a search",
        ["-o " .. folder .. "/there.lua"] = "is there already",
      } do
        local code, out, err = helper.mbus("config make tcp://127.0.0.1:1 " .. arguments) -- where nobody is
        assert.equal(2, code, arguments)
        assert.equal("", out)
        assert.matches(reason, err, 1, true)
      end
      assert.equal("mine", helper.read(folder .. "/there.lua"))
    end)
  end)

  it("writes nothing where no meter is", function()
    helper.with_folder(function(folder)
      local code, out, err = helper.mbus("config make sim: -a 99 -o " .. folder .. "/made.lua")
      assert.equal(1, code)
      assert.equal("", out)
      assert.matches("no meter found", err)
      assert.is_nil(io.open(folder .. "/made.lua"))
    end)
  end)

  it("takes over how the bus was talked to, but no key", function()
    local code, out = helper.mbus("config make sim: -a 10 --timeout 1.5 --retries 0 --gap 0.2 --max-telegrams 3 --no-nke "
      .. "--key 00112233445566778899AABBCCDDEEFF")
    assert.equal(0, code)
    assert.matches("timeout = 1500,", out, 1, true)
    assert.matches("attempts = 1,", out, 1, true)
    assert.matches('options = { gap = 0.2, max_telegrams = 3, nke = "never" },', out, 1, true)
    assert.matches("keys = {", out, 1, true)
    assert.is_nil(out:find("00112233", 1, true))
    with_config(out, function(config) assert.equal(0, (helper.mbus("config check " .. config))) end)
  end)

  it("leaves out a unit that no config can hold", function()
    local core = require "mbus.core"
    local data = core.unhex "78 56 34 12 43 04 01 07 55 00 00 00 04 7C 03 01 6D 58 0A 00 00 00 04 7C 01 6D 07 00 00 00"
    local sim = assert(require("mbus.simulator").new { meters = { { address = 5, telegrams = { { data = core.hex(data) } } } } })
    local bus = assert(require("mbus.bus").new(sim:transport()))
    local text = require("mbus.gateway.maker").config({ { address = 5, readout = assert(bus:read(5)) } },
      { url = "sim:", name = "bus", period = 60000 })
    assert.matches('index = 0, quantity = "plain_text" }, -- 10 Xm\\x01', text, 1, true)
    assert.matches('index = 1, quantity = "plain_text", unit = "m" }', text, 1, true)
  end)

  it("tells phases apart, and says in the config who is missing", function()
    local function voltage(phase, value)
      return { quantity = "voltage", unit = "V", value = value, exponent = -1, data = "int16", modifiers = phase and { "at_phase_" .. phase } }
    end
    local meter = { address = 5, id = "00000005", manufacturer = "ABC", medium = 2, telegrams = { { records = {
      voltage("l1", 231.5), voltage("l2", 230.5), voltage(nil, 229.5), voltage("l2", 228.5) } } } }
    local sim = assert(require("mbus.simulator").new { meters = { meter } })
    local bus = assert(require("mbus.bus").new(sim:transport()))
    local maker = require "mbus.gateway.maker"
    local text = maker.config({ { address = 5, readout = assert(bus:read(5)) } }, { url = "sim:", name = "bus", period = 60000,
      missed = { "address 0: several meters answer" } })
    assert.matches("index = 1.-find = {[^}]*modifiers = { \"at_phase_l2\" }", text)
    assert.matches("index = 2.-find = {[^}]*modifiers = {}", text)
    assert.matches("index = 3.-find = none: others look the same", text)
    assert.matches("-- not in here: address 0: several meters answer", text, 1, true)
    with_config(text, function(config)
      assert.equal(0, (helper.mbus("config check " .. config)))
      -- Every find finds the record that it stands beside.
      local readout = bus:read(5)
      for index, find in text:gmatch "index = (%d+)[^\n]*\n[^\n]*find = ({[^\n]*})" do
        assert.equal(tonumber(index), readout:find(load("return " .. find)()).index)
      end
    end)
  end)

  it("leaves no half a config where there is no room", function()
    helper.with_folder(function(folder)
      local code, _, err = helper.shell(("trap '' XFSZ; ulimit -f 4; %s lua5.4 lua/bin/mbus config make sim: -a 10 -o %s/made.lua")
        :format(helper.environment(), folder))
      assert.same({ 2, ("mbus: %s/made.lua: File too large"):format(folder) }, { code, err:match "[^\n]*" })
      assert.is_nil(io.open(folder .. "/made.lua"))
    end)
  end)

  it("writes what was found until it is interrupted, with the bus deselected", function()
    helper.with_folder(function(folder)
      local script = ("%s lua5.4 lua/bin/mbus simulate --pty %s/bus --trace >%s/trace 2>&1 & s=$!\n"
        .. "for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e %s/bus ] || sleep 0.3; done\n"
        .. "%s lua5.4 lua/bin/mbus config make %s/bus --secondary -o %s/made.lua & m=$!\n"
        .. "sleep 5; kill -INT $m; sleep 0.05; kill -INT $m; wait $m; sleep 0.5; kill $s; wait $s\n") -- twice, as timeout(1) does
        :format(helper.environment(), folder, folder, folder, helper.environment(), folder, folder)
      local _, _, err = helper.shell(script)
      assert.matches("mbus: interrupted\n", err, 1, true)
      assert.is_nil(err:find("traceback", 1, true), err)
      local made = helper.read(folder .. "/made.lua")
      assert.matches("-- not in here: interrupted", made, 1, true)
      assert.matches("_energy", made)
      local last
      for frame in helper.read(folder .. "/trace"):gmatch "SEND %(%d+%) ([^\n]*)" do last = frame end
      assert.equal("10 40 FD 3D 16", last)
      assert.equal(0, (helper.mbus("config check " .. folder .. "/made.lua")))
    end)
  end)
end)
