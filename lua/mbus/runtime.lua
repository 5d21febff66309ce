---Waiting: inside a coroutine a wait yields, outside it runs luv's loop until it is over. There is no other event loop.
---
---    runtime.spawn(function() runtime.sleep(1) print "a second later" end)
---    runtime.run()
---
---luv is loaded when something first waits.
local M = {}

local luv                 -- the module, once needed
local loader              -- the thread that luv calls back on; must not be collected
local failures = {}       -- errors of coroutines, for `run`
local sentinel            -- newer than every handle that is being closed
local ended = false       -- the interpreter is shutting down

-- luv 1.44 crashes when the interpreter ends between the closing of a handle and the loop's next turn. Finalizers run
-- newest first, so this one still finds the handles whole, and gives the loop that turn.
local Sentinel = { __gc = function(self)
  if self ~= sentinel then return end
  ended = true
  luv.run "nowait"
end }

---luv itself, for what waits on sockets and descriptors. Load luv through this, not with `require`.
---@return table uv
function M.luv()
  if luv then return luv end
  -- luv calls back on the very thread that loaded it, so that must be one that is never collected and never runs or
  -- yields itself. Whoever needs luv first may be a short-lived coroutine.
  loader = coroutine.create(require)
  local ok, result = coroutine.resume(loader, "luv")
  if not ok then error(result, 2) end
  luv = result
  sentinel = setmetatable({}, Sentinel)
  return luv
end

---Closes a handle of luv. Use this, not `handle:close()`, or the interpreter may crash when it ends soon after.
---@param handle table  may be closed already
function M.close(handle)
  if not handle:is_closing() then handle:close() end
  sentinel = setmetatable({}, Sentinel)
end

---@return number seconds  monotonic, from an arbitrary start
function M.now() return M.luv().hrtime() / 1e9 end

-- libuv counts whole milliseconds from the beginning of the current one: one more, or a timer fires too early.
local function milliseconds(seconds)
  if seconds <= 0 then return 0 end
  return math.ceil(math.min(seconds, 1e9) * 1000) + 1
end

---Calls `callback` once, never too early.
---@param seconds number
---@param callback fun()
---@return fun() cancel  may be called at any time, more than once
function M.after(seconds, callback)
  local uv = M.luv()
  local timer = uv.new_timer()
  local function cancel()
    if not timer then return end
    M.close(timer)
    timer = nil
  end
  uv.update_time()        -- the loop's own time is that of its last turn
  timer:start(milliseconds(seconds), 0, function()
    cancel()
    callback()
  end)
  return cancel
end

local function step(thread, ...)
  if ended then return end
  local ok, err = coroutine.resume(thread, ...)
  if ok then return end
  failures[#failures + 1] = type(err) == "string" and debug.traceback(thread, err) or err
end

local function wake(wait)
  local function continue()
    if not wait.delivered and coroutine.status(wait.thread) == "suspended" then step(wait.thread) end
  end
  if not wait.thread then return end      -- not waiting yet, or blocking: the loop below looks for itself
  if coroutine.isyieldable() then
    M.after(0, continue)  -- resumed by another coroutine: not inside it, or a long chain overflows the C stack
  else
    continue()
  end
end

local function suspend(wait)
  wait.thread = coroutine.running()
  while not wait.results do coroutine.yield() end
end

local function block(wait)
  local uv = M.luv()
  while not wait.results do
    if not uv.run("once") and not wait.results then error("waits for something that cannot happen any more", 3) end
  end
end

-- Also runs when the waiting coroutine is closed.
local Wait = { __close = function(wait)
  if wait.stop then wait.stop(not wait.delivered) end
end }

---Waits for one thing. In a coroutine it yields, outside it runs the loop.
---@param start fun(resume: fun(...), ...): fun(cancelled: boolean)?  registers something that calls `resume` once it
--- happens (perhaps at once; later calls are ignored). It may return a function that takes the registration back; that is
--- called once in any case, with true when the wait was given up (the coroutine was closed).
---@param ... any  passed on to `start`
---@return any ...  what `resume` was called with
function M.await(start, ...)
  local yieldable = coroutine.isyieldable()
  if not yieldable and M.luv().loop_mode() then
    error("a call that waits, inside a callback of luv: put it into a coroutine (mbus.spawn)", 3)
  end
  local wait = {}
  wait.stop = start(function(...)
    if wait.results then return end
    wait.results = table.pack(...)
    wake(wait)
  end, ...)
  local guard <close> = setmetatable(wait, Wait) -- luacheck: ignore guard
  if yieldable then suspend(wait) else block(wait) end
  wait.delivered = true
  return table.unpack(wait.results, 1, wait.results.n)
end

---@param seconds number  never less; 0 lets the others run
function M.sleep(seconds)
  M.await(function(resume) return M.after(seconds, resume) end)
end

---Lets the loop look once at what is ready now, without waiting for anything.
function M.poll()
  M.await(function(resume)
    local uv = M.luv()
    local idle, check = uv.new_idle(), uv.new_check()
    idle:start(function() end)              -- keeps the loop from sleeping
    check:start(function() resume() end)    -- comes after the loop has looked
    return function()
      M.close(idle)
      M.close(check)
    end
  end)
end

---Starts a coroutine at once, up to its first wait. An error in it is kept, and raised by `run`.
---@param fn fun(...)
---@param ... any
---@return thread
function M.spawn(fn, ...)
  if type(fn) ~= "function" then error("a function expected", 2) end
  local thread = coroutine.create(fn)
  step(thread, ...)
  return thread
end

local function raise_failure()
  local err = table.remove(failures, 1)
  if err ~= nil then error(err, 0) end
end

---Runs until nothing is left to wait for. Raises the first error of a coroutine, a string with its traceback.
function M.run()
  local uv = M.luv()
  if uv.loop_mode() then error("the loop runs already", 2) end
  repeat
    raise_failure()
  until not uv.run("once")
  raise_failure()
end

---First come, first served.
---@class mbus.Lock
---@field held boolean
---@field queue table[]  {resume, owner}
local Lock = {}
Lock.__index = Lock

---@return mbus.Lock
function M.lock() return setmetatable({ held = false, queue = {} }, Lock) end

---Waits until it is our turn.
---@param owner? any  whom `cancel` knows the wait by
---@return boolean ours  false: cancelled
function Lock:acquire(owner)
  if not self.held then
    self.held = true
    return true
  end
  return M.await(function(resume)
    local waiter = { resume = resume, owner = owner }
    self.queue[#self.queue + 1] = waiter
    return function(cancelled) if cancelled then self:forget(waiter) end end
  end)
end

-- A waiter gave up: it leaves the queue, or passes on what it has just been given.
function Lock:forget(waiter)
  for position, other in ipairs(self.queue) do
    if other == waiter then
      table.remove(self.queue, position)
      return
    end
  end
  if not waiter.cancelled then self:release() end
end

---Gives it to the one that has waited longest.
function Lock:release()
  if not self.held then error("the lock is not held", 2) end
  local waiter = table.remove(self.queue, 1)
  if waiter then waiter.resume(true) else self.held = false end
end

---Ends the waits of one owner: their `acquire` returns false.
---@param owner any
function Lock:cancel(owner)
  local queue = self.queue
  self.queue = {}
  for _, waiter in ipairs(queue) do
    if waiter.owner ~= owner then self.queue[#self.queue + 1] = waiter end
  end
  for _, waiter in ipairs(queue) do
    if waiter.owner == owner then
      waiter.cancelled = true
      waiter.resume(false)
    end
  end
end

return M
