---The last lines of a connection's log: a ring, so that a year of errors takes no more room than a day's.
local M = {}

local LEVELS = { error = 1, warning = 2, info = 3, debug = 4 }
M.LEVELS = { "error", "warning", "info", "debug" }
M.LINES = 1000

---@class mbus.gateway.Log
---@field level "error"|"warning"|"info"|"debug"  the least that is kept
local Log = {}
Log.__index = Log

---@param level string
---@param clock table
---@param connection? table  whose gateway is told of every line
---@return mbus.gateway.Log
function M.new(level, clock, connection)
  return setmetatable({ level = level, depth = LEVELS[level], clock = clock, connection = connection, next = 1, ring = {} }, Log)
end

---@param level string
function Log:set_level(level) self.level, self.depth = level, LEVELS[level] end

---Whether a line of this level is kept, before one goes to the trouble of making it.
---@param level string
---@return boolean
function Log:keeps(level) return LEVELS[level] <= self.depth end

---@param level string
---@param text string
function Log:add(level, text)
  if LEVELS[level] > self.depth then return end
  local at, time, ring = 3 * self.next, self.clock.time(), self.ring
  ring[at - 2], ring[at - 1], ring[at] = time, level, text
  self.next = self.next % M.LINES + 1
  local connection = self.connection
  if connection then connection.gateway:tell_log(connection, level, text, time) end
end

---@param last? integer  only so many; default all
---@return table[]  {time, level, text}, oldest first
function Log:lines(last)
  local lines, ring = {}, self.ring
  local count = #ring // 3
  local first = count < M.LINES and 1 or self.next
  for i = math.max(0, count - (last or count)), count - 1 do
    local at = 3 * ((first + i - 1) % M.LINES + 1)
    lines[#lines + 1] = { time = ring[at - 2], level = ring[at - 1], text = ring[at] }
  end
  return lines
end

function Log:clear() self.next, self.ring = 1, {} end

return M
