-- Every block of the README runs, and prints what the README says. "…" stands for anything.
local helper = require "spec.helper"

local function blocks()
  local list, line_number, open = {}, 0, nil
  for line in helper.read("README.md"):gmatch("([^\n]*)\n") do
    line_number = line_number + 1
    local fence = line:match("^```(%w*)")
    if open and fence then
      list[#list + 1], open = open, nil
    elseif fence then
      open = { language = fence, line = line_number, text = "" }
    elseif open then
      open.text = open.text .. line .. "\n"
    end
  end
  return list
end

local function pattern_of(expected)
  local escaped = expected:gsub("[%^%$%(%)%%%.%[%]%*%+%-%?]", "%%%0")
  return "^" .. escaped:gsub("…", ".-") .. "$"
end

local function assert_prints(expected, got)
  if not got:find(pattern_of(expected)) then assert.equal(expected, got) end
end

local function run_console(block, run)
  local command, expected
  local function finish()
    if not command then return end
    local _, out, err = run(command)
    assert_prints(expected, out:find("^%s*$") and err or expected:find("SEND", 1, true) and err .. out or out .. err)
  end
  for line in block.text:gmatch("([^\n]*)\n") do
    local typed = line:match("^%$ (.*)")
    if typed then
      finish()
      command, expected = typed, ""
    else
      expected = expected .. line .. "\n"
    end
  end
  finish()
end

local function run_lua(block, run, folder)
  local expected = {}
  for text in block.text:gmatch("%-%-> ([^\n]*)") do expected[#expected + 1] = text end
  helper.write(folder .. "/block.lua", block.text)
  if block.text:find("^return ") then -- a description of a bus
    assert(require("mbus.simulator").load(folder .. "/block.lua"))
    local code, _, err = run("mbus read sim:" .. folder .. "/block.lua 5 6")
    assert.equal(0, code, err)
    return
  end
  local code, out, err = run("lua5.4 " .. folder .. "/block.lua")
  assert.equal(0, code, err)
  local from = 1
  for _, text in ipairs(expected) do
    local _, stop = out:find(pattern_of(text):sub(2, -2) .. "\n", from)
    assert(stop, ("%q is not printed; this is:\n%s"):format(text, out))
    from = stop + 1
  end
end

-- Set-up cannot run inside the tests it sets up; but the targets must be there.
local function run_sh(block)
  for line in block.text:gmatch("[^\n]+") do
    assert.equal(0, (helper.shell(line:gsub("^make", "make -n"))), line)
  end
end

describe("the README", function()
  local folder, environment, pid

  setup(function()
    local pipe = assert(io.popen("mkdir -p build && mktemp -d build/readme.XXXXXX && pwd"))
    folder = pipe:read("l")
    local root = pipe:read("l")
    pipe:close()
    assert(os.execute("mkdir " .. folder .. "/bin"))
    helper.write(folder .. "/bin/mbus", ('#!/bin/sh\nexec lua5.4 "%s/lua/bin/mbus" "$@"\n'):format(root))
    assert(os.execute("chmod +x " .. folder .. "/bin/mbus"))
    environment = ("export %s PATH=%s; "):format(helper.environment(), helper.quote(root .. "/" .. folder .. "/bin:" .. os.getenv("PATH")))
    pipe = assert(io.popen(environment .. "mbus simulate --pty " .. folder .. "/house >/dev/null & echo $!"))
    pid = pipe:read("l")
    pipe:close()
    assert(os.execute(("for i in $(seq 100); do [ -e %s/house ] && exit 0; sleep 0.05; done; exit 1"):format(folder)))
  end)

  teardown(function()
    os.execute("kill " .. pid .. "; sleep 0.2; rm -rf " .. folder)
  end)

  -- The port of the examples is the simulated house.
  local function run(command)
    local house = folder .. "/house"
    local code, out, err = helper.shell(environment .. command:gsub("/dev/ttyUSB0", house))
    return code, out:gsub(house, "ttyUSB0"), err:gsub(house, "ttyUSB0")
  end

  local runners = { console = run_console, lua = run_lua, sh = run_sh }

  for _, block in ipairs(blocks()) do
    it(("keeps its word in line %d"):format(block.line), function()
      if block.language == "lua" then block.text = block.text:gsub("/dev/ttyUSB0", folder .. "/house") end
      assert(runners[block.language], "no way to run " .. block.language)(block, run, folder)
    end)
  end

  it("lists every kind of error", function()
    local text = helper.read("README.md"):match("### Kinds of error(.-)\n## ")
    for kind in pairs(require("mbus.error").kinds) do assert(text:find("`" .. kind .. "`", 1, true), kind) end
  end)
end)
