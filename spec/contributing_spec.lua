-- CONTRIBUTING.md tells the truth: what it names is there, and its commands run.
local helper = require "spec.helper"

local text = helper.read "CONTRIBUTING.md"

local function exists(path)
  local code = helper.shell("test -e " .. helper.quote(path))
  return code == 0
end

-- The lines of its blocks of commands, without what is said about them.
local function commands()
  local list = {}
  for block in text:gmatch "```sh\n(.-)```" do
    for line in block:gmatch "[^\n]+" do list[#list + 1] = line:gsub("%s+#.*", "") end
  end
  return list
end

describe("CONTRIBUTING.md", function()
  it("is one page", function()
    local _, lines = text:gsub("\n", "")
    assert.is_true(lines <= 110, lines)
  end)

  it("names paths that are there", function()
    local count = 0
    for path in text:gmatch "%f[%w][%w_]+/[%w_./-]+" do
      path = path:gsub("%.$", "")
      assert.is_true(exists(path), path)
      count = count + 1
    end
    for path, kind in text:gmatch "`([%w_-]+%.(%w+))`" do
      if kind == "rockspec" or kind == "md" then assert.is_true(exists(path), path) end
    end
    assert.is_true(count > 40, count)
  end)

  it("has each folder of lua/mbus in its layers", function()
    local _, out = helper.shell("ls -d lua/mbus/*/")
    for folder in out:gmatch "[^\n]+" do assert.is_truthy(text:find("`" .. folder .. "`", 1, true), folder) end
  end)

  it("names targets that make knows", function()
    local targets = {}
    for target in text:gmatch "make ([%l][%l-]*)" do targets[target] = true end
    assert.is_true(targets.soak and targets.so)
    for target in pairs(targets) do
      local code, _, err = helper.shell("MAKEFLAGS= make -n " .. target)
      assert.equal(0, code, "make " .. target .. ": " .. err)
    end
  end)

  it("has commands that run", function()
    local ran = 0
    for _, command in ipairs(commands()) do
      if not command:find "^make" and not command:find "^eval" then
        local code, out, err = helper.shell(helper.environment() .. command)
        assert.equal(0, code, command .. "\n" .. out .. err)
        assert.is_nil((out .. err):find("^%s*0 successes"), command)
        ran = ran + 1
      end
    end
    assert.equal(3, ran)
    local code, out = helper.shell "make -s env"
    assert.equal(0, code)
    assert.matches("export LUA_CPATH", out)
  end)

  it("tells the way of a byte as the sources go it", function()
    for path, needed in pairs {
      ["lua/mbus/bus.lua"] = "mbus.procedure.engine", ["lua/mbus/procedure/exchange.lua"] = "core.deframer",
      ["lua/mbus/procedure/target.lua"] = "mbus.procedure.judge", ["lua/mbus/decode.lua"] = "mbus.security",
      ["csrc/lua/telegram.c"] = "mbus_next", ["csrc/core/vif.c"] = "vif.def",
      ["lua/mbus/procedure/judge.lua"] = "mbus.decode", ["lua/mbus/gateway/line.lua"] = "mbus.gateway.schedule",
      ["lua/mbus/gateway/binding.lua"] = "mbus.gateway.transformation",
    } do
      assert.is_truthy(helper.read(path):find(needed, 1, true), path .. ": " .. needed)
    end
  end)
end)
