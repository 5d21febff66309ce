---What one connection has sent and got: frames, answers, repetitions, failures by kind, times.
local M = {}

local BITS = 11 -- of a character (EN 13757-2)

---@class mbus.gateway.Statistics
---@field requests integer   frames sent, repetitions among them
---@field retries integer    repetitions of an unanswered frame
---@field answers integer    good frames that came
---@field polls integer      meters read, well or not
---@field writes integer
---@field overruns integer   cycles left out because the one before was not through
---@field takeovers integer  times that this connection became the active one of its pair
---@field errors table<string, integer>  failed requests by kind of error
local Statistics = {}
Statistics.__index = Statistics

---@param now number
---@return mbus.gateway.Statistics
function M.new(now)
  local self = setmetatable({}, Statistics)
  self:clear(now)
  return self
end

function Statistics:clear(now)
  self.since, self.requests, self.retries, self.answers, self.polls, self.writes = now, 0, 0, 0, 0, 0
  self.overruns, self.takeovers, self.errors, self.busy = 0, 0, {}, 0.0
  self.count, self.sum, self.least, self.most = 0, 0.0, nil, nil
end

---Takes note of what was on the line, as the trace of a bus tells it.
---@param direction string
---@param bytes string
---@param time number      on the clock of the bus
---@param baudrate number
function Statistics:line(direction, bytes, time, baudrate)
  local airtime = #bytes * BITS / baudrate
  if direction ~= "ECHO" then self.busy = self.busy + airtime end
  if direction == "SEND" then
    self.requests = self.requests + 1
    if self.open == bytes then self.retries = self.retries + 1 end
    self.open, self.sent = bytes, time + airtime
  elseif direction == "RECV" then
    self.answers = self.answers + 1
    if self.open then self:response(math.max(time - self.sent, 0)) end
    self.open = nil
  end
end

---A new request begins: the same bytes as before are no repetition.
function Statistics:begin() self.open = nil end

---@param seconds number  from the end of a request to the end of its answer
function Statistics:response(seconds)
  self.count, self.sum = self.count + 1, self.sum + seconds
  self.least = math.min(self.least or seconds, seconds)
  self.most = math.max(self.most or seconds, seconds)
end

---@param kind string  of an Error
function Statistics:failed(kind) self.errors[kind] = (self.errors[kind] or 0) + 1 end

---@param now number
---@return table  plain numbers, a copy
function Statistics:report(now)
  local errors, elapsed = {}, now - self.since
  for kind, count in pairs(self.errors) do errors[kind] = count end
  return {
    requests = self.requests, retries = self.retries, answers = self.answers, polls = self.polls, writes = self.writes,
    overruns = self.overruns, takeovers = self.takeovers, errors = errors, seconds = elapsed,
    busy = elapsed > 0 and math.min(self.busy / elapsed, 1) or 0,
    response_time = { min = self.least, mean = self.count > 0 and self.sum / self.count or nil, max = self.most },
  }
end

return M
