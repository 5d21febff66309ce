local import = require "mbus.freeclient.config"
local json = require "dkjson"
local mbus = require "mbus"
local helper = require "spec.helper"

local EXPORT = "spec/fixtures/bacrouter_bus.json"

local function bus(changes)
  local object = { name = "A", type = 1, resource = "RS485-1", tag = "", fcdevices = {
    { name = "M", tag = "addr=5", fcpoints = { { name = "E", tag = "id=1" } } } } }
  for name, value in pairs(changes or {}) do object[name] = value end
  return object
end

local function decode(document, ...) return import.decode(json.encode(document), ...) end

describe("the export of a BACRouter", function()
  it("is UTF-8, and what is no character in it does no harm", function()
    local text = '{"name":"b","type":2,"server":"h:1","tag":"","description":"%s","fcdevices":[]}'
    local config, err = import.decode(text:format("W\xE4rme"), "x.json")
    assert.is_nil(config)
    assert.matches("x.json: this is no JSON, which is UTF-8 at byte 61", tostring(err), 1, true)
    assert.equal("Wärme", import.decode(text:format("Wärme"), "x.json").connections[1].title)
    assert.equal("?", import.decode(text:format("\\ud800"), "x.json").connections[1].title)
  end)

  it("is UTF-8 with a BOM, and becomes a config of the gateway", function()
    local text = helper.read(EXPORT)
    assert.equal("\xEF\xBB\xBF", text:sub(1, 3))
    local config = assert(import.decode(text, EXPORT, { ports = { ["RS485-1"] = "/dev/ttyS1" } }))
    assert.equal(1, #config.connections)
    local connection = config.connections[1]
    local bindings = connection.bindings
    connection.bindings = nil
    assert.same({ name = "RS485-1 M-Bus", type = "serial", port = "/dev/ttyS1", baudrate = 2400, parity = "even", period = 5000,
      offline_interval = 10000, disabled = false, options = { nke = true } }, connection)
    local brief = {}
    for i, binding in ipairs(bindings) do
      brief[i] = ("%s|%s|%s|%d|%s"):format(binding.name, binding.title or "", binding.address, binding.id, binding.disabled)
    end
    assert.same({ "Heating.Number||10|0|false", "Heating.Energy|Wärmemenge|10|1|false", "Heating.Limit||10|2|true",
      "Flat 1_2.Energy||F189274724FF2804|0|false", "Flat 1_2.Hours||F189274724FF2804|13|false" }, brief)
  end)

  it("is accepted by the gateway", function()
    local config = assert(import.decode(helper.read(EXPORT)))
    local checked = assert(require("mbus.gateway.config").check(config))
    assert.equal(5, #checked.connections[1].bindings)
    assert.is_true(checked.connections[1].options.nke)
    checked = assert(require("mbus.gateway.config").read(EXPORT))
    assert.equal(5, #checked.connections[1].bindings)
  end)

  it("runs in the gateway: values are the numbers on the wire times the scale", function()
    local config = assert(import.decode(helper.read(EXPORT)))
    local connection = config.connections[1]
    connection.type, connection.port, connection.parity = "sim:", nil, nil
    local gateway <close> = assert(require("mbus.gateway").new(config))
    local values, count = {}, 0
    for news in gateway:values() do
      values[news.binding.name], count = news.value or news.error, count + 1
      if count == 4 then break end
    end
    assert.same({ ["Heating.Number"] = 82969010, ["Heating.Energy"] = 183420, ["Flat 1_2.Energy"] = 174843100,
      ["Flat 1_2.Hours"] = 160302 }, values)
  end)

  it("means the number on the wire times the scale, of the meter that its wildcards fit", function()
    local config = assert(import.decode(helper.read(EXPORT)))
    local sim <close> = assert(mbus.open "sim:")
    local values = {}
    for i, binding in ipairs(config.connections[1].bindings) do
      local meter = assert(sim:read(binding.address))
      for index, record in meter:records() do
        if index == binding.id then
          values[i] = binding.transformation[1].f(record.value, { record = record })
        end
      end
    end
    assert.same({ 82969010, 183420, values[3], 174843100, 160302 }, values)
  end)

  it("asks behind the identification number for the nibble that is given, once the meter has answered", function()
    local config = assert(decode(bus { fcdevices = { { tag = 'addr="f57072162440f102"', fcpoints = { { tag = "id=0" } } } } }))
    local binding = config.connections[1].bindings[1]
    assert.equal("F57072162440FF02", binding.address)
    local f = binding.transformation[1].f
    assert.equal(3, f(3, { record = { raw = 3 }, secondary_address = "1570721624403102" }))
    assert.has_error(function() f(3, { record = { raw = 3 }, secondary_address = "1570721624403202" }) end,
      "another meter answers: 1570721624403202")
  end)

  it("takes a URL for a port", function()
    local text = require("dkjson").encode(bus())
    local config = assert(import.decode(text, nil, { ports = { ["RS485-1"] = "tcp://10.0.0.1:10001" } }))
    assert.same({ "tcp://10.0.0.1:10001" }, { config.connections[1].type, config.connections[1].port })
    config = assert(import.decode(text, nil, { ports = { ["RS485-1"] = "/dev/ttyUSB0" } }))
    assert.same({ "serial", "/dev/ttyUSB0" }, { config.connections[1].type, config.connections[1].port })
    assert.matches("port A: no bus is at it; there are: RS485%-1", tostring(select(2, import.decode(text, nil, { ports = { A = "B" } }))))
  end)

  it("scales exactly", function()
    local function scaled(scale, raw)
      local config = assert(decode(bus { fcdevices = { { tag = "addr=1", fcpoints = { { tag = "id=0, scale=" .. scale } } } } }))
      return config.connections[1].bindings[1].transformation[1].f(nil, { record = { raw = raw } })
    end
    assert.equal(0.3, scaled("0.1", 3))
    assert.equal(30, scaled("10", 3))
    assert.equal(-0.3, scaled("-0.1", 3))
    assert.equal(0.9, scaled("0.3", 3))
    assert.equal(3.5, scaled("1, offset=0.5", 3))
    assert.equal(52.4, scaled("0.1, offset=0.2", 522))
  end)

  -- What the transformation makes of a record.
  local function value_of(tag, value, record)
    local config = assert(decode(bus { fcdevices = { { tag = "addr=1", fcpoints = { { tag = tag } } } } }))
    return config.connections[1].bindings[1].transformation[1].f(value, { record = record })
  end

  it("does not wrap around", function()
    assert.equal(2e19, value_of("id=0, scale=4", nil, { raw = 5000000000000000000 }))
    assert.equal(-2e19, value_of("id=0, scale=-4", nil, { raw = 5000000000000000000 }))
    assert.equal(math.maxinteger, value_of("id=0", nil, { raw = math.maxinteger }))
    assert.equal(math.mininteger, value_of("id=0, offset=0", nil, { raw = math.mininteger }))
    assert.equal(4611686018427387905, value_of("id=0, scale=1", nil, { raw = 4611686018427387905 }))
  end)

  it("means numbers, and says what else a record is", function()
    assert.has_error(function() value_of("id=0", "2024-09-10 22:33", { type = "datetime" }) end,
      "the record is no number, but a datetime: 2024-09-10 22:33")
    assert.has_error(function() value_of("id=0", nil, { type = "number" }) end, "the record has no value")
  end)

  it("may be one bus, an array, or have a list of them", function()
    local two = { bus(), bus { name = "B", resource = "RS485-2" } }
    for _, document in ipairs { two, { buses = two } } do
      local config = assert(decode(document))
      assert.same({ "A", "B" }, { config.connections[1].name, config.connections[2].name })
    end
    assert.equal(1, #assert(decode(bus())).connections)
    local config = assert(decode { bus(), bus { resource = "RS485-2" } })
    assert.equal("A (2)", config.connections[2].name)
  end)

  it("has one bus at a port, as an M-Bus has one master", function()
    local config, err = decode { bus(), bus { name = "B" }, bus { name = "C", enable = false } }
    assert.is_nil(config)
    assert.same({ 'bus "B": resource: RS485-1 is that of bus "A" already' }, err.problems)
    config = assert(decode { bus(), bus { name = "C", enable = false } })
    assert.is_true(config.connections[2].disabled)
    err = select(2, decode({ bus(), bus { enable = false } }, nil, { ports = { X = "/dev/ttyUSB0" } }))
    assert.same({ "port X: no bus is at it; there are: RS485-1" }, err.problems)
  end)

  it("of a bus without settings has the defaults of such scripts", function()
    local connection = assert(decode(bus())).connections[1]
    assert.same({ 10000, 20000, false, "RS485-1" },
      { connection.period, connection.offline_interval, connection.options.nke, connection.port })
  end)

  it("of a TCP bus names host and port", function()
    local connection = assert(decode(bus { type = 2, server = "10.0.0.5:10001" })).connections[1]
    assert.same({ "tcp", "10.0.0.5", 10001 }, { connection.type, connection.host, connection.port })
    connection = assert(decode(bus { type = 2, server = "[fe80::1]:502" })).connections[1]
    assert.same({ "fe80::1", 502 }, { connection.host, connection.port })
  end)

  it("with errors tells of them all, each with its place", function()
    local config, err = import.decode(helper.read "spec/fixtures/bacrouter_errors.json", "errors.json")
    assert.is_nil(config)
    assert.same({
      [[errors.json: bus "A", device "Third": fcpoints: a table is needed, not a string]],
      [[errors.json: bus "B", device "x": enable: a boolean is needed, not a string]],
      [[errors.json: bus "A": tag 'update_interval=500, force_rest=true', column 17: update_interval: a number from 1000 to ]]
        .. "126489600000 is needed, not 500",
      [[errors.json: bus "A": tag 'update_interval=500, force_rest=true', column 22: unknown name force_rest; allowed are ]]
        .. "debug, force_reset, offline_interval, timeout, update_interval",
      [[errors.json: bus "A": baudrate: 300 600 1200 2400 4800 9600 19200 or 38400 is needed, not 2401]],
      [[errors.json: bus "A": parity: even, odd or none is needed, not mark]],
      [[errors.json: bus "A", device "Meter": tag 'addr=”f57072162440f102”', column 6: the typographic quote ”; write " instead]],
      [[errors.json: bus "A", device "Meter", point "Energy": tag 'id=1, scale=0', column 13: scale: a number other than 0 is ]]
        .. "needed, not 0",
      [[errors.json: bus "A", device "Meter", point "Flow": tag 'scale=10': id is missing, the number of the record]],
      [[errors.json: bus "A", device "Meter", point "Power": tag 'id=one', column 4: a number, a text in "quotes", true or ]]
        .. "false is needed, not one",
      [[errors.json: bus "A", device "device 2": tag 'addr=251', column 6: addr: a number from 1 to 250, or 8 or 16 hex digits ]]
        .. [[in quotes such as "f57072162440f102" is needed, not 251]],
      [[errors.json: bus "A", device "device 2", point "point 1": tag '  scale=”10”', line 2, column 9: the typographic quote ]]
        .. [[”; write " instead]],
      [[errors.json: bus "A", device "Third": tag '': addr is missing, the address of the meter]],
      [[errors.json: bus "B": server: host:port is needed, not "10.0.0.5"]],
      [[errors.json: bus "B", device "x": tag 'addr="123"', column 6: addr: a number from 1 to 250, or 8 or 16 hex digits ]]
        .. [[in quotes such as "f57072162440f102" is needed, not 123]],
    }, err.problems)
    assert.equal(table.concat(err.problems, "\n"), tostring(err))
  end)

  it("shortens names that the gateway would not take", function()
    local config = assert(decode(bus { name = ("é"):rep(600) }))
    assert.equal(("é"):rep(149), config.connections[1].name)
    assert(mbus.gateway(config))
  end)

  it("takes over the line where the port is a URL, which has the last word", function()
    local function line(url)
      local connection = assert(decode(bus { resource = "R", baudrate = 9600, parity = "none", bit7 = true }, nil,
        { ports = { R = url } })).connections[1]
      assert(mbus.gateway { connections = { connection } })
      return { connection.baudrate, connection.parity, connection.data_bits }
    end
    assert.same({ 9600, "none", 7 }, line "/dev/ttyUSB0")
    for _, url in ipairs { "serial:///dev/ttyUSB0", "usb://1a86:55d5", "rfc2217://10.0.0.5:4001" } do
      assert.same({ 9600, "none", 7 }, line(url))
    end
    assert.same({ [2] = "none", [3] = 7 }, line "rfc2217://10.0.0.5:4001?baudrate=2400")
    assert.same({ 9600, nil, 7 }, line "serial:///dev/ttyUSB0?parity=odd")
    assert.same({ 9600 }, line "tcp://10.0.0.5:10001")
  end)

  it("may be read as seldom as its tag can say", function()
    assert(mbus.gateway(assert(decode(bus { tag = "update_interval=126489600000" }))))
  end)

  it("names ports by what can be a name", function()
    for _, resource in ipairs { "RS485-\0", "", " ", "a\nb", ("n"):rep(301) } do
      local config, err = decode(bus { resource = resource }, "x.json")
      assert.is_nil(config)
      assert.matches('^x.json: bus "A": resource: the name of a port is needed', err.problems[1])
    end
    local _, err = decode(bus { type = 2, server = "a\1b:502" }, "x.json")
    assert.matches("server: host:port is needed", err.problems[1])
  end)

  it("may hold null for what is not there, but not for a device or a point", function()
    local text = [[{"name":null,"type":1,"resource":"A","baudrate":null,"parity":null,"tag":null,"description":null,"script":null,
      "fcdevices":[{"name":null,"enable":null,"tag":"addr=1","fcpoints":[%s{"name":null,"tag":"id=1","object_type":null}]}]}]]
    local connection = assert(import.decode(text:format "")).connections[1]
    assert.same({ "bus 1", 1 }, { connection.name, #connection.bindings })
    assert.equal("device 1.point 1", connection.bindings[1].name)
    assert.equal("a", assert(import.buses(text:format ""))[1].devices[1].points[1].obj_type)
    for _, read in ipairs { import.decode, import.buses } do
      local config, err = read(text:format "null,")
      assert.is_nil(config)
      assert.matches('device "device 1": fcpoints[1]: an object is needed, not null', err.problems[1], 1, true)
      config, err = read [[{"fcdevices":{"a":{"tag":"addr=1"}}}]]
      assert.is_nil(config)
      assert.matches('bus "bus 1": fcdevices: an array is needed, not an object', err.problems[1], 1, true)
    end
  end)

  it("may have what is disabled unfinished", function()
    local devices = { { name = "new", enable = false, tag = "", fcpoints = { { name = "p", tag = "" } } },
      { name = "M", tag = "addr=5", fcpoints = { { name = "E", tag = "id=1" }, { name = "new", enable = false, tag = "scale=1" } } } }
    local config = assert(decode(bus { fcdevices = devices }))
    assert.same({ 1, "M.E" }, { #config.connections[1].bindings, config.connections[1].bindings[1].name })
    assert(mbus.gateway(config))
    devices[1].tag = "addr=”5”" -- but what is there is right
    assert.matches("typographic quote", select(2, decode(bus { fcdevices = devices })).problems[1])
  end)

  it("cannot make us busy, or fill memory, with what is wrong in it #timed", function()
    local function many(n, text)
      local list = {}
      for i = 1, n do list[i] = (text:gsub("#", i)) end
      return table.concat(list, ",")
    end
    local long = ("n"):rep(100000)
    local fine = many(20000, [[{"name":"p","tag":"id=1"}]])
    for _, text in ipairs { [[{"fcdevices":[],"tag":"%s"}]], [[{"fcdevices":[{"tag":"addr=1","fcpoints":[{"tag":"%s"}]}]}]] } do
      text = text:format(many(20000, "a#=1"))
      local began = os.clock()
      local _, err = import.decode(text, "x.json")
      assert.is_true(os.clock() - began < 2)
      assert.is_true(#tostring(err) < 20000, #tostring(err) .. " bytes")
      assert.matches("a1=1,a2=1", err.problems[1])
      assert.matches("unknown name a20;", err.problems[20])
      assert.matches("and more", err.problems[21])
    end
    for _, text in ipairs { ('{"name":"%s","fcdevices":[{"tag":"addr=1","fcpoints":[%s]}]}'):format(long, many(20000, '{"tag":"x"}')),
      ('{"name":"n","fcdevices":[{"name":"%s","tag":"","fcpoints":[%s]}]}'):format(long, fine),
      ('{"name":"%sx%sx","description":"%sx%sx","fcdevices":[{"tag":"addr=1","fcpoints":[%s]}]}'):format(
        (" "):rep(2e5), (" "):rep(2e5), (" "):rep(2e5), (" "):rep(2e5), fine),
      ('{"type":2,"server":"%s","fcdevices":[]}'):format(long), ('{"tag":"timeout=%s","fcdevices":[]}'):format(("1"):rep(1e6)),
      ('{"tag":"debug=\'%s\'","parity":"%s","baudrate":"%s","type":"%s","resource":"%s\\n","fcdevices":[]}'):format(long, long, long, long, long),
    } do
      collectgarbage()
      local began, before = os.clock(), collectgarbage("count")
      local config, err = import.decode(text, "x.json")
      assert.is_true(os.clock() - began < 4)
      assert.is_true(collectgarbage("count") - before < 80000)
      assert.is_true(config ~= nil or #tostring(err) < 60000, err and #tostring(err) .. " bytes")
    end
    local _, err = import.decode(('{"fcdevices":[{"tag":"addr=1","fcpoints":[%s]}]}'):format(many(200, '{"tag":"x"}')))
    assert.equal(101, #err.problems)
    assert.equal("and 100 more", err.problems[101])
  end)

  it("gives a number to what has a name of blanks and control characters alone", function()
    local config = assert(decode(bus { name = "\1 \u{85}", fcdevices = { { name = "\8M\8", tag = "addr=5",
      fcpoints = { { name = "\127", tag = "id=1" } } } } }))
    assert.same({ "bus 1", "M.point 1" }, { config.connections[1].name, config.connections[1].bindings[1].name })
    assert(mbus.gateway(config))
  end)

  it("commands no terminal", function()
    local evil = "\27[2J\7\u{9B}31m"
    local _, err = decode(bus { name = evil, resource = evil .. "\n", tag = evil .. "=1",
      fcdevices = { { name = evil, tag = "addr=" .. evil, fcpoints = { { name = evil, tag = "id='" .. evil .. "'", object_type = evil } } } } })
    assert.equal(4, #err.problems)
    for _, problem in ipairs(err.problems) do
      assert.is_nil(problem:find("[%c]"), problem)
      assert.is_nil(problem:find("\u{9B}", 1, true), problem)
    end
    assert.matches([[bus "\x1B[2J\x07\x9B31m": tag '\x1B[2J]], err.problems[1], 1, true)
    local config = assert(decode(bus { name = "A" .. evil }))
    assert.is_nil(config.connections[1].name:find "[%c\u{9B}]")
  end)

  it("that is none is refused, whatever it is", function()
    for text, message in pairs { [""] = "no JSON", ["{"] = "no JSON", ["[]"] = "no export", ["{}"] = "no export", ["5"] = "no export",
      ["null"] = "no export", ["[1]"] = "no export", ['{"buses":5}'] = "no export", ['{"fcdevices":5}'] = "a table is needed",
      ['{"fcdevices":[1]}'] = "an object is needed", [("["):rep(300000)] = "no JSON", ["\xFF\xFE"] = "no JSON" } do
      local config, err = import.decode(text, "x.json")
      assert.is_nil(config)
      assert.equal("invalid", err.kind)
      assert.matches(message, tostring(err), 1, true)
      assert.matches("x.json", tostring(err), 1, true)
    end
  end)

  it("is not called nested too deeply where memory runs out", function()
    helper.without_memory(require "dkjson", "decode", function() import.decode("{}", "x.json") end)
  end)

  it("survives a wrong type at every place", function()
    for _, wrong in ipairs { 5, "x", true, {}, { {} }, -1, 1e308 } do
      for _, name in ipairs { "name", "type", "resource", "tag", "enable", "baudrate", "parity", "bit7", "server", "script", "description" } do
        local config, err = decode(bus { [name] = wrong })
        assert.is_true(config ~= nil or err.kind == "invalid", name)
        assert(pcall(import.buses, json.encode(bus { [name] = wrong })))
        for _, kind in ipairs { "device", "point" } do
          local document = bus()
          local object = kind == "device" and document.fcdevices[1] or document.fcdevices[1].fcpoints[1]
          object[name], object.object_type, object.state_texts = wrong, wrong, wrong
          assert(pcall(decode, document))
          assert(pcall(import.buses, json.encode(document)))
        end
      end
    end
  end)

  it("gives the host of scripts what it needs", function()
    local buses = assert(import.buses(helper.read(EXPORT)))
    local one = buses[1]
    assert.same({ "RS485-1 M-Bus", "rs485", "RS485-1", "mbus.lua", true },
      { one.name, one.type, one.resource, one.script_name, one.enable })
    assert.matches("^%-%- the script", one.script)
    assert.equal(2, #one.devices[1].points) -- the third is disabled
    assert.same({ tag = "id=1, scale=10", obj_type = "a", read_only = true, commandable = false }, one.devices[1].points[2])
    local document = bus()
    document.fcdevices[1].fcpoints = { { object_type = "mo", state_texts = { "a", "b" } }, { object_type = "bv", value_type = 0 },
      { object_type = "av", value_type = 1 } }
    local points = assert(import.buses(json.encode(document)))[1].devices[1].points
    assert.same({ obj_type = "m", read_only = false, commandable = true, max_value = 2 }, points[1])
    assert.same({ obj_type = "b", read_only = false, commandable = false }, points[2])
    assert.is_true(points[3].read_only)
    assert.matches("object_type", tostring(select(2, import.buses(json.encode {
      fcdevices = { { fcpoints = { { object_type = "x" } } } } }))))
  end)
end)
