-- An installed rock holds what the rockspec names, so it must name the whole tree.
local helper = require "spec.helper"

local ROCKSPEC = "mbus-scm-1.rockspec"

local function load_rockspec()
  local rockspec = {}
  assert(loadfile(ROCKSPEC, "t", rockspec))()
  return rockspec
end

local function files(pattern)
  local _, out = helper.shell("find " .. pattern .. " | sort")
  local list = {}
  for name in out:gmatch("[^\n]+") do list[#list + 1] = name end
  return list
end

local function module_name(path)
  return (path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))
end

describe("the rockspec", function()
  local build = load_rockspec().build

  it("names every Lua file of the tree, by its module name, and no other", function()
    local wanted, named = {}, {}
    for _, path in ipairs(files "lua/mbus -name '*.lua' ! -name '*.meta.lua'") do wanted[module_name(path)] = path end
    for name, source in pairs(build.modules) do
      if type(source) == "string" then named[name] = source end
    end
    assert.same(wanted, named)
  end)

  it("names every C file of the core and of the bindings", function()
    local named = {}
    for _, module in pairs(build.modules) do
      for _, source in ipairs(type(module) == "table" and module.sources or {}) do named[#named + 1] = source end
    end
    table.sort(named)
    assert.same(files "csrc/core csrc/lua -name '*.c'", named)
  end)

  it("links libserialport to mbus.serial alone", function()
    assert.is_nil(build.modules["mbus.core"].libraries)
    assert.same({ "serialport" }, build.modules["mbus.serial"].libraries)
  end)

  it("installs the command", function()
    assert.same({ mbus = "lua/bin/mbus" }, build.install.bin)
  end)

  it("is what LuaRocks accepts", function()
    local code, out, err = helper.shell("luarocks --lua-version=5.4 lint " .. ROCKSPEC)
    assert.equal(0, code, out .. err)
  end)
end)
