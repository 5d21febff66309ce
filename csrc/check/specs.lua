-- Runs spec files where busted cannot be had: on another machine, in a newer Lua. Only mbus.core is loaded besides what Lua
-- has itself; describe and it are here, the assertions are busted's own (luassert).
--
--   lua specs.lua [-x WORD]... SPEC...        -x leaves out the specs with this word in their name
--
-- Prints "Lua 5.4: N passed, N failed, N left out".

assert = require "luassert" -- luacheck: ignore 121

local passed, failed, left_out = 0, 0, 0
local excluded, names, prepare = {}, {}, {}

function describe(name, fn) -- luacheck: ignore 111
  local outer = #prepare
  names[#names + 1] = name
  fn()
  names[#names] = nil
  for i = #prepare, outer + 1, -1 do prepare[i] = nil end
end

function before_each(fn) prepare[#prepare + 1] = fn end -- luacheck: ignore 111

function pending() left_out = left_out + 1 end -- luacheck: ignore 111

function it(name, fn) -- luacheck: ignore 111
  local full = table.concat(names, " ") .. " " .. name
  for _, word in ipairs(excluded) do
    if full:find(word, 1, true) then return pending() end
  end
  local ok, message = xpcall(function()
    for _, before in ipairs(prepare) do before() end
    fn()
  end, debug.traceback)
  if ok then
    passed = passed + 1
  else
    failed = failed + 1
    io.stderr:write(("Failure -> %s\n%s\n"):format(full, message))
  end
end

local i = 1
while arg[i] do
  if arg[i] == "-x" then
    i = i + 1
    excluded[#excluded + 1] = arg[i]
  else
    dofile(arg[i])
  end
  i = i + 1
end
print(("%s: %d passed, %d failed, %d left out"):format(_VERSION, passed, failed, left_out))
os.exit(failed == 0 and passed > 0)
