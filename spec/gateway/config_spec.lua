-- What a config may say, and how a wrong one is refused: by path, with what is allowed, everything at once.
local Config = require "mbus.gateway.config"
local helper = require "spec.helper"

local function refused(connection, path, allowed)
  local config, err = Config.check { connections = { connection } }
  assert.is_nil(config, path)
  assert.equal("invalid", err.kind)
  for _, problem in ipairs(err.problems) do
    if problem.path == path and problem.message:find(allowed, 1, true) then return end
  end
  error(("%s is not refused with %q: %s"):format(path, allowed, err), 2)
end

local function tcp(fields)
  local connection = { name = "a", type = "tcp", host = "h", port = 1 }
  for key, value in pairs(fields) do connection[key] = value end
  return connection
end

local function binding(fields)
  local one = { name = "b", address = 5, index = 0 }
  for key, value in pairs(fields) do one[key] = value ~= "nil" and value or nil end
  return tcp { bindings = { one } }
end

describe("the config of a gateway", function()
  it("has the defaults of Faceplate's driver", function()
    local config = assert(Config.check { connections = { { name = "a", type = "serial", port = "/dev/ttyUSB0" } } })
    local settings = config.connections[1]
    assert.equal("serial:///dev/ttyUSB0", settings.url)
    assert.equal(3000, settings.timeout)
    assert.equal(3, settings.attempts)
    assert.equal(60000, settings.period)
    assert.equal(250, settings.max_package_length)
    assert.equal(1, settings.line_delay_ratio)
    assert.is_true(settings.group_requests)
    assert.is_false(settings.disabled)
    assert.equal("serial://COM3", assert(Config.check { connections = { { name = "a", type = "serial", port = "COM3", parity = "no" } } })
      .connections[1].url)
  end)

  it("takes host and port, or any URL", function()
    for _, connection in ipairs { tcp {}, { name = "a", url = "tcp://h:1" }, { name = "a", type = "tcp://h:1" } } do
      assert.equal("tcp://h:1", assert(Config.check { connections = { connection } }).connections[1].url)
    end
    assert.equal("COM3", assert(Config.check { connections = { { name = "a", type = "COM3" } } }).connections[1].url)
    assert.equal("tcp://[fe80::1]:1", assert(Config.check { connections = { tcp { host = "fe80::1" } } }).connections[1].url)
  end)

  it("takes the settings of the line beside every URL that has them", function()
    for _, url in ipairs { "/dev/ttyUSB0", "COM3", "usb://1a86:55d5", "rfc2217://h:1" } do
      assert(Config.check { connections = { { name = "a", url = url, baudrate = 9600, parity = "none", data_bits = 8, stop_bits = 1,
        rts = "off", dtr = "leave" } } })
    end
  end)

  it("contains a function that gives keys", function()
    local keys = function() error "boom" end
    local config = assert(Config.check { connections = { tcp { options = { keys = keys } } } })
    local ok, key, err = pcall(config.connections[1].options.keys)
    assert.is_true(ok)
    assert.is_nil(key)
    assert.is_nil(err)
  end)

  it("refuses impossible settings of a connection by path and with what is allowed", function()
    local c = "connections[1]"
    refused(tcp { tiemout = 5 }, c .. ".tiemout", "no such setting; allowed are attempts, baudrate")
    refused(tcp { timeout = 0 }, c .. ".timeout", "a number from 10 to 600000 is needed, not 0")
    refused(tcp { timeout = 0 / 0 }, c .. ".timeout", "a number from")
    refused(tcp { attempts = 1.5 }, c .. ".attempts", "a whole number from 1 to 100")
    refused(tcp { baudrate = 2401 }, c .. ".baudrate", "one of 300, 600, 1200, 2400")
    refused(tcp { parity = "even" }, c .. ".parity", "goes with a serial port alone")
    refused({ name = "a", url = "tcp://h:1?baudrate=9600", baudrate = 2400 }, c .. ".baudrate", "stands in the URL already")
    refused({ name = "a", url = "/dev/ttyUSB0?databits=8", data_bits = 8 }, c .. ".data_bits", "stands in the URL already")
    refused(tcp { period = 99 }, c .. ".period", "a number from 100")
    refused(tcp { port = 70000 }, c .. ".port", "1 to 65535")
    refused(tcp { disabled = 1 }, c .. ".disabled", "true or false")
    refused(tcp { name = "a/b" }, c .. ".name", 'without "/"')
    refused(tcp { name = " a" }, c .. ".name", "no blank in front")
    refused(tcp { name = "Z\xE4hler" }, c .. ".name", "UTF-8")
    refused(tcp { title = "Z\xE4hler" }, c .. ".title", "UTF-8")
    refused({ name = "a" }, c .. ".type", "serial, tcp or a URL")
    refused({ name = "a", type = "modbus" }, c .. ".type", "serial, tcp or a URL")
    refused({ name = "a", type = "tcp", port = 5 }, c .. ".host", "is missing")
    refused({ name = "a", type = "serial" }, c .. ".port", "is missing")
    refused({ name = "a", url = "ftp://x" }, c .. ".url", "unknown scheme")
    refused({ type = "tcp", host = "h", port = 1 }, c .. ".name", "is missing")
    refused(tcp { options = { nke = 5 } }, c .. ".options", 'true, false or "never"')
    refused(tcp { options = { colour = 5 } }, c .. ".options.colour", "allowed are margin, gap")
    refused(tcp { options = { keys = "0011" } }, c .. ".options.keys", "32 hex digits")
    refused(tcp { options = { keys = { ["12345678"] = "00" } } }, c .. ".options.keys.12345678", "32 hex digits")
    refused(tcp { options = { keys = { ["123"] = ("00"):rep(16) } } }, c .. ".options.keys", "8 or 16 hex digits")
    refused(5, c, "a table is needed")
  end)

  it("refuses impossible settings of a binding", function()
    local b = "connections[1].bindings[1]"
    for _, address in ipairs { 0, 251, 254, 300, -1, 5.5, "12345", "123456789012345G", true } do
      refused(binding { address = address }, b .. ".address", "1 to 250, or 8 or 16 hex digits")
    end
    refused(binding { address = "nil" }, b .. ".address", "is missing")
    refused(binding { access = "X" }, b .. ".access", "one of R, W, RW")
    refused(binding { index = -1 }, b .. ".index", "a whole number from 0")
    refused(binding { index = "nil" }, b, "one of index")
    refused(binding { id = 4 }, b, "only one of index, id and find")
    refused(binding { find = { colour = "red" }, index = "nil" }, b .. ".find.colour", "no such setting")
    refused(binding { transformation = { type = "magic" } }, b .. ".transformation[1].type", "damper, default, derivative, function")
    refused(binding { transformation = { type = "scaling", factor = 0 } }, b .. ".transformation[1].factor", "other than 0")
    refused(binding { transformation = { { type = "limit", lower = 5, upper = 1 } } }, b .. ".transformation[1]", "lower is above upper")
    refused(binding { write = { data = "int32" } }, b .. ".write", "access is R")
    refused(binding { access = "W", index = "nil" }, b, "or write, with access W, is needed")
    refused(binding { access = "RW", write = { vif = "FD1", data = "int8" } }, b .. ".write.vif", "pairs of hex digits")
    refused(binding { find = {}, index = "nil" }, b .. ".find", "says nothing")
    refused(binding { find = { quantity = "enrgy" }, index = "nil" }, b .. ".find.quantity", 'a quantity as records have it')
    refused(binding { quantity = "kWh" }, b .. ".quantity", 'is needed, not "kWh"')
    refused(binding { report = "poll", dead_band = 5 }, b .. ".dead_band", 'goes with report = "change"')
    refused(binding { transformation = { type = "limit" } }, b .. ".transformation[1]", "lower or upper is needed")
  end)

  it("names a wrong setting once", function()
    for _, fields in ipairs { { port = 1.5 }, { port = {} }, { host = "" } } do
      local _, err = Config.check { connections = { tcp(fields) } }
      assert.equal(1, #err.problems, tostring(err))
    end
    local _, err = Config.check { connections = { { name = "a", type = "serial", port = true } } }
    assert.equal(1, #err.problems, tostring(err))
  end)

  it("names everything that is wrong at once", function()
    local _, err = Config.check { connections = { tcp { timeout = -1, attempts = 0 }, { name = "c" } }, colour = "red" }
    assert.equal(4, #err.problems)
    assert.matches("and 3 more", tostring(err))
  end)

  it("refuses names that stand twice, masters that are not there, and circles of backups", function()
    local function connections(...) return Config.check { connections = { ... } } end
    local _, err = connections(tcp {}, tcp {})
    assert.matches('connections%[2%]%.name: "a" is the name of connection 1 already', tostring(err))
    _, err = connections(tcp { bindings = { { name = "x", address = 1, id = 0 }, { name = "x", address = 2, id = 0 } } })
    assert.matches('bindings%[2%]%.name: "x" is the name of binding 1 already', tostring(err))
    _, err = connections(tcp { master = "b" })
    assert.matches('there is no connection "b"', tostring(err))
    _, err = connections(tcp { name = "a", master = "b" }, tcp { name = "b", master = "c" }, tcp { name = "c", master = "a" })
    assert.matches("goes round in a circle: a %-> b %-> c %-> a", tostring(err))
    _, err = connections(tcp { name = "a", master = "a" })
    assert.matches("circle: a %-> a", tostring(err))
    assert(connections(tcp { name = "c", master = "b" }, tcp { name = "b", master = "a" }, tcp { name = "a" }))
  end)

  it("warns of periods that empty batteries", function()
    local config = assert(Config.check { connections = { tcp { period = 59999,
      bindings = { { name = "b", address = 5, id = 1, period = 1000 }, { name = "c", address = 5, id = 1, period = 60000 } } } } })
    assert.equal(2, #config.warnings)
    assert.equal("connections[1].period", config.warnings[1].path)
    assert.equal("connections[1].bindings[1].period", config.warnings[2].path)
    assert.matches("battery", config.warnings[1].message)
  end)

  it("warns of what does nothing", function()
    local config = assert(Config.check { connections = {} })
    assert.same({ "connections", "there is none, so nothing is polled" }, { config.warnings[1].path, config.warnings[1].message })
    config = assert(Config.check { connections = { tcp {}, tcp { name = "b", master = "a", regain_interval = 5000 } } })
    assert.equal("connections[2].regain_interval", config.warnings[1].path)
    assert.matches("that of the master counts", config.warnings[1].message)
  end)

  it("can leave out what is wrong, and keep the rest", function()
    local config = assert(Config.check({ connections = { tcp { bindings = { { name = "good", address = 5, id = 1 },
      { name = "bad", address = 999, id = 1 }, { name = "good", address = 6, id = 2 } } }, tcp { name = "wrong", timeout = {} },
      tcp { name = "lost", master = "wrong" } } }, { tolerant = true }))
    assert.equal(1, #config.connections)
    assert.equal(1, #config.connections[1].bindings)
    assert.equal(5, config.connections[1].bindings[1].address.a)
    assert.equal(4, #config.problems)
  end)
end)

describe("a config file", function()
  local function load(text)
    return helper.with_folder(function(folder)
      helper.write(folder .. "/c.lua", text)
      return Config.read(folder .. "/c.lua")
    end)
  end

  it("is run with nothing around it", function()
    for _, text in ipairs { "return os.execute 'true'", "return io.open '/etc/passwd'", "return require 'mbus'",
      "return load 'x'", "return getmetatable('').__index", "return debug", "return setmetatable({}, {})", "return pcall(error)",
      "return ('').dump(print)" } do
      local config, err = load(text)
      assert.is_nil(config, text)
      assert.equal("invalid", err.kind, text)
    end
    assert.is_function(("").dump) -- and the program has its own back
  end)

  it("may compute", function()
    local config = assert(load [[
      local bindings = {}
      for i = 1, 3 do bindings[i] = { name = ("b%d"):format(i), address = i, index = 0 } end
      return { connections = { { name = "a", type = "tcp", host = "h", port = 1, bindings = bindings } } }]])
    assert.equal(3, #config.connections[1].bindings)
  end)

  it("is refused with the line of what is wrong in it", function()
    local _, err = load "return {\n  connections = {\n    { name = 'a' type = 'tcp' },\n  },\n}"
    assert.matches("c%.lua:3: '}' expected", tostring(err))
    _, err = load "\n\nerror 'no'"
    assert.matches("c%.lua:3: no", tostring(err))
    _, err = load "return 5"
    assert.matches("returns a table, this one returns a number", tostring(err))
    _, err = load "\27Lua"
    assert.equal("invalid", err.kind)
    _, err = Config.read "/nonexistent/c.lua"
    assert.equal("not_found", err.kind)
  end)

  it("is no table with a metatable anywhere, which could go on for ever", function()
    local endless = setmetatable({}, { __index = function() return 1 end, __len = function() return 1 << 62 end })
    for path, config in pairs { config = endless, connections = { connections = endless },
      ["connections[1]"] = { connections = { endless } },
      ["connections[1].bindings"] = { connections = { { name = "a", url = "sim:", bindings = endless } } } } do
      local _, err = Config.check(config)
      assert.equal(path, err.problems[1].path)
    end
  end)

  it("has plain tables alone, since whatever looks into others runs on for as long as they like", function()
    for _, text in ipairs { "return setmetatable({}, { __index = function() while true do end end })",
      "return { connections = setmetatable({}, { __len = function() return 1 << 62 end }) }",
      "return { connections = { setmetatable({ name = 'a' }, {}) } }" } do
      local config, err = load(text)
      assert.is_nil(config, text)
      assert.matches("a table with a metatable is no setting", tostring(err))
    end
    local config, err = load "local t = {} t.t = t return { connections = t }"
    assert.is_nil(config)
    assert.equal("invalid", err.kind)
  end)

  it("of another gateway is not told to be none where memory runs out", function()
    local reader = "mbus.freeclient.config"
    local loaded = package.loaded[reader]
    helper.with_folder(function(folder)
      helper.write(folder .. "/c.json", "{}")
      package.loaded[reader] = nil
      helper.without_memory(package.preload, reader, function() Config.read(folder .. "/c.json") end)
      package.loaded[reader] = loaded
    end)
  end)

  it("is not told to have a wrong setting where memory runs out", function()
    helper.without_memory(require "mbus.bus", "new", function() Config.check { connections = { tcp { options = { retries = 1 } } } } end)
  end)

  it("ends if it does not end", function()
    local _, err = load "while true do end"
    assert.matches("c%.lua:1: it takes too long", tostring(err))
    _, err = load "return ('x'):rep(1e9)"
    assert.matches("too long", tostring(err))
  end)
end)
