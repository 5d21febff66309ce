-- What the examples print, each against the simulator; the slow ones side by side.
local helper = require "spec.helper"

local folder, processes = nil, {}

-- Starts `mbus simulate`; returns when it can be reached.
local function simulate(arguments, ready)
  local log = ("%s/simulate.%d"):format(folder, #processes + 1)
  local pipe = assert(io.popen(("%s lua5.4 lua/bin/mbus simulate %s >%s 2>&1 & echo $!"):format(helper.environment(), arguments, log)))
  processes[#processes + 1] = pipe:read("l")
  pipe:close()
  assert(os.execute(("for i in $(seq 100); do %s && exit 0; sleep 0.05; done; exit 1"):format(ready:gsub("LOG", log))))
  return log
end

local jobs = {}

-- Starts a command in the background.
local function start(name, command)
  local base = folder .. "/" .. name
  assert(os.execute(("(%s >%s.out 2>%s.err; echo $? >%s.rc.new; mv %s.rc.new %s.rc) </dev/null &"):format(
    command, base, base, base, base, base)))
  jobs[name] = base
end

-- Waits for it: code, what it printed, what it complained about.
local function finish(name)
  local base = jobs[name]
  assert(os.execute(("for i in $(seq 200); do [ -e %s.rc ] && exit 0; sleep 0.05; done; exit 1"):format(base)), name .. " does not end")
  return tonumber(helper.read(base .. ".rc")), helper.read(base .. ".out"), helper.read(base .. ".err")
end

-- Debian installs copas, which is Lua alone, for older versions of Lua; it works in 5.4, too.
local PATHS = [[LUA_PATH="$LUA_PATH;/usr/share/lua/5.2/?.lua" ]]

local function has(module)
  return (helper.shell(("%s; export LUA_PATH LUA_CPATH; %s lua5.4 -e 'require \"%s\"'"):format(helper.environment(), PATHS, module))) == 0
end

local function lua(name, arguments)
  return ("%s; export LUA_PATH LUA_CPATH; %s lua5.4 examples/%s.lua %s"):format(helper.environment(), PATHS, name, arguments or "")
end

describe("the example", function()
  local missing, port = {}, nil

  setup(function()
    local pipe = assert(io.popen("mkdir -p build && mktemp -d build/examples.XXXXXX"))
    folder = pipe:read("l")
    pipe:close()
    for _, name in ipairs { "gateway", "redundant", "write", "meter", "freeclient" } do start(name, lua(name)) end
    start("build", "make -s -f examples/firmware/Makefile")
    for i = 1, 3 do simulate(("--pty %s/house%d"):format(folder, i), ("[ -e %s/house%d ]"):format(folder, i)) end
    local log = simulate("--tcp 0", "grep -q listening LOG")
    port = helper.read(log):match(":(%d+)\n?$")
    for _, name in ipairs { "copas", "cqueues" } do missing[name] = not has(name) end
    if not missing.copas then start("copas", lua("copas", "127.0.0.1:" .. port .. " 10 3189274724232804 99")) end
    if not missing.cqueues then
      start("cqueues", lua("cqueues", ("%s/house1 10 %s/house2 12"):format(folder, folder)))
    end
    if finish("build") == 0 then
      start("firmware", ("{ build/firmware/firmware %s/house3 10 3189274724232804 99 x && build/firmware/firmware %s/house3 10; }")
        :format(folder, folder))
    end
  end)

  teardown(function()
    for _, pid in ipairs(processes) do os.execute("kill " .. pid .. " 2>/dev/null") end
    os.execute("sleep 0.1; rm -rf " .. folder)
  end)

  local function assert_runs(name, ...)
    local code, out, err = finish(name)
    assert.equal(0, code, out .. err)
    for _, expected in ipairs { ... } do assert.matches(expected, out) end
    return out, err
  end

  it("meter reads one in ten lines", function()
    assert_runs("meter", "82969010\tKAM\theat/cooling\n0\tfabrication_number\t0\t82969010\tnil\n1\tenergy\t0\t18342000\tWh\n")
    local lines = 0
    for line in helper.read("examples/meter.lua"):gmatch("[^\n]+") do
      if not line:find("^%-%-") then lines = lines + 1 end
    end
    assert.is_true(lines <= 10, lines .. " lines")
  end)

  it("write writes, and reads back", function()
    assert_runs("write", "before\t12.5\tm3\nwritten and read back\nafter\t20%.?0?\tm3\n")
  end)

  it("gateway polls two serial buses and a TCP one", function()
    local out = assert_runs("gateway", "cellar\tenergy\t18342.0\tkWh\tgood", "roof\tenergy\t9876.0\tkWh\tgood",
      "annex\tenergy\t174843.1\tkWh\tgood", "cellar\tflow\t%d+%.%d+\t°C\tgood", "roof\tflow\t", "annex\tflow\t")
    assert.equal(6, select(2, out:gsub("\n", "")))
  end)

  it("redundant goes on over the second gateway", function()
    assert_runs("redundant", "^first\t18342000\tWh\tgood\t\nthe first gateway fails\n.*second\t18342000\tWh\tgood\t\n$")
  end)

  it("freeclient runs our script", function()
    local out = assert_runs("freeclient", "^1\tonline\n1\t1\t18342000.0\t0\n1\t2\t1204.0\t0\n2\tonline\n2\t1\t174843100.0\t0\n3\toffline\n")
    assert.equal(10, select(2, out:gsub("\n", "")))
  end)

  it("freeclient runs an export of a BACRouter", function()
    local json = require "dkjson"
    local export = json.decode((helper.read("spec/fixtures/bacrouter_bus.json"):gsub("^\xEF\xBB\xBF", "")))
    export.script = { ["once.lua"] = helper.read("examples/freeclient/mbus.lua"):gsub("return swg%.timer%(.-%) end", "error('once', 0) end") }
    helper.write(folder .. "/export.json", "\xEF\xBB\xBF" .. json.encode(export))
    local code, out, err = helper.shell(lua("freeclient", folder .. "/export.json sim:"))
    assert.equal(1, code)
    assert.equal("1\tonline\n1\t1\t82969010.0\t0\n1\t2\t183420.0\t0\n2\tonline\n2\t1\t174843100.0\t0\n2\t2\t160302.0\t0\n", out)
    assert.matches("RS485%-1 M%-Bus: once", err)
  end)

  it("copas reads on a loop of its own", function()
    if missing.copas then return pending("copas is not installed (Debian: lua-copas)") end
    local code, out = finish("copas")
    assert.equal(1, code) -- of three meters one is not there
    assert.matches("^10\t82969010\t26 records\n3189274724232804\t31892747\t14 records\n99\t[^\n]*no answer", out)
  end)

  it("copas says that the gateway hangs up", function()
    if missing.copas then return pending("copas is not installed (Debian: lua-copas)") end
    local rude = [[local server = require "socket".bind("127.0.0.1", 0)
      print((select(2, server:getsockname())))
      io.stdout:close()
      server:accept():close()]]
    local pipe = assert(io.popen("lua5.4 -e " .. helper.quote(rude)))
    local address = "127.0.0.1:" .. pipe:read("l")
    local code, out, err = helper.shell("timeout 20 sh -c " .. helper.quote(lua("copas", address .. " 10 12")))
    pipe:close()
    assert.same({ 1, "" }, { code, err })
    for _, meter in ipairs { "10", "12" } do
      assert.matches(("%s\t%s: [^\n]*the gateway closed the connection"):format(meter, address), out)
    end
  end)

  it("cqueues reads two buses at once", function()
    if missing.cqueues then return pending("cqueues is not installed (Debian: lua-cqueues)") end
    assert_runs("cqueues", "10\t82969010\t26 records\n", "12\t82969012\t26 records\n", "meanwhile, other work went on\n$")
  end)

  it("firmware holds everything, loads nothing, and reads in half a megabyte", function()
    assert.equal(0, (finish("build")), (select(3, finish("build"))))
    local out = assert_runs("firmware", "^82969010\tKAM\theat/cooling\t26\nenergy\t18342000\tWh\n"
      .. "31892747\tHYD\theat\t14\nenergy\t174843100\tWh\nline: address 99: no answer[^\n]*\nline: bad address \"x\"[^\n]*\nat most %d+ KiB of memory\n"
      .. "82969010\tKAM\theat/cooling\t26\n") -- a second time, too
    assert.is_true(tonumber(out:match("at most (%d+) KiB")) < 700, out)
    local code, symbols = helper.shell("nm build/firmware/firmware")
    assert.equal(0, code)
    assert.matches("luaopen_mbus_core", symbols)
    assert.is_nil(symbols:find("dlopen", 1, true))
    assert.is_nil(symbols:find("luaopen_package", 1, true))
  end)

  it("firmware says what is wrong", function()
    local code, _, err = helper.shell("build/firmware/firmware")
    assert.equal(2, code)
    assert.matches("^usage: ", err)
    code, _, err = helper.shell("build/firmware/firmware /dev/no-such-port 5")
    assert.equal(1, code)
    assert.equal("/dev/no-such-port: No such file or directory\n", err)
  end)

  it("scripts say how they are used", function()
    for _, name in ipairs { "copas", "cqueues" } do
      local code, out = helper.shell(lua(name))
      assert.equal(0, code)
      assert.matches("^usage: lua5.4 examples/" .. name, out)
    end
    for arguments, name in pairs { ["x"] = "copas", ["/dev/x"] = "cqueues", ["/dev/x 10.0.0.1"] = "gateway", [":1"] = "redundant" } do
      local code, out, err = helper.shell(lua(name, arguments))
      assert.equal(1, code)
      assert.matches("^usage: lua5.4 examples/" .. name, out)
      assert.equal("", err)
    end
    local _, _, err = helper.shell(lua("copas", "127.0.0.1:1 10"))
    if not missing.copas then assert.equal("127.0.0.1:1: connection refused\n", err) end
    _, _, err = helper.shell(lua("cqueues", "/dev/no-such-port 10"))
    if not missing.cqueues then assert.equal("/dev/no-such-port: no such port: No such file or directory\n", err) end
  end)
end)
