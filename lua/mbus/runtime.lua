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
local idle, check, pipe   -- handles: the loop must not sleep; the loop has looked; the other side has closed
local ended = false       -- the interpreter is shutting down

-- luv 1.44 crashes when the interpreter ends between the closing of a handle and the loop's next turn. Finalizers run
-- newest first, so this one still finds the handles whole, and gives the loop that turn.
local Sentinel = { __gc = function(self)
  if self ~= sentinel then return end
  ended = true
  luv.run "nowait"
end }

local go_on

local function nothing() end

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
  idle, check = luv.new_idle(), luv.new_check()
  check:start(go_on)
  check:unref()
  -- Writing to a connection that the other side has closed is an error, not the end of the program.
  pipe = luv.new_signal()
  pcall(pipe.start, pipe, "sigpipe", nothing) -- not every system has it
  pipe:unref()
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
function M.now() return (luv or M.luv()).hrtime() / 1e9 end

-- ------------------------------------------------------------------ alarms

local ceil = math.ceil
local alarms = {}         -- timers at rest, to be used again: one for each wait would be most of the work of many buses

-- The loop's time is the clock's, cut to whole milliseconds: from that of the deadline, rounded up, nothing is early.
local function milliseconds(deadline)
  local rest = ceil(deadline < 1e12 and deadline * 1000 or 1e15) - luv.now()
  return rest > 0 and rest or 0
end

local function new_alarm()
  local alarm = { timer = luv.new_timer() }
  function alarm.ring()
    local target = alarm.target
    alarm.target = nil
    alarms[#alarms + 1] = alarm
    target:expire()
  end
  return alarm
end

-- Calls target:expire() once, never too early.
local function arm(deadline, target)
  M.luv()
  local count = #alarms
  local alarm = alarms[count] or new_alarm()
  alarms[count] = nil
  alarm.target = target
  alarm.timer:start(milliseconds(deadline), 0, alarm.ring)
  return alarm
end

local function disarm(alarm)
  alarm.timer:stop()
  alarm.target = nil
  alarms[#alarms + 1] = alarm
end

-- ------------------------------------------------------------------ coroutines

local function step(thread, ...)
  if ended then return end
  local ok, err = coroutine.resume(thread, ...)
  if ok then return end
  if err == nil then err = "nil" end
  failures[#failures + 1] = type(err) == "string" and debug.traceback(thread, err) or err
end

local ready, spare = {}, {} -- waits that are over, of coroutines that have not gone on yet
local looked              -- while these go on: when the loop has looked what is ready

local function continue(wait)
  local thread = wait.thread
  wait.thread = nil
  if thread and coroutine.status(thread) == "suspended" then step(thread) end
end

-- A coroutine goes on when the loop has looked next: never inside another one, and never with old news.
local function soon(wait)
  M.luv()
  if not ready[1] then idle:start(nothing) end  -- keeps the loop from sleeping
  ready[#ready + 1] = wait
end

function go_on()
  if not ready[1] then return end
  local list = ready
  ready, spare, looked = spare, list, M.now()
  for i = 1, #list do
    local wait = list[i]
    list[i] = nil
    continue(wait)
  end
  looked = nil
  if not ready[1] then idle:stop() end
end

-- ------------------------------------------------------------------ waiting

local function refuse_in_callback(level)
  if not M.luv().loop_mode() then return end
  error("a call that waits, inside a callback of luv: put it into a coroutine (mbus.spawn)", level + 1)
end

-- In a coroutine it yields, outside it runs the loop, until the wait is over.
local function wait_for(wait)
  if coroutine.isyieldable() then
    repeat
      wait.thread = coroutine.running()
      coroutine.yield()
    until wait.over
    return
  end
  refuse_in_callback(4)
  wait.blocks = true
  while not wait.over do
    if not luv.run("once") and not wait.over then error("waits for something that cannot happen any more", 4) end
  end
end

local function finish(wait)
  if wait.over then return end
  wait.over = true
  if wait.blocks then luv.stop() end -- the loop must not go to sleep in this turn
  if not wait.thread then return end
  if coroutine.isyieldable() or M.luv().loop_mode() then soon(wait) else continue(wait) end
end

---Something that happens again and again, and one who waits for it.
---@class mbus.Event
---@field is_set? boolean  it has happened, and nobody has waited for it yet
local Event = {}
Event.__index = Event

---@return mbus.Event
function M.event() return setmetatable({ over = true }, Event) end

---It happens: whoever waits goes on. Nobody does: the next wait returns at once.
function Event:set()
  self.is_set = true
  finish(self)
end

---Ends the wait early, if there is one.
function Event:wake() finish(self) end

function Event:expire()
  self.alarm = nil
  finish(self)
end

-- Also when the waiting coroutine is closed.
function Event:__close()
  if self.alarm then disarm(self.alarm) end
  self.alarm, self.thread, self.waits, self.blocks, self.over = nil, nil, nil, nil, true
end

---@param deadline? number  on the clock of `now`; nil: until it happens
---@return boolean set  false: time is up, or it was woken
function Event:wait(deadline)
  if self.waits then error("two wait for one event", 2) end
  if not self.is_set then
    self.waits, self.over = true, false
    local _ <close> = self
    if deadline and deadline < math.huge then self.alarm = arm(deadline, self) end
    wait_for(self)
  end
  local was_set = self.is_set or false
  self.is_set = nil
  return was_set
end

local Wait = { __close = function(wait)
  wait.thread = nil
  if wait.stop then wait.stop(not wait.delivered) end
end }

---Waits for one thing. In a coroutine it yields, outside it runs the loop.
---@param start fun(resume: fun(...), ...): fun(cancelled: boolean)?  registers something that calls `resume` once it
--- happens (perhaps at once; later calls are ignored). It may return a function that takes the registration back; that is
--- called once in any case, with true when the wait was given up (the coroutine was closed).
---@param ... any  passed on to `start`
---@return any ...  what `resume` was called with
function M.await(start, ...)
  local wait <close> = setmetatable({}, Wait)
  wait.stop = start(function(...)
    if wait.over then return end
    wait.results = table.pack(...)
    finish(wait)
  end, ...)
  if not wait.over then wait_for(wait) end
  wait.delivered = true
  return table.unpack(wait.results, 1, wait.results.n)
end

---@param seconds number  never less; 0 lets the others run
function M.sleep(seconds) M.event():wait(M.now() + math.max(seconds, 0)) end

local Call = {}
Call.__index = Call

function Call:expire()
  self.alarm = nil
  self.callback()
end

---Calls `callback` once, never too early.
---@param seconds number
---@param callback fun()
---@return fun() cancel  may be called at any time, more than once
function M.after(seconds, callback)
  local call = setmetatable({ callback = callback }, Call)
  call.alarm = arm(M.now() + seconds, call)
  return function()
    if call.alarm then disarm(call.alarm) end
    call.alarm = nil
  end
end

local STALE = 0.005 -- seconds

---Lets the loop look once at what is ready now, without waiting for anything. It has looked just before a coroutine goes on.
function M.poll()
  if looked and M.now() - looked < STALE then return end
  if not coroutine.isyieldable() then
    refuse_in_callback(3)
    M.luv().run "nowait"
    return
  end
  local wait = { thread = coroutine.running() }
  soon(wait)
  repeat coroutine.yield() until not wait.thread
end

local function traced(err)
  if err == nil then err = "nil" end -- as of `error()`
  return type(err) == "string" and debug.traceback(err, 2) or err
end

local function keep(ok, err)
  if not ok then failures[#failures + 1] = err end
end

-- An error is caught within the coroutine: so what is open there is closed, as at the end of a block, and may wait.
local function guarded(fn, ...) keep(xpcall(fn, traced, ...)) end

---Starts a coroutine at once, up to its first wait. An error in it closes what it has open, is kept, and raised by `run`.
---@param fn fun(...)
---@param ... any
---@return thread
function M.spawn(fn, ...)
  if type(fn) ~= "function" then error("a function expected", 2) end
  local thread = coroutine.create(guarded)
  step(thread, fn, ...)
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
---@field user? thread  that would wait for itself if it asked again
---@field queue table[]  {resume, owner}
local Lock = {}
Lock.__index = Lock

local NOBODY = {} -- a queue that stays empty

---@return mbus.Lock
function M.lock() return setmetatable({ held = false, queue = NOBODY }, Lock) end

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
    if self.queue == NOBODY then self.queue = {} end
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
  self.user = nil
  local waiter = table.remove(self.queue, 1)
  if waiter then waiter.resume(true) else self.held = false end
end

---A lock that is held can be the value of a to-be-closed variable.
Lock.__close = Lock.release

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
