-- Values and diagnostics as text: tables that fit, files that keep what they are given.
local helper = require "spec.helper"
local output = require "mbus.gateway.output"
local support = require "spec.gateway.support"
local text = require "mbus.format.text"

local function running(bindings, fields)
  local world = support.world { house = support.sim { support.meter(5), support.meter(6) } }
  local connection = support.connection("house", fields)
  connection.bindings = bindings
  local gateway = support.gateway(world, { connections = { connection } })
  gateway:start()
  world.clock.run(30)
  return gateway
end

local function assert_fits(lines, width)
  for _, line in ipairs(lines) do assert.is_true(text.width(line) <= width, line) end
end

describe("a table of values", function()
  local LONG = "the energy of the second floor, as the landlord wants to see it on every morning"
  local gateway = running { { name = LONG, address = 5, index = 0 }, { name = "b", address = 99, index = 0 },
    { name = "c", address = 6, index = 1, transformation = function() error(("no "):rep(60)) end } }

  it("keeps its columns where it is too narrow for everything", function()
    for _, width in ipairs { 40, 60, 80, 200 } do
      local lines = output.values(gateway, width)
      assert_fits(lines, width)
      if width >= 60 then
        local at = utf8.len(lines[1], 1, (lines[1]:find("Quality", 1, true)))
        assert.equal("good", lines[2]:sub(utf8.offset(lines[2], at)):match "^%a+", lines[2])
        assert.equal("bad", lines[3]:sub(utf8.offset(lines[3], at)):match "^%a+", lines[3])
        assert.equal("bad", lines[4]:sub(utf8.offset(lines[4], at)):match "^%a+", lines[4])
        assert.matches("5000", lines[2])
      end
    end
    assert.matches("the energy.*…", output.values(gateway, 80)[2])
    assert.matches(LONG, output.values(gateway, 400)[2], 1, true)
  end)

  it("says all of the diagnostics in 80 columns, with times of errors and their kinds", function()
    local lines = output.status(gateway:status(), 80)
    assert_fits(lines, 80)
    local all = table.concat(lines, "\n")
    assert.matches("^RUN on %S+, process %d+", all)
    assert.matches("\nhouse +RUN +house +1/3 +%d+/%d+/%d+ +%d+%.%d %% +%d+ KiB +%d%d:%d%d:%d%d\n", all)
    assert.matches("Polls  Requests  Answers  Retries  Writes  Overruns  Errors", all)
    assert.matches("\nhouse +3 +%d+ +4 +2 +0 +0 +timeout 1\n", all)
    assert.matches("\n%d%d:%d%d:%d%d  house +RUN +%-? +house: address 99: no answer", all)
    assert.matches("\n%d%d:%d%d:%d%d  house/b +RUN +bad +unavailable address \"99\"", all)
    assert.matches("\n%d%d:%d%d:%d%d  house +info +open: ", all)
  end)
end)

describe("a line of a value", function()
  it("is in columns, whatever the names are", function()
    local news = { connection = { name = "c" }, binding = { name = "b" }, value = 5, unit = "Wh", quality = "good", time = 0 }
    assert.matches("^%S+  c/b +5 Wh  good\n$", output.line(news))
    assert.equal(#output.line(news) + 12, #output.line(news, 40))
  end)
end)

describe("a line of JSON", function()
  it("is UTF-8, whatever a function made of the value", function()
    local news = { connection = { name = "c" }, binding = { name = "b" }, value = "Z\xE4hler \"1\"", quality = "good", time = 0 }
    assert.matches([["value":"Z\\xE4hler \"1\""]], output.jsonl(news), 1, true)
    assert.is_truthy(utf8.len(output.status_json { value = news.value, connections = {} }))
    news.value = "Zähler"
    assert.matches([["value":"Zähler"]], output.jsonl(news), 1, true)
  end)
end)

describe("a file of values", function()
  it("is named where it cannot be written", function()
    local file = assert(output.file "/dev/full")
    local ok, message = file:write "x\n"
    assert.is_nil(ok)
    assert.matches("^/dev/full: ", message)
  end)

  it("goes on with a new line behind half a one", function()
    helper.with_folder(function(folder)
      helper.write(folder .. "/values", '{"a":1}\n{"b"')
      local file = assert(output.file(folder .. "/values"))
      assert(file:write '{"c":3}\n')
      file:close()
      assert.equal('{"a":1}\n{"b"\n{"c":3}\n', helper.read(folder .. "/values"))
    end)
  end)

  it("grows beyond its limit where it cannot be renamed, and says so once a limit", function()
    helper.with_folder(function(folder)
      assert(os.execute("mkdir -p " .. folder .. "/values.1/x")) -- a folder that is not empty is not replaced
      local file = assert(output.file(folder .. "/values", { limit = 20, keep = 1 }))
      local complaints = 0
      for i = 1, 10 do
        local ok, message = file:write(("line %d\n"):format(i % 10))
        assert.is_true(ok)
        if message then
          complaints = complaints + 1
          assert.matches("/values: cannot be renamed: ", message, 1, true)
        end
      end
      file:close()
      assert.equal(70, #helper.read(folder .. "/values"))
      assert.is_true(complaints >= 1 and complaints <= 4, complaints)
    end)
  end)
end)
