-- What SECURITY.md promises of the sources, and of keys.
local helper = require "spec.helper"

local function sources()
  local _, out = helper.shell("find lua csrc/core csrc/lua -type f -name '*.lua' -o -type f -name '*.[ch]' -o -path '*/bin/mbus'")
  local list = {}
  for path in out:gmatch "[^\n]+" do list[path] = helper.read(path) end
  return list
end

-- Without comments, so that they may name what is not done.
local function code(path, text)
  if path:find "%.[ch]$" then return (text:gsub("/%*.-%*/", "")) end
  return (text:gsub("%-%-[^\n]*", ""))
end

local function users(...)
  local found = {}
  for path, text in pairs(sources()) do
    local uses = false
    for _, pattern in ipairs { ... } do uses = uses or ("\n" .. code(path, text)):find(pattern) end
    if uses then found[#found + 1] = path end
  end
  table.sort(found)
  return found
end

describe("the sources", function()
  it("give no string to a shell, and start no program", function()
    assert.same({}, users("os%.execute", "io%.popen", "os%[", "io%[", "%f[%w_]system%s*%(", "%f[%w_]popen%s*%(",
      "%f[%w_]v?fork%s*%(", "%f[%w_]exec[lv][pe]*%s*%(", "posix_spawn", "[.:]spawn%s*%(%s*[\"']", "uv%.spawn", "luv%(%)%.spawn"))
    assert.is_true(next(sources()) ~= nil)
  end)

  it("rename and remove files in three places: the output that rotates, the state of a scan, a config half written", function()
    assert.same({ "lua/mbus/cli/config.lua", "lua/mbus/cli/scan.lua", "lua/mbus/gateway/output.lua" },
      users("os%.rename", "os%.remove", "os%.tmpname", "fs_rename"))
  end)

  it("load text and no bytecode", function()
    assert.same({}, users("loadfile%s*%(", "loadstring", "dofile%s*%(", "luaL_load", "luaL_do", "lua_load"))
    for path, text in pairs(sources()) do
      text = code(path, text)
      -- Some have a function of this name, of their own.
      if path:find "%.lua$" and not text:find "local function load%(" then
        for call in text:gmatch "[^%w_.:]load(%b())" do
          assert.is_truthy(call:find(', "t", ', 1, true) or call:find('("local a, b', 1, true), path .. ": load" .. call)
        end
      end
    end
    assert.same({ "lua/mbus/sandbox/init.lua" }, users '[(%s]load, reader%(text%), .-"t"')
  end)
end)

describe("a key", function()
  local KEY, WRONG = "00112233445566778899AABBCCDDEEFF", "C0FFEE00C0FFEE00C0FFEE00C0FFEE00"
  -- OMS Vol. 2, Annex N.5.4: encrypted with another key than these two.
  local DATA = "88 77 66 55 93 44 55 08 00 04 10 05 00 DF E2 A7 82 14 6D 15 13 58 1C D2 F8 3F 39 04"
  local RIGHT = "000102030405060708090A0B0C0D0E0F"
  local folder

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    helper.shell("mkdir " .. folder)
    helper.write(folder .. "/sim.lua", ('return { meters = { { address = 5, telegrams = { { data = "%s" } } } } }'):format(DATA))
  end)
  teardown(function() helper.shell("rm -rf " .. folder) end)

  local function says_nothing(text, ...)
    local plain = text:upper():gsub("[^%x]", "")
    for _, key in ipairs { ... } do
      local bytes = key:gsub("..", function(digits) return string.char(tonumber(digits, 16)) end)
      assert.is_nil(text:find(bytes, 1, true), text)
      for from = 1, #key - 15 do -- no half of it either
        assert.is_nil(plain:find(key:sub(from, from + 15), 1, true), text)
      end
    end
  end

  local function run(command)
    local _, out, err = helper.shell(helper.environment() .. "lua5.4 lua/bin/mbus " .. command:gsub("%$D", folder))
    assert.is_true(#out + #err > 0, command)
    return out .. err
  end

  it("is not in what the command prints: with trace, explained, wrong, or of another length", function()
    for _, format in ipairs { "table", "json", "jsonl", "csv", "xml", "annotated" } do
      says_nothing(run(("read sim:$D/sim.lua 5 --trace --format %s --key %s"):format(format, RIGHT)), RIGHT)
      says_nothing(run(("read sim:$D/sim.lua 5 --trace --format %s --key %s --key 55667788=%s"):format(format, KEY, WRONG)), KEY, WRONG)
    end
    for _, bad in ipairs { KEY:sub(1, 31), KEY .. "0", "5566=" .. KEY, KEY .. "=" .. WRONG } do
      says_nothing(run("read sim:$D/sim.lua 5 --key " .. bad), KEY, WRONG)
    end
  end)

  it("is not in logs at debug level, values, or diagnostics of the gateway", function()
    for _, key in ipairs { RIGHT, WRONG } do
      helper.write(folder .. "/house.lua", ([[return { connections = { { name = "bus", type = "sim:%s/sim.lua", period = 60000,
        options = { keys = "%s" }, bindings = { { name = "hca", address = 5, index = 0 } } } } }]]):format(folder, key))
      for _, options in ipairs { "", "--format jsonl", "--format csv", "--status", "--status --format jsonl" } do
        local text = run(("poll $D/house.lua --once --log debug %s"):format(options))
        assert.is_truthy(text:find("hca", 1, true) or text:find("bus", 1, true), text)
        says_nothing(text, key)
      end
      says_nothing(run "config check $D/house.lua", key)
    end
  end)

  it("is not in what is said of a config that is wrong", function()
    for _, keys in ipairs { '"' .. KEY:sub(1, 31) .. '"', '{ ["5566"] = "' .. KEY .. '" }', '{ ["' .. KEY .. '"] = 5 }', KEY:gsub("%D", "1") } do
      helper.write(folder .. "/wrong.lua", ([[return { connections = { { name = "bus", type = "sim:%s/sim.lua",
        options = { keys = %s }, bindings = { { name = "hca", address = 5, index = 0 } } } } }]]):format(folder, keys))
      says_nothing(run "config check $D/wrong.lua", KEY)
      says_nothing(run "poll $D/wrong.lua --once --log debug", KEY)
    end
  end)

  it("is not in what Lua says of a config with a quote too few", function()
    local spaced, colons = KEY:gsub("..", "%0 "), KEY:gsub("..", "%0:")
    for _, keys in ipairs { KEY, '"' .. KEY, "'" .. spaced, "'" .. colons, "{ ['55667788'] = " .. KEY .. " }", "'" .. KEY .. "' '" .. KEY .. "'", "A" .. KEY,
      "A" .. KEY .. ".x", "error('" .. KEY .. "')", KEY:sub(1, 31) .. "G", "error({}, '" .. KEY .. "')" } do
      helper.write(folder .. "/wrong.lua", ([[return { connections = { { name = "bus", type = "sim:%s/sim.lua",
        options = { keys = %s }, bindings = { { name = "hca", address = 5, index = 0 } } } } }]]):format(folder, keys))
      local text = run "config check $D/wrong.lua"
      says_nothing(text, KEY)
      if not keys:find "^error" then assert.is_truthy(text:find("wrong.lua:2: ", 1, true) or text:find("good", 1, true), text) end
      says_nothing(run "poll $D/wrong.lua --once --log debug", KEY)
    end
  end)

  it("is not in a bus, a gateway or an error that is shown as text", function()
    local mbus = require "mbus"
    local sim = assert(mbus.simulator.new { meters = { { address = 5, telegrams = { { data = DATA } } } } })
    local lines = {}
    local bus <close> = assert(mbus.open(sim, { keys = WRONG, trace = function(...) lines[#lines + 1] = table.concat({ ... }, " ", 1, 0) end }))
    local _, err = bus:read(5)
    assert.equal("encrypted", err.kind)
    says_nothing(tostring(err) .. tostring(bus) .. require("dkjson").encode { kind = err.kind, message = tostring(err) }, WRONG)
    for field, value in pairs(err) do says_nothing(tostring(field) .. tostring(value), WRONG) end
  end)
end)
