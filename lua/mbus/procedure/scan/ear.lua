---Asking so that nothing is missed: a scan sends, and listens until the answer window has closed, whatever comes first.
---Who talks within it decides: a second E5 may be late, and two that are in time with each other look like one.
local core = require "mbus.core"
local decode = require("mbus.decode").telegram
local Error = require "mbus.error"

local M = {}

local FRAME_MAX = 261
local MASTER = 0x40 -- PRM in the C field: the frame comes from a master
local RSP_UD, RSP_UD_MASK = 0x08, 0xCF -- ACD and DFC may be set
local BREAK = 0.05 -- seconds: EN 13757-2 asks for more than 22 bits, converters give that
local HARMLESS = 2 -- bytes 00 or FF that converters put around an answer when they change direction

---What came after one frame of ours.
---@class mbus.scan.Heard
---@field events table[]    frames and noise in order, our own echo removed
---@field errors integer    characters with parity or framing errors, and breaks
---@field early boolean     something came while our frame was still going out: the late answer to an earlier one
---@field stray boolean     something came before that, while nobody listened
---@field overdue boolean   an answer began after the window that the settings give

-- Noise that comes piece by piece is one event.
local function add(heard, events, time)
  for _, event in ipairs(events) do
    local last = heard.events[#heard.events]
    if event.kind == "noise" and last and last.kind == "noise" then
      last.bytes = last.bytes .. event.bytes
    else
      event.time = time
      table.insert(heard.events, event)
    end
  end
end

local function hear(link, heard, bytes, errors)
  heard.errors = heard.errors + (errors == true and 1 or errors or 0)
  if bytes == "" then return end -- a server may tell of damaged characters that it keeps back
  add(heard, heard.deframer:feed(bytes), link:now())
  if link:now() < heard.ends then heard.before = heard.before + #bytes end
  if link:now() <= heard.ends + link.settings.timeout then heard.within = heard.within + #bytes end
  heard.last = link:now()
end

-- Silence that shows that the line rests. The break of a converter that sees a collision lasts, and its receiver gives one
-- character for all of it.
local function rest(link, heard, unfinished)
  local idle, last = link.settings.idle, heard.events[#heard.events]
  local spoilt = unfinished or last and last.kind == "noise"
  return math.max(spoilt and BREAK + idle or idle, unfinished and link.settings.gap or 0)
end

-- The window, and longer where somebody still talks: until the line rests, or an unfinished frame is given up. One of
-- known length may have its airtime, since a gateway may hide damaged characters.
local function deadline(link, heard)
  local close = heard.close
  if heard.last then
    local have, need = heard.deframer:pending()
    close = math.max(close, heard.last + rest(link, heard, have > 0))
    if need > have then close = math.max(close, heard.last + link:airtime(need - have) + link.settings.gap) end
  end
  return math.min(close, heard.limit)
end

-- Two-wire and optical converters return our own frame first.
local function without_echo(link, heard, sent)
  local first = heard.events[1]
  if first and first.bytes == sent then
    table.remove(heard.events, 1)
    heard.before, heard.within = heard.before - #sent, heard.within - #sent
    link:trace("ECHO", sent, first.time)
  end
  heard.early = heard.before > 0
end

---How many whole answers there were.
---@param heard mbus.scan.Heard
---@return integer
function M.answers(heard)
  local count = 0
  for _, event in ipairs(heard.events) do
    if event.kind == "frame" then count = count + 1 end
  end
  return count
end

local function finish(link, heard, sent)
  add(heard, heard.deframer:flush(), heard.last)
  without_echo(link, heard, sent)
  heard.overdue = heard.within == 0 and M.answers(heard) > 0
  for _, event in ipairs(heard.events) do
    link:trace(event.kind == "frame" and "RECV" or "NOISE", event.bytes, event.time)
  end
  return heard
end

---@param link mbus.Link
---@param bytes string
---@param window number  seconds from the end of the frame to the end of an E5 that comes last
---@return mbus.scan.Heard? heard
---@return mbus.Error? err  the line is broken, or does not become quiet
function M.ask(link, bytes, window)
  local quiet, err = link:settle()
  if quiet == nil then return nil, err end
  if not quiet then return nil, Error.new("noise", "the line does not become quiet") end
  local stray = link.unasked ~= ""
  local ends
  ends, err = link:send(bytes)
  if not ends then return nil, err end
  local heard = { events = {}, errors = 0, deframer = core.deframer(), ends = ends, close = ends + window,
    before = 0, within = 0, stray = stray, decoding = link:decoding() }
  heard.limit = heard.close + link:airtime(FRAME_MAX) + link.settings.gap
  repeat
    local came, errors = link:receive(deadline(link, heard))
    if not came then return nil, errors end
    hear(link, heard, came, errors)
  until link:now() >= deadline(link, heard)
  return finish(link, heard, bytes)
end

local function is_harmless(event)
  return event.kind == "noise" and #event.bytes <= HARMLESS and not event.bytes:find("[^\x00\xFF]")
end

-- The only frame that was heard, if there was nothing else. `lenient`: but for what converters add.
local function only_frame(heard, lenient)
  local only, noise = nil, 0
  for _, event in ipairs(heard.events) do
    if event.kind == "frame" and only then return nil end
    if event.kind == "frame" then
      only = event
    elseif lenient and is_harmless(event) then
      noise = noise + #event.bytes
    else
      return nil
    end
  end
  return heard.errors <= noise and only or nil
end

local function is_acknowledgement(frame)
  return frame.type == "ack" or frame.type == "short" and frame.c & MASTER == 0
end

---Somebody or nobody, one or several? "one" is not proven yet: answers in time with each other look like one.
---@param heard mbus.scan.Heard
---@param lenient? boolean  a 00 or FF beside the answer is the habit of a converter
---@return "silent"|"one"|"many"|"stale" class  "stale": a late answer to an earlier request, ask again
function M.class(heard, lenient)
  if heard.early then return "stale" end
  if #heard.events == 0 then return heard.errors == 0 and "silent" or "many" end
  local frame = only_frame(heard, lenient)
  if not frame then return "many" end
  return is_acknowledgement(frame) and "one" or "stale"
end

---How many clean acknowledgements there were: two and more are no noise.
---@param heard mbus.scan.Heard
---@return integer
function M.acknowledgements(heard)
  local count = 0
  for _, event in ipairs(heard.events) do
    if event.kind == "frame" and is_acknowledgement(event) then count = count + 1 end
  end
  return count
end

---Is there an acknowledgement before or behind something else? Within a spoilt telegram E5 is one of its bytes, and what it
---ends with may look like a short frame.
---@param heard mbus.scan.Heard
---@return boolean
function M.has_acknowledgement_beside(heard)
  local events = heard.events
  if #events == 0 or M.acknowledgements(heard) == #events then return false end
  return is_acknowledgement(events[1]) or events[#events].type == "ack"
end

---What an answer to REQ_UD2 is worth.
---@param heard mbus.scan.Heard
---@param is_meant fun(telegram: mbus.Telegram): boolean  is it the meter that was asked?
---@param lenient? boolean
---@return "good"|"none"|"other"|"bad"|"silent" verdict  "none": the meter answers, and has no data
---@return mbus.Telegram? telegram
function M.data(heard, is_meant, lenient)
  if #heard.events == 0 and heard.errors == 0 then return "silent" end
  local frame = not heard.early and only_frame(heard, lenient)
  if not frame then return "bad" end
  if is_acknowledgement(frame) then return "none" end
  if frame.c & RSP_UD_MASK ~= RSP_UD then return "other" end
  local telegram = decode(frame.bytes, heard.decoding)
  if not telegram or telegram.application_error then return "none" end
  return is_meant(telegram) and "good" or "other", telegram
end

-- What several E5 at once, and the break of a converter that sees a collision, look like. Many paths do not tell of wrong
-- parity and stop bits, but these characters come only with one; those mostly; the rest mostly without.
local DAMAGED = "[\x25\x40\x45\x51\x59\x5E\x65\x79\x7E\xB9]"
local SUSPECT = "[\x00\x01\x05\x21\xC0\xF9]"

---What the acknowledgements of several meters show of the path: does it deliver damaged characters? One that drops them
---can make a collision look like silence.
---@param heard mbus.scan.Heard
---@return number? evidence  for it, or against it if negative; nil if there was nothing but clean acknowledgements
function M.path(heard)
  if heard.errors > 0 then return math.huge end
  local evidence
  for _, event in ipairs(heard.events) do
    if event.kind == "noise" then
      if event.bytes:find(DAMAGED) then return math.huge end
      local _, suspect = event.bytes:gsub(SUSPECT, "")
      evidence = (evidence or 0) + suspect - (#event.bytes - suspect) / 2
    end
  end
  return evidence
end

return M
