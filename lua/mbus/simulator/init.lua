---A simulated M-Bus: meters, the wire, and what stands between it and the master. Sans I/O and without a clock: bytes of the
---master go in with the time at which they are put on the line, bytes for the master come out with the time at which
---their last bit is there. Times are seconds on any clock that does not go backwards.
---
---    local simulator = require "mbus.simulator"
---    local sim = assert(simulator.new(assert(simulator.load "house")))
---    sim:receive("\x10\x40\x0A\x4A\x16", 0)           -- SND_NKE to address 10
---    local time = sim:next()                          -- 0.0229 s for the request, the meter's delay, 0.0046 s for E5
---    local bytes, line_errors = sim:take(time)        -- "\xE5", 0
---
---A bus is described by a table or a file, see mbus.simulator.description. Without one it is the built-in house.
---@class mbus.simulator
local M = {}

local core = require "mbus.core"
local Description = require "mbus.simulator.description"
local Line = require "mbus.simulator.line"
local Meter = require "mbus.simulator.meter"
local Random = require "mbus.simulator.random"
local faults = require "mbus.simulator.faults"

local BITS = 11 -- a character on the wire

---@class mbus.simulator.Simulator
---@field name string                         "house", the name of the file, or "table"
---@field baudrate number                     of the master
---@field meters mbus.simulator.Meter[]       in the order of the description
---@field statistics mbus.simulator.Statistics
local Simulator = {}
Simulator.__index = Simulator

---@class mbus.simulator.Statistics
---@field requests integer   whole frames of the master
---@field answers integer    answers of meters
---@field noise integer      bytes of the master that were part of no frame
---@field overlaps integer   frames that the master began while an answer was on the line
---@field collisions integer answers that began while another was on the line
---@field airtime number     seconds that all characters, of master and meters, took

---@param source? string|table  "house" (also nil and ""), the path of a description file, or a description
---@return mbus.simulator.Description? description
---@return mbus.Error? err  kinds "invalid" (names the field and what is allowed), "not_found", "permission", "io"
function M.load(source)
  if source == nil or source == "" or source == "house" then
    return Description.check(require("mbus.simulator.house").description(), "house")
  elseif type(source) == "string" then
    return Description.read(source)
  elseif type(source) == "table" then
    return Description.check(source)
  end
  error("a description is a table, or the name of a file", 2)
end

local function make_meters(description, random)
  local meters = {}
  for i, one in ipairs(description.meters) do
    meters[i] = Meter.new(one, { baudrate = description.baudrate, random = random })
  end
  return meters
end

---@class mbus.simulator.Options
---@field seed? integer   instead of the description's
---@field name? string    for messages
---@field trace? fun(direction: string, bytes: string, time: number, meter?: mbus.simulator.Meter)  direction "receive" (a frame
---                       of the master; time of its end) or "send" (an answer; time of its start)

local OPTIONS = { seed = true, name = true, trace = true }

---@param description? table|string  what M.load takes or has returned
---@param options? mbus.simulator.Options
---@return mbus.simulator.Simulator? sim
---@return mbus.Error? err  as of M.load
function M.new(description, options)
  options = require("mbus.options").check(options, OPTIONS, 2)
  local checked, err = M.load(description)
  if not checked then return nil, err end
  local random = Random.new(options.seed or checked.seed)
  local converter = checked.converter
  return setmetatable({
    name = options.name or checked.name,
    baudrate = checked.baudrate,
    meters = make_meters(checked, random),
    statistics = { requests = 0, answers = 0, noise = 0, overlaps = 0, collisions = 0, airtime = 0.0 },
    converter = converter,
    gap = checked.gap or math.max(33 / checked.baudrate, 0.05),
    random = random,
    trace = options.trace,
    line = Line.new { baudrate = checked.baudrate, collision = converter.collision, break_time = converter.break_time,
      damaged = converter.damaged },
    deframer = core.deframer(),
    master_until = -math.huge,
    answers_until = -math.huge,
    sending = {},
  }, Simulator)
end

-- ------------------------------------------------------------------ answers

-- What the line makes of an answer on its way.
local function on_the_way(self, bytes)
  local converter = self.converter
  if converter.lost then bytes = faults.lose(bytes, converter.lost, self.random) end
  local noise = converter.noise or {}
  return (noise.before or "") .. bytes .. (noise.after or "")
end

local function send(self, meter, answer, time)
  local start = time + answer.delay
  local before = self.sending[meter]
  if before and before.stop > start then start = before.stop + BITS / answer.baudrate end
  local bit_flips = answer.bit_flips or self.converter.bit_flips
  local stop = self.line:add(on_the_way(self, answer.bytes), start,
    { baudrate = answer.baudrate, gap = answer.gap, bit_flips = bit_flips, random = self.random })
  local statistics = self.statistics
  statistics.answers = statistics.answers + 1
  statistics.airtime = statistics.airtime + #answer.bytes * BITS / answer.baudrate
  if start < self.answers_until then statistics.collisions = statistics.collisions + 1 end
  self.answers_until = math.max(self.answers_until, stop)
  self.sending[meter] = { start = start, stop = stop }
  if self.trace then self.trace("send", answer.bytes, start, meter) end
end

-- A meter that sends does not listen.
local function is_sending(self, meter, start, stop)
  local interval = self.sending[meter]
  return interval and interval.start < stop and interval.stop > start
end

local function random_bytes(random, count)
  local bytes = {}
  for i = 1, count do bytes[i] = string.char(math.floor(random:number() * 256)) end
  return table.concat(bytes)
end

-- A ghost: E5 or garbage where nobody answers.
local function haunt(self, time)
  local random, probability = self.random, self.converter.ghosts
  if not probability or random:number() >= probability then return end
  local bytes = core.ACK
  if random:number() < 0.5 then bytes = random_bytes(random, 3) end
  self.line:add(bytes, time + random:between(11, 330) / self.baudrate)
end

local function dispatch(self, frame, time)
  local start = time - #frame.bytes * BITS / self.baudrate
  self.statistics.requests = self.statistics.requests + 1
  if start < self.answers_until then self.statistics.overlaps = self.statistics.overlaps + 1 end
  if self.trace then self.trace("receive", frame.bytes, time) end
  local answers = {}
  for _, meter in ipairs(self.meters) do
    local answer = not is_sending(self, meter, start, time) and meter:receive(frame, time, self.baudrate)
    if answer then answers[#answers + 1] = { meter = meter, answer = answer, start = time + answer.delay } end
  end
  table.sort(answers, function(a, b) return a.start < b.start end)
  for _, one in ipairs(answers) do send(self, one.meter, one.answer, time) end
  if #answers == 0 then haunt(self, time) end
end

-- ------------------------------------------------------------------ what nobody asked for

-- Time until the next byte of noise, as chance has it.
local function until_noise(self) return -self.converter.noise.between * math.log(1 - self.random:number()) end

local function make_noise(self, time)
  local between = self.converter.noise and self.converter.noise.between
  if not between then return end
  while self.next_noise <= time do
    self.line:add(random_bytes(self.random, 1), self.next_noise)
    self.next_noise = self.next_noise + until_noise(self)
  end
end

local function babble(self, time)
  for _, meter in ipairs(self.meters) do
    local at = meter:next_babble(self.unasked_until)
    while at and at <= time do
      local before = self.sending[meter]
      if not before or before.stop <= at then
        self.sending[meter] = { start = at, stop = self.line:add(meter:babble(), at, { baudrate = meter.baudrate }) }
      end
      at = meter:next_babble(at)
    end
  end
end

-- Puts on the line what comes unasked, up to a time. It begins when somebody listens or talks for the first time.
local function disturb(self, time)
  if not self.unasked_until then
    self.unasked_until = time
    self.next_noise = self.converter.noise and self.converter.noise.between and time + until_noise(self)
  end
  if time <= self.unasked_until then return end
  make_noise(self, time)
  babble(self, time)
  self.unasked_until = time
end

local function next_disturbance(self)
  local first = self.next_noise
  if not self.unasked_until then return nil end
  for _, meter in ipairs(self.meters) do
    local at = meter:next_babble(self.unasked_until)
    if at and (not first or at < first) then first = at end
  end
  return first
end

-- ------------------------------------------------------------------ the master's side

---The master puts bytes on the line: they take 11 bits each, one after another, behind those that are still going out.
---@param bytes string
---@param time number  seconds, not before the time of an earlier call
function Simulator:receive(bytes, time)
  if bytes == "" then return end
  disturb(self, time)
  local character = BITS / self.baudrate
  local start = math.max(time, self.master_until)
  if start - self.master_until > self.gap then self.deframer:reset() end
  self.master_until = start + #bytes * character
  self.statistics.airtime = self.statistics.airtime + #bytes * character
  if self.converter.echo then self.line:add(bytes, start, { kind = "echo" }) end
  local done = -self.deframer:pending()
  for _, event in ipairs(self.deframer:feed(bytes)) do
    done = done + #event.bytes
    if event.kind == "frame" then
      dispatch(self, event, start + math.max(done, 0) * character)
    else
      self.statistics.noise = self.statistics.noise + #event.bytes
    end
  end
end

---@return number? time  seconds at which there may be something to take, nil: nothing is on its way
function Simulator:next()
  local coming, disturbance = self.line:next(), next_disturbance(self)
  return coming and disturbance and math.min(coming, disturbance) or coming or disturbance
end

---@param time number       seconds
---@return string bytes     for the master, complete at `time`
---@return integer errors   how many of them have a wrong parity or stop bit
function Simulator:take(time)
  disturb(self, time)
  return self.line:take(time)
end

---@param time number
---@return number seconds  that the master's bytes still need to go out
function Simulator:backlog(time) return math.max(self.master_until - time, 0) end

---The master changes its baud rate; the meters do not.
---@param baudrate number
function Simulator:set_baudrate(baudrate)
  self.baudrate = baudrate
  self.line:set_baudrate(baudrate)
end

---A transport to this bus, for mbus.open.
---@param options? table  see mbus.simulator.transport
---@return table transport
function Simulator:transport(options) return require("mbus.simulator.transport").new(self, options) end

return M
