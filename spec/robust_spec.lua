---Random input for what reads something from outside: ROBUST_RUNS inputs for each file of promises in spec/robust (default 400),
---drawn from ROBUST_SEED (default 1), which is told where one is broken. `make fuzz` tries the same promises with an eye on
---coverage.
local choices = require "spec.robust.choices"
local helper = require "spec.helper"
local random = require "mbus.simulator.random"

local RUNS = math.tointeger(tonumber(os.getenv "ROBUST_RUNS" or "400"))
local SEED = math.tointeger(tonumber(os.getenv "ROBUST_SEED" or "1"))
local INSTRUCTIONS = 20000000

-- Any thread that runs for too long raises. A hook that is there (spec/robust/collector.lua) goes on with its work.
local function limited(fn, ...)
  local create, used, restore = coroutine.create, 0, helper.keep_hook()
  local hook, _, step = debug.gethook()
  if type(hook) ~= "function" then hook, step = nil, 10000 end
  local function count()
    if hook then hook() end
    used = used + step
    if used > INSTRUCTIONS then error("it takes too long", 2) end
  end
  coroutine.create = function(f) -- luacheck: ignore 122
    local thread = create(f)
    debug.sethook(thread, count, "", step)
    return thread
  end
  debug.sethook(count, "", step)
  local results = table.pack(xpcall(fn, debug.traceback, ...))
  restore()
  coroutine.create = create -- luacheck: ignore 122
  return table.unpack(results, 1, results.n)
end

local function printable(bytes) return (bytes:gsub("[^ -~]", function(c) return ("\\x%02X"):format(c:byte()) end)) end

local function sorted(seeds)
  local list = {}
  for _, bytes in pairs(seeds) do list[#list + 1] = bytes end
  table.sort(list)
  return list
end

-- Changes of the decisions, and of the text that follows them.
local function changed(draw, seeds)
  local function below(n) return math.floor(draw:number() * n) end
  local bytes, entropy = seeds[1 + below(#seeds)], {}
  for i = 1, 24 do entropy[i] = string.char(below(256)) end
  bytes = choices.new(table.concat(entropy)):bend(bytes)
  if below(2) == 0 then return bytes end
  local at = 1 + below(#bytes + 1)
  return bytes:sub(1, at - 1) .. string.char(below(256)) .. bytes:sub(at + 1)
end

for _, name in ipairs { "capture", "security", "tables", "telnet", "text" } do
  local target = require("spec.robust." .. name)

  describe("random input: " .. name, function()
    it("the examples keep their promises", function()
      for example, bytes in pairs(target.seeds) do
        local ok, problem = limited(target.run, bytes)
        assert(ok, ("%s: %s"):format(example, problem))
      end
    end)

    it("so does what they become", function()
      local draw, seeds, deep = random.new(SEED), sorted(target.seeds), 0
      for i = 1, RUNS do
        local bytes = changed(draw, seeds)
        local ok, result = limited(target.run, bytes)
        assert(ok, ("ROBUST_SEED=%d, input %d, \"%s\": %s"):format(SEED, i, printable(bytes), result))
        if result then deep = deep + 1 end
      end
      -- An input that is refused at once shows little.
      assert(deep >= RUNS * target.least, ("only %d of %d inputs were good enough to go on with"):format(deep, RUNS))
    end)
  end)
end
