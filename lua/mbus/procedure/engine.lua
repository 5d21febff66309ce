---Runs one procedure without I/O. A procedure is straight-line Lua in a coroutine; what it wants of the outside comes
---out of `wants`, what happened outside goes in through `feed`. Who drives it, and on what clock, is not its concern.
---
---    local what, argument, err = engine:wants()
---    "send", bytes         put them on the line, then feed("", now); what came in meanwhile may be fed too
---    "receive", deadline   feed bytes as they come, or feed("", now) once now >= deadline
---    "sleep", deadline     feed("", now) once now >= deadline
---    "drain"               empty the input and feed(what was in it, now)
---    "baudrate", number    change the speed of the line (a switch of the baud rate only) and feed("", now)
---    "event", {name, value}  news of a procedure that goes on: take note and feed("", now)
---    "done", result, err   the procedure has returned
---
---`feed("", now)` before a deadline is a tick and changes nothing. Deadlines are on the clock that is fed.
local Error = require "mbus.error"

---@class mbus.Engine
local Engine = {}
Engine.__index = Engine

local DONE = {}
local resting = {} -- coroutines that have done their work: each does that of many procedures

local function call(procedure, ...) return procedure(...) end

-- Runs one procedure after another: what it is resumed with when it rests.
local function work(...) return work(coroutine.yield(DONE, call(...))) end

-- Keeps what the coroutine yielded or returned as the present want.
local function advance(self, ...)
  local ok, what, argument, err = coroutine.resume(self.thread, ...)
  if not ok then
    self.what, self.argument = "done", nil -- whoever cleans up must not resume it, or this error is lost
    error(debug.traceback(self.thread, tostring(what)), 0)
  end
  if what == DONE then
    self.what, self.argument, self.err = "done", argument, err
    resting[#resting + 1], self.thread = self.thread, nil
  else
    self.what, self.argument = what, argument
  end
end

---@param procedure fun(link: mbus.Link, ...): any, mbus.Error?
---@param link mbus.Link
---@param ... any  further arguments of the procedure
---@return mbus.Engine
function Engine.new(procedure, link, ...)
  local thread = table.remove(resting) or coroutine.create(work)
  local self = setmetatable({ link = link, thread = thread, held = "", errors = 0 }, Engine)
  advance(self, procedure, link, ...)
  return self
end

---@return "send"|"receive"|"sleep"|"drain"|"baudrate"|"event"|"done" what
---@return any argument  bytes, deadline, baud rate, event or result
---@return mbus.Error? err  with "done": why there is no result
function Engine:wants() return self.what, self.argument, self.err end

local function take(self)
  local bytes, errors = self.held, self.errors
  self.held, self.errors = "", 0
  return bytes, errors
end

local function fulfilled(self, now)
  if self.what == "receive" then return self.held ~= "" or now >= self.argument end
  if self.what == "sleep" then return now >= self.argument end
  return true
end

---Tells what happened.
---@param bytes string  what came in, or ""
---@param now number    seconds; a clock that never goes back
---@param line_errors? integer|boolean  characters with parity or framing errors, and breaks, among the bytes
function Engine:feed(bytes, now, line_errors)
  if self.what == "done" then error("the procedure has ended", 2) end
  self.link:set_clock(now)
  self.held = self.held .. bytes
  self.errors = self.errors + (line_errors == true and 1 or line_errors or 0)
  if fulfilled(self, self.link:now()) then advance(self, take(self)) end
end

---The caller has lost interest: the procedure ends as soon as it may, with the bus in order. Go on feeding it until then.
function Engine:abort() self.link.aborted = true end

---The line is broken: every later want of the procedure fails with this error, so that it ends soon.
---@param err mbus.Error
function Engine:fail(err)
  if not Error.is(err) then error("an mbus.Error is needed", 2) end
  while self.what ~= "done" do advance(self, nil, err) end
end

return Engine
