---One request and its answer, with repetitions (EN 13757-2: the identical frame, then 33 idle bits).
---
---A judge says what a frame is worth that came after the request:
---    "take", value       the answer
---    "take", nil, err    the answer, and it says no: repeating would not help
---    "perhaps", value    the answer, if nothing else comes until the window closes
---    "pass", err?        not for us; we go on listening, and report err if nothing better comes
local core = require "mbus.core"
local Error = require "mbus.error"

local M = {}

local NONE = {} -- what stays empty

M.RESTLESS = "the line does not become quiet"

---What stands for every answer in a dry run.
M.PLANNED = setmetatable({}, { __tostring = function() return "planned" end })

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
  return Error.new("collision", ("several answers at once, or noise (%s)")
    :format(bytes == "" and "damaged characters alone" or excerpt(bytes)))
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

-- Requests of the functions 10 and 11 ask for data; all others are answered by an E5 alone (EN 13757-2).
local function asks_for_data(sent)
  local code = sent:match "^\x10(.)"
  return code ~= nil and (code:byte() & 0x0F == 0x0A or code:byte() & 0x0F == 0x0B)
end

local resting = {} -- ears that nobody needs now: a new one for every request would be much of the garbage

local function new_ear(link, sent, ends, unasked)
  local ear = table.remove(resting) or setmetatable({ deframer = core.deframer() }, Ear)
  ear.link = link
  ear.ack = unasked:find(core.ACK, 1, true) ~= nil
  ear.echo, ear.held, ear.held_errors = sent, "", 0
  ear.fed, ear.position, ear.damage = 0, 0, NONE
  ear.window_end = ends + link.settings.timeout - (asks_for_data(sent) and 0 or link.settings.held or 0)
  ear.limit = ends + link:longest_answer()
  ear.noise, ear.line_errors = "", 0
  return ear
end

function Ear:rest()
  self.deframer:reset()
  self.link, self.last, self.since, self.perhaps, self.passed = nil, nil, nil, nil, nil
  resting[#resting + 1] = self
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

-- Keeps where in the stream damaged characters are: some of a chunk that had `others` in it besides.
function Ear:note_damage(size, others, line_errors)
  if line_errors > 0 and size > 0 then
    if self.damage == NONE then self.damage = {} end
    table.insert(self.damage, { first = self.fed, behind = self.fed + size, others = others, errors = line_errors })
  end
  self.fed = self.fed + size
end

function Ear:hear(bytes, line_errors)
  local now = self.link:now()
  self.last = now
  line_errors = line_errors or 0
  self.line_errors = self.line_errors + line_errors
  local before = #self.held
  local heard = self:without_echo(bytes)
  self:note_damage(#heard, before + #bytes - #heard - #self.held, self.held_errors + line_errors)
  self.held_errors = self.held ~= "" and self.held_errors + line_errors or 0
  local events = self.deframer:feed(heard)
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
  if self:pending() == 0 then
    self.echo = nil
    return NONE
  end
  self:note_damage(#self.held, 0, self.held_errors)
  local events = self.deframer:feed(self.held)
  self.held_errors = 0
  self.echo, self.held, self.since = nil, "", nil
  for _, event in ipairs(self.deframer:flush()) do events[#events + 1] = event end
  return events
end

function Ear:pass(err) self.passed = M.graver(self.passed, err) end

-- Must a character of the frame be damaged, because there are more damaged ones than others that came with it?
function Ear:is_damaged(first, behind)
  for _, chunk in ipairs(self.damage) do
    local overlap = math.min(chunk.behind, behind) - math.max(chunk.first, first)
    if overlap > 0 and chunk.errors > chunk.behind - chunk.first - overlap + chunk.others then return true end
  end
  return false
end

-- What speaks against an answer although its checksum fits, as one in 256 does by chance, or two damaged characters that
-- make up for each other.
function Ear:doubt(event, options)
  local proves_nothing = event.type == "ack" or event.type == "short"
  if options.strict and (self.noise ~= "" or self.line_errors > 0) or proves_nothing and not is_harmless(self.noise) then
    return collision(self.noise .. event.bytes)
  end
  -- Somebody else has acknowledged the request before this one.
  if options.acknowledged and self.ack and not proves_nothing then return collision(core.ACK .. event.bytes) end
  if self:is_damaged(self.position - #event.bytes, self.position) then return collision(event.bytes) end
end

---Shows events to the judge up to one that is taken.
---@return integer? position  of the event that was taken
---@return any value
---@return mbus.Error? err
function Ear:consider(events, judge, options)
  for i, event in ipairs(events) do
    self.position = self.position + #event.bytes
    self.link:trace(event.kind == "frame" and "RECV" or "NOISE", event.bytes)
    if event.kind == "noise" then
      self.noise = self.noise .. event.bytes
    else
      local verdict, value, err = judge(event)
      local doubt = verdict == "take" and self:doubt(event, options)
      if verdict == "take" and not doubt then return i, value, err end
      self.ack = self.ack or event.type == "ack"
      if verdict == "perhaps" then self.perhaps = value else self:pass(doubt or value) end
    end
  end
end

---Listens on after an answer: what follows it at once, or within the window, shows that it was not the only one.
---@return string surplus
---@return integer line_errors
function Ear:surplus(events, taken, options)
  local surplus, errors = "", 0
  for i = taken + 1, #events do surplus = surplus .. events[i].bytes end
  for _, event in ipairs(self:give_up()) do surplus = surplus .. event.bytes end
  local link = self.link
  local ends = link:now() + math.max(link.settings.pause, options.pause or 0)
  if options.whole_window then ends = math.max(ends, self.window_end) end
  repeat
    local bytes, line_errors = link:receive(ends)
    if not bytes then break end
    surplus, errors = surplus .. bytes, errors + (line_errors or 0)
  until link:now() >= ends
  link:trace("NOISE", surplus)
  return surplus, errors
end

---@return mbus.Error
function Ear:failure()
  local err = (self.noise ~= "" or self.line_errors > 0) and diagnose(self.noise, self.line_errors) or nil
  return M.graver(err, self.passed) or Error.new("timeout", "no answer")
end

-- Returns value, err, final: repeating makes no sense.
local function listen(link, ear, judge, options)
  while true do
    local bytes, line_errors = link:receive(ear:deadline())
    if not bytes then return nil, line_errors, true end
    local over = link:now() >= ear.limit
    if bytes == "" then ear.line_errors = ear.line_errors + (line_errors or 0) end -- a server keeps what is damaged back
    local events = bytes ~= "" and ear:hear(bytes, line_errors) or ear:give_up()
    local taken, value, err = ear:consider(events, judge, options)
    if taken then
      local surplus, errors = ear:surplus(events, taken, options)
      local clean = surplus == "" or not options.strict and is_harmless(surplus)
      if clean and (errors == 0 or not options.strict) then
        if surplus == "" then link:answered() end
        return value, err, true
      end
      return nil, collision(events[taken].bytes:sub(-1) .. surplus), false
    end
    if over or link:now() >= ear:deadline() then
      ear:consider(ear:give_up(), function() return "pass" end, options)
      if ear.perhaps and ear.noise == "" and not ear.passed then return ear.perhaps, nil, true end
      return nil, ear:failure(), false
    end
  end
end

local function attempt(link, bytes, judge, options)
  local quiet, err = link:settle()
  if quiet == nil then return nil, err, true end
  if not quiet then return nil, Error.new("noise", M.RESTLESS), true end
  local ends
  local unasked = link.unasked
  ends, err = link:send(bytes)
  if not ends then return nil, err, true end
  local ear = new_ear(link, bytes, ends, unasked)
  local value, final
  value, err, final = listen(link, ear, judge, options)
  ear:rest()
  return value, err, final
end

---Sends a request until it is answered.
---@param link mbus.Link
---@param bytes string  the frame
---@param judge fun(frame: table): "take"|"perhaps"|"pass", any, mbus.Error?
---@param options? table  retries: instead of the setting; strict: one clean answer and nothing else will do;
---whole_window: listen until the answer window closes, for a second answer; impatient: no repetition after silence;
---pause: of the line behind the answer, where the meter needs more than the setting; acknowledged: the request before was, so
---that a further E5 is that of another meter
---@return any value  of the judge, nil on failure; M.PLANNED in a dry run
---@return mbus.Error? err  with tries and seconds
function M.run(link, bytes, judge, options)
  options = options or NONE
  if link.plan then
    table.insert(link.plan, bytes)
    return M.PLANNED
  end
  link.sent_at, link.silences = nil, 0
  local began, worst, tries = nil, nil, 0
  repeat
    local value, err, final = attempt(link, bytes, judge, options)
    tries, began = tries + 1, began or link.sent_at or link:now()
    if not err then return value end
    worst = final and err or M.graver(worst, err)
    if err.kind == "timeout" then link.silences = link.silences + 1 end
    if options.impatient and err.kind == "timeout" then final = true end
  until final or tries > (options.retries or link.settings.retries)
  return nil, Error.wrap(worst, { tries = tries, seconds = link:now() - began })
end

---Sends what nobody answers, to all meters, and gives them the time that an answer would take.
---@param link mbus.Link
---@param bytes string
---@return true? ok
---@return mbus.Error? err  the line is broken, or does not become quiet
function M.broadcast(link, bytes)
  local function nobody() return "pass" end
  local _, err = M.run(link, bytes, nobody, { retries = 0 })
  if err and (link.broken or err.message == M.RESTLESS) then return nil, err end
  return true
end

---Does nobody answer this?
---@param link mbus.Link
---@param bytes string
---@return boolean? silent  nil: it could not be sent; false: something came
---@return mbus.Error? err
function M.probe(link, bytes)
  local value, err = M.run(link, bytes, function() return "take", true end, { retries = 1 })
  if value == M.PLANNED then return true end
  if err and (link.broken or err.message == M.RESTLESS) then return nil, err end
  return err ~= nil and err.kind == "timeout"
end

return M
