---What a network path does to an answer, measured: how late it begins, and how much of it the gateway holds back.
---
---A gateway that passes on bytes as they come shows the first one of an answer a little late. One that delivers whole
---answers shows nothing until the last byte was on the line, so that an answer window has to be longer by the airtime of
---a full frame. Until it is known which, the latter is assumed. What is known are the last exchanges, and the worst of
---them counts, so that a path that changes is followed.
---@class mbus.Path
local Path = {}
Path.__index = Path

local BITS = 11               -- of a character on the line
local FRAME = 261             -- bytes of the longest frame
local TELLING = 6             -- bytes from which an answer shows whether it was held back: an E5 does not
local MEMORY = 16             -- exchanges that count
local UNKNOWN, LEAST, MOST = 0.3, 0.1, 10 -- seconds of margin: unmeasured, at least, at most
local SPREAD = 0.05           -- seconds: what came within it came at once

---@param baudrate number  of the line behind the gateway
---@return mbus.Path
function Path.new(baudrate)
  local self = { baudrate = baudrate, delays = { last = 0 }, held = { last = 0 }, trip = 0 }
  return setmetatable(self, Path)
end

-- A ring with its worst: `list.worst` is nil while it is empty.
local function remember(list, value)
  local at = list.last % MEMORY + 1
  local forgotten = list[at]
  list.last, list[at] = at, value
  if not list.worst or value >= list.worst then
    list.worst = value
  elseif forgotten == list.worst then
    list.worst = math.max(table.unpack(list))
  end
end

function Path:airtime(count) return BITS * count / self.baudrate end

-- Takes stock of the exchange that is over.
local function finish(self)
  if not self.chunk then return end
  local whole = self.total >= TELLING and self.early == self.total
  if self.from then
    remember(self.delays, math.max(0, self.began - self.from - self:airtime(whole and self.total or self.chunk)))
  end
  if self.total >= TELLING then remember(self.held, whole and FRAME or self.early) end
  self.chunk = nil
end

---@param seconds number  that the network took to connect: there and back
function Path:connected(seconds) self.trip = seconds end

---A request was handed over.
---@param bytes string
---@param now number
function Path:sent(bytes, now)
  finish(self)
  local repeated = self.open and bytes == self.request
  self.first = repeated and (self.first or self.ends) or nil
  self.ends = now + self:airtime(#bytes)
  self.request, self.open = bytes, true
end

---Bytes came.
---@param count integer
---@param now number
function Path:received(count, now)
  if self.open then
    self.open = false
    self.chunk, self.began, self.early, self.total = count, now, 0, 0
    -- Behind a repeated request it is not known which of them is answered, unless it is too early for the latter.
    self.from = self.ends
    if self.first then self.from = now < self.ends and self.first or nil end
  end
  if not self.chunk then return end
  self.total = self.total + count
  if now - self.began <= SPREAD then self.early = self.total end
end

---@return number margin  seconds to add to the answer window, `held` among them
---@return number held    seconds that an answer of a single byte does not need
function Path:margin()
  local delay = self.delays.worst
  -- Connecting may have taken long because a packet was lost: it counts only while nothing else is known.
  local margin = math.max(delay and 2 * delay + 0.05 or math.max(UNKNOWN, 2 * self.trip + 0.1), LEAST)
  local held = self:airtime(self.held.worst or FRAME)
  return math.min(margin, MOST) + held, held
end

return Path
