---A progress bar on standard error, where that is a terminal; elsewhere nothing.
---
---    [=========>                    ]  31%   4 found  FFFFFFF5FFFFFFFF   0:12 left
local console = require "mbus.cli.console"

local M = {}

local INTERVAL = 0.1 -- seconds between two drawings
local BAR, WIDTH = 30, 80

local function clock(seconds)
  local whole = math.ceil(seconds)
  if whole < 3600 then return ("%d:%02d"):format(whole // 60, whole % 60) end
  return ("%d:%02d:%02d"):format(whole // 3600, whole // 60 % 60, whole % 60)
end

local function width()
  local terminal = require("mbus.runtime").luv().new_tty(2, false)
  local columns = terminal:get_winsize()
  require("mbus.runtime").close(terminal)
  return columns and columns > 0 and columns or WIDTH
end

---@param progress mbus.ScanProgress
---@param columns? integer  of the terminal, default 80
---@return string  one line that fits
function M.line(progress, columns)
  columns = columns or WIDTH
  local left = progress.seconds_left and clock(progress.seconds_left) .. " left" or ""
  local rest = ("%3d%%  %3d found  %-16s  %s"):format(progress.fraction * 100 // 1, progress.found, progress.current, left)
  local room = math.min(BAR, columns - #rest - 4)
  if room < 5 then return rest:sub(1, columns - 1) end
  local done = math.tointeger(progress.fraction * room // 1)
  local bar = ("="):rep(done) .. (done < room and ">" or "")
  return ("[%s] %s"):format(bar .. (" "):rep(room - #bar), rest)
end

---@class mbus.cli.ProgressBar
local Bar = {}
Bar.__index = Bar

---@param enabled? boolean  false: draw nothing
---@return mbus.cli.ProgressBar
function M.new(enabled)
  local visible = enabled ~= false and console.is_terminal(2)
  return setmetatable({ visible = visible, columns = visible and width(), drawn = false, last = -math.huge }, Bar)
end

---@param progress mbus.ScanProgress
function Bar:update(progress)
  if not self.visible then return end
  local now = require("mbus.runtime").now()
  if now - self.last < INTERVAL and progress.fraction < 1 then return end
  self.last, self.drawn = now, true
  io.stderr:write("\r\27[K", M.line(progress, self.columns))
end

---Takes the bar away, before something else is printed.
function Bar:clear()
  if self.drawn then io.stderr:write("\r\27[K") end
  self.drawn, self.last = false, -math.huge
end

return M
