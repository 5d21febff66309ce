---The time that a gateway lives in: that of the computer, or a virtual one on which a month passes in seconds.
---
---    local clock = Clock.virtual()
---    local gateway = mbus.gateway(config, { clock = clock })
---    gateway:start()
---    clock.run(30 * 86400)
---
---Both have the same functions; what waits in a coroutine yields, what waits outside runs the clock:
---    clock.now()  seconds, never back      clock.time()  seconds since 1970       clock.sleep(seconds)
---    clock.spawn(fn, ...)                  clock.event() -> event:wait(deadline?) -> was it set?, event:set()
---    clock.at(time, fn) -> cancel          calls `fn`, which must not wait, once at a time of `now`
local M = {}

-- ------------------------------------------------------------------ the computer's

---@return table clock
function M.real()
  local runtime = require "mbus.runtime"
  return {
    now = runtime.now,
    sleep = runtime.sleep,
    spawn = runtime.spawn,
    time = function()
      local seconds, microseconds = runtime.luv().gettimeofday()
      return seconds + microseconds / 1e6
    end,
    event = runtime.event,
    at = function(time, fn) return runtime.after(time - runtime.now(), fn) end,
  }
end

-- ------------------------------------------------------------------ a virtual one

local function take(event)
  local was_set = event.is_set or false
  event.is_set = false
  return was_set
end

local function before(a, b)
  if a.time ~= b.time then return a.time < b.time end
  return a.order < b.order
end

local function push(heap, entry)
  local i = #heap + 1
  heap[i] = entry
  while i > 1 and before(entry, heap[i // 2]) do
    heap[i], heap[i // 2] = heap[i // 2], entry
    i = i // 2
  end
end

local function pop(heap)
  local top, last = heap[1], table.remove(heap)
  local size, i = #heap, 1
  if size == 0 then return top end
  heap[1] = last
  while true do
    local child = 2 * i
    if child < size and before(heap[child + 1], heap[child]) then child = child + 1 end
    if child > size or not before(heap[child], last) then return top end
    heap[i], heap[child] = heap[child], last
    i = child
  end
end

local function resume(thread, ...)
  local ok, err = coroutine.resume(thread, ...)
  if not ok then error(type(err) == "string" and debug.traceback(thread, err) or err, 0) end
end

local EPOCH = 1704067200 -- 2024-01-01T00:00:00Z

---@param epoch? number  seconds since 1970 at its time 0
---@return table clock   with run(until) and is_virtual
function M.virtual(epoch)
  local now, order, heap = 0.0, 0, {}
  local clock = { is_virtual = true }

  -- `what` is a coroutine that goes on, or a function that is called.
  local function at(time, what)
    order = order + 1
    local entry = { time = math.max(time, now), order = order, what = what }
    push(heap, entry)
    return entry
  end

  -- One thing that is due until then; false if there is none.
  local function step(limit)
    while heap[1] and heap[1].cancelled do pop(heap) end
    if not heap[1] or heap[1].time > limit then return false end
    local entry = pop(heap)
    now = entry.time
    if type(entry.what) == "thread" then resume(entry.what) else entry.what() end
    return true
  end

  ---Lets time pass.
  function clock.run(limit)
    while step(limit) do end -- luacheck: ignore 542
    if limit < math.huge then now = math.max(now, limit) end
  end

  function clock.now() return now end
  function clock.time() return (epoch or EPOCH) + now end
  function clock.spawn(fn, ...) resume(coroutine.create(fn), ...) end

  function clock.at(time, fn)
    local entry = at(time, fn)
    return function() entry.cancelled = true end
  end

  function clock.sleep(seconds)
    local limit = now + math.max(seconds, 0)
    if not coroutine.isyieldable() then return clock.run(limit) end
    at(limit, coroutine.running())
    coroutine.yield()
  end

  local VirtualEvent = {}
  VirtualEvent.__index = VirtualEvent

  function VirtualEvent:set()
    self.is_set = true
    local thread = self.thread
    if not thread then return end
    self.thread = nil
    if self.entry then self.entry.cancelled = true end
    at(now, thread)
  end

  function VirtualEvent:wait(deadline)
    if self.is_set then return take(self) end
    deadline = deadline or math.huge
    if coroutine.isyieldable() then
      self.thread = coroutine.running()
      self.entry = deadline < math.huge and at(deadline, self.thread) or nil
      coroutine.yield()
      self.thread, self.entry = nil, nil
    else
      while not self.is_set and step(deadline) do end -- luacheck: ignore 542
      if not self.is_set and deadline < math.huge then now = math.max(now, deadline) end
    end
    return take(self)
  end

  function clock.event() return setmetatable({}, VirtualEvent) end

  ---Makes a transport of the simulator live on this clock.
  function clock.adopt(transport)
    transport.clock = { now = clock.now, wait = function(_, to) clock.sleep(to - now) end }
    return transport
  end

  return clock
end

return M
