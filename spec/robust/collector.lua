-- lua5.4 -lspec.robust.collector PROGRAM: the garbage collector runs a full cycle, finalizers included, after each
-- COLLECT_EVERY instructions (default 1000), so that what nothing refers to is gone at once.
local STEP = math.tointeger(tonumber(os.getenv "COLLECT_EVERY" or "1000"))

local create = coroutine.create
local function collect() collectgarbage() end

debug.sethook(collect, "", STEP)
function coroutine.create(f) -- luacheck: ignore 122
  local thread = create(f)
  debug.sethook(thread, collect, "", STEP)
  return thread
end
