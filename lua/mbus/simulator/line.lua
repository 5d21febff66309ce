---What the master's receiver makes of everything that talks on the wire.
---
---Meters send by drawing current, so on their way to the master SPACE wins: the line carries the bitwise AND of all
---waveforms, each with its own start (EN 13757-2; bits of 8E1 characters, 11 a byte). A UART listens at its baud rate: it
---waits for a falling edge, samples in the middle of each bit, checks parity and stop bit, and after a wrong stop bit
---waits for MARK again. Sans I/O: times are seconds on whatever clock the caller has.
---@class mbus.simulator.Line
---@field baudrate number      what the master's receiver listens at
---@field collisions integer   breaks that the converter has made
local Line = {}
Line.__index = Line

local BITS = 11 -- start, 8 data, even parity, stop
local EARLY = 1e-3 -- of a bit: a time that misses an edge by rounding is on its later side
local EPSILON = 1e-9 -- seconds: the same for deadlines

local function parity(byte)
  byte = byte ~ (byte >> 4)
  byte = byte ~ (byte >> 2)
  return (byte ~ (byte >> 1)) & 1
end

local WORDS = {} -- the 11 bits of a character, first on the wire = lowest
for byte = 0, 255 do WORDS[byte] = byte << 1 | parity(byte) << 9 | 1 << 10 end

---A waveform: characters one after another, each `pitch` seconds after the one before.
---@class mbus.simulator.Wave
---@field start number
---@field stop number   end of the last stop bit
---@field bit number    seconds
---@field pitch number  seconds from character to character
---@field words integer[]
---@field kind string   "meter" (draws current), "echo" or "break"

local function wave(bytes, start, baudrate, gap, kind)
  local words = { bytes:byte(1, -1) }
  for i = 1, #words do words[i] = WORDS[words[i]] end
  local bit = 1 / baudrate
  local pitch = BITS * bit + gap
  return { start = start, stop = start + #words * pitch - gap, bit = bit, pitch = pitch, words = words, kind = kind }
end

local function flip_bits(w, probability, random)
  for i = 1, #w.words do
    for bit = 0, BITS - 1 do
      if random:number() < probability then w.words[i] = w.words[i] ~ (1 << bit) end
    end
  end
end

-- A break is one character that is all SPACE, with a bit as long as it takes.
local function break_wave(start, seconds)
  return { start = start, stop = start + seconds, bit = seconds / BITS, pitch = seconds, words = { 0 }, kind = "break" }
end

-- Character (from 0) and bit (from 0; 11 and more in a gap) of a time within the wave.
local function position(w, time)
  local x = math.max(time - w.start, 0) + EARLY * w.bit
  local character = x // w.pitch
  return character, (x - character * w.pitch) // w.bit
end

local function bit_at(w, character, bit)
  if bit >= BITS then return 1 end
  return w.words[character + 1] >> bit & 1
end

local function level(w, time)
  if time < w.start - EARLY * w.bit or time >= w.stop - EARLY * w.bit then return 1 end
  local character, bit = position(w, time)
  return w.words[character + 1] and bit_at(w, character, bit) or 1
end

---@return number? time  the first time from `time` on at which the wave is at `wanted`, nil if it never is again
local function find_level(w, time, wanted)
  if time >= w.stop - EARLY * w.bit then return wanted == 1 and time or nil end
  if time < w.start - EARLY * w.bit then
    if wanted == 1 then return time end
    time = w.start
  end
  local character, bit = position(w, time)
  local words = w.words
  while words[character + 1] do
    if bit_at(w, character, bit) == wanted then
      return math.max(time, w.start + character * w.pitch + bit * w.bit)
    end
    bit = bit + 1
    if bit > BITS or (bit == BITS and w.pitch - BITS * w.bit < EARLY * w.bit) then
      character, bit = character + 1, 0.0
    end
  end
  return wanted == 1 and w.stop or nil
end

---@class mbus.simulator.LineOptions
---@field baudrate number
---@field collision? string     "superpose" (default), or "break": a converter that sees two currents holds the line at SPACE
---@field break_time? number    seconds of that break; default 50 ms, at least 22 bits (EN 13757-2)
---@field damaged? string       "deliver" (default) or "drop": a gateway that hides characters with wrong parity or stop bit

---@param options mbus.simulator.LineOptions
---@return mbus.simulator.Line
function Line.new(options)
  return setmetatable({
    baudrate = options.baudrate,
    collisions = 0,
    breaks = options.collision == "break",
    break_time = options.break_time,
    drop = options.damaged == "drop",
    waves = {},
    from = -math.huge, -- where the receiver has got to
    ahead = nil, -- the next character, as long as nothing new comes onto the line
  }, Line)
end

-- The first moment from `from` on at which both draw current.
local function meeting(a, b, from)
  local time = math.max(from, a.start, b.start)
  while true do
    local in_a = find_level(a, time, 0)
    local in_b = in_a and find_level(b, in_a, 0)
    if not in_b then return nil end
    if in_b == in_a then return in_a end
    time = in_b
  end
end

local function first_meeting(self, new, from)
  local first
  for _, other in ipairs(self.waves) do
    if other ~= new and other.kind == "meter" then
      local time = meeting(other, new, from)
      if time and (not first or time < first) then first = time end
    end
  end
  return first
end

local function add_breaks(self, new)
  local seconds = self.break_time or math.max(22 / self.baudrate, 0.05)
  local time = first_meeting(self, new, self.from)
  while time do
    self.waves[#self.waves + 1] = break_wave(time, seconds)
    self.collisions = self.collisions + 1
    time = first_meeting(self, new, time + seconds)
  end
end

---Puts characters onto the line. What has been taken already stays as it was: `time` is not before it.
---@param bytes string
---@param time number      seconds at which the first start bit begins
---@param options? table   baudrate (default the line's), gap (seconds between characters, default 0), kind ("meter" or "echo"),
---                        bit_flips (probability for each bit) with random (mbus.simulator.Random)
---@return number stop     seconds at which the last stop bit ends
function Line:add(bytes, time, options)
  options = options or {}
  if bytes == "" then return time end
  local new = wave(bytes, time, options.baudrate or self.baudrate, options.gap or 0, options.kind or "meter")
  if options.bit_flips then flip_bits(new, options.bit_flips, options.random) end
  self.waves[#self.waves + 1] = new
  self.ahead = nil
  if self.breaks and new.kind == "meter" then add_breaks(self, new) end
  return new.stop
end

---@param baudrate number  the master's receiver listens at this rate from now on
function Line:set_baudrate(baudrate)
  self.baudrate = baudrate
  self.ahead = nil
end

local function next_mark(waves, time)
  local moved
  repeat
    moved = false
    for i = 1, #waves do
      local mark = find_level(waves[i], time, 1)
      if mark > time then time, moved = mark, true end
    end
  until not moved
  return time
end

-- The falling edge, and the wave that makes it.
local function next_edge(waves, time)
  local first, maker
  for i = 1, #waves do
    local edge = find_level(waves[i], time, 0)
    if edge and (not first or edge < first) then first, maker = edge, waves[i] end
  end
  return first, maker
end

local function sample(waves, time)
  for i = 1, #waves do
    if level(waves[i], time) == 0 then return 0 end
  end
  return 1
end

-- A character that nobody disturbs needs no sampling.
local function undisturbed(waves, edge, maker, bit)
  if maker.bit ~= bit then return nil end
  local stop = edge + BITS * bit
  for i = 1, #waves do
    local other = waves[i]
    if other ~= maker and other.start < stop and other.stop > edge then return nil end
  end
  local character, at = position(maker, edge)
  return at == 0 and maker.words[character + 1] or nil
end

local function sampled(waves, edge, bit)
  local word = 0
  for i = 0, BITS - 1 do word = word | sample(waves, edge + (i + 0.5) * bit) << i end
  return word
end

-- The next character of the receiver: byte, damaged, done, from (where it goes on).
local function receive(self)
  local waves, bit, time = self.waves, 1 / self.baudrate, self.from
  while true do
    local edge, maker = next_edge(waves, next_mark(waves, time))
    if not edge then return nil end
    local word = undisturbed(waves, edge, maker, bit) or sampled(waves, edge, bit)
    if word & 1 == 0 then
      local byte = word >> 1 & 0xFF
      local damaged = word >> 9 & 1 ~= parity(byte) or word >> 10 == 0
      return { byte = byte, damaged = damaged, done = edge + BITS * bit, from = edge + (BITS - 0.5) * bit }
    end
    time = edge + 0.5 * bit -- a spike shorter than half a bit is no start bit
  end
end

local function peek(self)
  if not self.ahead and self.waves[1] then self.ahead = receive(self) end
  return self.ahead
end

local function forget(self)
  local waves = self.waves
  for i = #waves, 1, -1 do
    if waves[i].stop <= self.from then table.remove(waves, i) end
  end
end

---@return number? time  when the next character is complete, nil if none is on its way. A gateway that drops damaged
---                      characters may then have nothing to give.
function Line:next()
  local ahead = peek(self)
  return ahead and ahead.done
end

---@param time number      seconds
---@return string bytes    what the receiver has completed up to `time`
---@return integer errors  how many of these have a wrong parity or stop bit
function Line:take(time)
  local bytes, errors = {}, 0
  local ahead = peek(self)
  while ahead and ahead.done <= time + EPSILON do
    if not (ahead.damaged and self.drop) then
      bytes[#bytes + 1] = string.char(ahead.byte)
      if ahead.damaged then errors = errors + 1 end
    end
    self.from, self.ahead = ahead.from, nil
    ahead = peek(self)
  end
  forget(self)
  return table.concat(bytes), errors
end

return Line
