---One request and its answer, with repetitions (EN 13757-2: the identical frame, then 33 idle bits).
---
---A judge says what a frame is worth that came after the request:
---    "take", value       the answer
---    "take", nil, err    the answer, and it says no: repeating would not help
---    "pass", err?        not for us; we go on listening, and report err if nothing better comes
local core = require "mbus.core"
local Error = require "mbus.error"

local M = {}

-- Of several failures the one is reported that says most about the meter.
local RANK = { timeout = 0, noise = 1, framing = 2, mismatch = 3, truncated = 4, checksum = 5, rejected = 6, collision = 7 }

---@param one? mbus.Error
---@param other? mbus.Error
---@return mbus.Error?  the one that says more; `other` if both say as much
function M.graver(one, other)
  if not (one and other) then return one or other end
  return (RANK[one.kind] or 8) > (RANK[other.kind] or 8) and one or other
end

-- Converters put a 00 or FF before or after an answer when they change direction.
local TOLERATED = 2
local function is_harmless(bytes) return #bytes <= TOLERATED and not bytes:find("[^\x00\xFF]") end

local function excerpt(bytes)
  return core.hex(bytes:sub(1, 8)) .. (#bytes > 8 and (" ... %d bytes"):format(#bytes) or "")
end

local function collision(bytes)
  return Error.new("collision", ("several answers at once, or noise (%s)"):format(excerpt(bytes)))
end

-- The frame that was meant, if one can be made out in the noise.
local function damaged_frame(noise)
  for at, length, again in noise:gmatch("()\x68(.)(.)\x68") do
    local size = length:byte() + 6
    if length == again and size >= 9 then
      local frame = noise:sub(at, at + size - 1)
      if #frame < size then
        return Error.new("truncated", ("short frame: got %d of %d bytes"):format(#frame, size))
      end
      local _, err = core.frame(frame)
      if err then return Error.wrap(err) end
    end
  end
  local frame = noise:gsub("^[\x00\xFF]+", "")
  if frame:byte() == 0x10 then frame = frame:sub(1, 5) end
  if not frame:find("^[\x10\x68]") then return nil end
  local _, err = core.frame(frame)
  return err and Error.wrap(err)
end

-- Why bytes came but no frame.
local function diagnose(noise, line_errors)
  if line_errors > 0 then return collision(noise) end
  return damaged_frame(noise) or Error.new("noise", ("only noise came (%s)"):format(excerpt(noise)))
end

---What is heard after one transmission.
local Ear = {}
Ear.__index = Ear

local function new_ear(link, sent, ends, unasked)
  return setmetatable({
    link = link,
    ack = unasked:find(core.ACK, 1, true) ~= nil,
    deframer = core.deframer(),
    echo = sent, held = "",
    window_end = ends + link.settings.timeout,
    limit = ends + link:longest_answer(),
    noise = "", line_errors = 0,
  }, Ear)
end

---Holds back what could be the echo of our own frame, which two-wire and optical converters return. An E5 in it is
---no answer.
function Ear:without_echo(bytes)
  if not self.echo then return bytes end
  local held = self.held .. bytes
  if #held < #self.echo and self.echo:sub(1, #held) == held then
    self.held = held
    return ""
  end
  local echo = self.echo
  self.echo, self.held = nil, ""
  if held:sub(1, #echo) ~= echo then return held end
  self.link:trace("ECHO", echo)
  return held:sub(#echo + 1)
end

function Ear:pending()
  if self.held ~= "" then return #self.held, 0 end
  return self.deframer:pending()
end

-- An unfinished frame ends by silence, but one of known length may take its airtime. Nothing goes beyond the limit.
function Ear:deadline()
  local settings = self.link.settings
  local have, need = self:pending()
  local quiet = self.last and self.last + settings.gap or 0
  local deadline = quiet
  if have == 0 then
    deadline = math.max(quiet, self.window_end)
  elseif need > 0 then
    deadline = math.max(quiet, self.since + self.link:airtime(need) + settings.gap)
  end
  return math.min(deadline, self.limit)
end

function Ear:hear(bytes, line_errors)
  local now = self.link:now()
  self.last = now
  self.line_errors = self.line_errors + (line_errors or 0)
  local events = self.deframer:feed(self:without_echo(bytes))
  local have = self:pending()
  if have == 0 then
    self.since = nil
  elseif not self.since or #events > 0 then
    self.since = now - self.link:airtime(have)
  end
  return events
end

---Nothing more will come of what is unfinished.
function Ear:give_up()
  local events = self.deframer:feed(self.held)
  self.echo, self.held, self.since = nil, "", nil
  for _, event in ipairs(self.deframer:flush()) do events[#events + 1] = event end
  return events
end

function Ear:pass(err) self.passed = M.graver(self.passed, err) end

-- What speaks against an answer although its checksum fits, as one in 256 does by chance.
function Ear:doubt(event, options, noise_behind)
  local proves_nothing = event.type == "ack" or event.type == "short"
  if options.strict and (self.noise ~= "" or self.line_errors > 0) or proves_nothing and not is_harmless(self.noise) then
    return collision(self.noise .. event.bytes)
  end
  -- Somebody else has acknowledged the request before this one.
  if options.acknowledged and self.ack and not proves_nothing then return collision(core.ACK .. event.bytes) end
  if self.line_errors > #self.noise + noise_behind then return collision(event.bytes) end
end

local function noise_behind(events, position)
  local count = 0
  for i = position + 1, #events do
    if events[i].kind == "noise" then count = count + #events[i].bytes end
  end
  return count
end

---Shows events to the judge up to one that is taken.
---@return integer? position  of the event that was taken
---@return any value
---@return mbus.Error? err
function Ear:consider(events, judge, options)
  for i, event in ipairs(events) do
    self.link:trace(event.kind == "frame" and "RECV" or "NOISE", event.bytes)
    if event.kind == "noise" then
      self.noise = self.noise .. event.bytes
    else
      local verdict, value, err = judge(event)
      local doubt = verdict == "take" and self:doubt(event, options, noise_behind(events, i) + self:pending())
      if verdict == "take" and not doubt then return i, value, err end
      self.ack = self.ack or event.type == "ack"
      self:pass(doubt or value)
    end
  end
end

---Listens on after an answer: what follows it at once, or within the window, shows that it was not the only one.
---@return string surplus
---@return integer line_errors
function Ear:surplus(events, taken, whole_window)
  local parts, errors = {}, 0
  for i = taken + 1, #events do parts[#parts + 1] = events[i].bytes end
  for _, event in ipairs(self:give_up()) do parts[#parts + 1] = event.bytes end
  local link = self.link
  local ends = link:now() + link.settings.idle
  if whole_window then ends = math.max(ends, self.window_end) end
  repeat
    local bytes, line_errors = link:receive(ends)
    if not bytes then break end
    parts[#parts + 1], errors = bytes, errors + (line_errors or 0)
  until link:now() >= ends
  local surplus = table.concat(parts)
  link:trace("NOISE", surplus)
  return surplus, errors
end

---@return mbus.Error
function Ear:failure()
  local err = self.noise ~= "" and diagnose(self.noise, self.line_errors) or nil
  return M.graver(err, self.passed) or Error.new("timeout", "no answer")
end

-- Returns value, err, final: repeating makes no sense.
local function listen(link, ear, judge, options)
  while true do
    local bytes, line_errors = link:receive(ear:deadline())
    if not bytes then return nil, line_errors, true end
    local over = link:now() >= ear.limit
    local events = bytes ~= "" and ear:hear(bytes, line_errors) or ear:give_up()
    local taken, value, err = ear:consider(events, judge, options)
    if taken then
      local surplus, errors = ear:surplus(events, taken, options.whole_window)
      local clean = surplus == "" or not options.strict and is_harmless(surplus)
      if clean and (errors == 0 or not options.strict) then return value, err, true end
      return nil, collision(events[taken].bytes:sub(-1) .. surplus), false
    end
    if over or link:now() >= ear:deadline() then
      ear:consider(ear:give_up(), function() return "pass" end, options)
      return nil, ear:failure(), false
    end
  end
end

local function attempt(link, bytes, judge, options)
  local quiet, err = link:settle()
  if quiet == nil then return nil, err, true end
  if not quiet then return nil, Error.new("noise", "the line does not become quiet"), true end
  local ends
  local unasked = link.unasked
  ends, err = link:send(bytes)
  if not ends then return nil, err, true end
  return listen(link, new_ear(link, bytes, ends, unasked), judge, options)
end

---Sends a request until it is answered.
---@param link mbus.Link
---@param bytes string  the frame
---@param judge fun(frame: table): "take"|"pass", any, mbus.Error?
---@param options? table  retries: instead of the setting; strict: one clean answer and nothing else will do;
---whole_window: listen until the answer window closes, for a second answer; impatient: no repetition after silence;
---acknowledged: the request before was, so that a further E5 is that of another meter
---@return any value  of the judge, nil on failure
---@return mbus.Error? err  with tries and seconds
function M.run(link, bytes, judge, options)
  options = options or {}
  link.sent_at = nil
  local began, worst, tries = nil, nil, 0
  repeat
    local value, err, final = attempt(link, bytes, judge, options)
    tries, began = tries + 1, began or link.sent_at or link:now()
    if not err then return value end
    worst = final and err or M.graver(worst, err)
    if options.impatient and err.kind == "timeout" then final = true end
  until final or tries > (options.retries or link.settings.retries)
  return nil, Error.wrap(worst, { tries = tries, seconds = link:now() - began })
end

return M
