---Pauses between attempts to reach what is lost: each about twice as long as the one before, up to a limit, and each a
---little different, so that many buses behind one gateway do not come back all at once.
local Error = require "mbus.error"
local runtime = require "mbus.runtime"

---@class mbus.Backoff
---@field err? mbus.Error  why the last attempt failed
local Backoff = {}
Backoff.__index = Backoff
Backoff.first, Backoff.limit, Backoff.due, Backoff.random = 0.5, 30, 0, math.random

local JITTER = 0.25     -- of a pause, at most, up or down
local ROOM = 0.25       -- of the time that somebody waits, which the last attempt has at least

-- Somebody has to do something first: no use in waiting for it.
local FINAL = { permission = true, invalid = true, unsupported = true, busy = true }

---@param first? number  seconds after the first failure; 0.5
---@param limit? number  seconds that no pause exceeds; 30
---@param random? fun(): number  from 0 to 1; math.random
---@return mbus.Backoff
function Backoff.new(first, limit, random)
  return setmetatable({ first = first, limit = limit, random = random }, Backoff)
end

---@param err mbus.Error
---@param now number
function Backoff:failed(err, now)
  self.err = err
  local pause = self.pause or self.first
  self.due = now + math.min(self.limit, pause * (1 - JITTER + 2 * JITTER * self.random()))
  self.pause = math.min(self.limit, pause * 2)
end

---What was lost is really back.
function Backoff:worked() self.pause, self.due, self.err = nil, nil, nil end

local function too_early(err, pause)
  return Error.new(err.kind, ("%s (next attempt in %.1f s)"):format(err.message, pause), err)
end

---Attempts until one succeeds. Ends with the last error when the next attempt would come too late.
---@param patience number  seconds
---@param attempt fun(deadline: number): true?, mbus.Error?
---@param pause fun(seconds: number): true?, mbus.Error?  waits; nil: given up meanwhile
---@return true? ok
---@return mbus.Error? err
function Backoff:persist(patience, attempt, pause)
  local deadline = runtime.now() + patience
  while true do
    local seconds = self.due - runtime.now()
    if seconds > 0 then
      if runtime.now() + seconds > deadline - ROOM * patience then
        runtime.sleep(0)        -- who asks again and again must not keep the others from running
        return nil, too_early(self.err, seconds)
      end
      local waited, given_up = pause(seconds)
      if not waited then return nil, given_up end
    end
    local ok, err = attempt(deadline)
    if ok then return true end
    self:failed(err, runtime.now())
    if FINAL[err.kind] or runtime.now() >= deadline then return nil, err end
  end
end

return Backoff
