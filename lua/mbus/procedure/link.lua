---What a procedure holds of the bus: it asks for what it wants of the outside, keeps time, the frame count bits and the
---idle time of the line. Times are seconds on whatever clock the driver has.
---
---Who drives either sees each want and feeds what came of it, then the procedure runs in a coroutine (engine.lua); or sets
---`fulfil`, which is called with a want and comes back when it is done.
local Error = require "mbus.error"

---@class mbus.Link
---@field settings mbus.Settings  timing and limits of this request
---@field state mbus.LinkState    what outlives a request
---@field log any[]               direction, bytes, time, direction, ...: what was on the line
---@field logged integer           how much of that was not yet handed to the trace callback
---@field silences? integer       attempts of the last exchange that nothing came after
---@field fulfil? fun(link: mbus.Link, what: string, argument: any): string?, integer|mbus.Error|nil
---@field on_trace? fun(direction: string, bytes: string, time: number)  told at once, instead of the log
---@field plan? string[]          of a dry run: the frames that would be sent if every one is answered
local Link = {}
Link.__index = Link

---@class mbus.Settings
---@field baudrate number        line speed that airtime is computed from
---@field timeout number         answer window after the end of transmission
---@field held number            part of it that an answer of one byte does not need: gateways wait for whole answers
---@field gap number             silence that ends an unfinished frame
---@field idle number            silence before a request
---@field pause number           silence after a good answer, which is all that the next request needs
---@field post_nke_delay number  rest after an answered SND_NKE
---@field retries integer        repetitions after the first attempt
---@field max_telegrams integer  of one readout
---@field nke boolean|"never"    SND_NKE before reading: always, only if the frame count is unknown, or never
---@field select_c? integer      C field of selections; nil: 53, and 73 where that selects nobody
---@field application_reset? boolean|integer  application reset before reading, with a subcode if it is a number
---@field ignores_fcb? boolean   a telegram that comes again is the end of the readout
---@field can_switch boolean     the baud rate of the line can be changed
---@field dry_run? boolean       nothing is sent: frames are collected in `link.plan`
---@field at? fun(baudrate: number): mbus.Settings  the same at another line speed

---@class mbus.LinkState
---@field formats table<integer, string>    record headers by format signature, see decode.lua
---@field next_fcb table<integer, integer>  frame count bit of the next request by A field; absent: unknown
---@field next_command table<integer, integer>  the same of the next SND_UD: slaves count the two apart
---@field deselected? boolean               no meter is selected by its secondary address, for sure
---@field late_until? number                until then a telegram may still come that was asked for before
---@field calm? boolean                     the last request was answered well: no pause for recovery is needed
---@field baudrate? number                  that the line was switched to
---@field home? number                      a request is under way, and the line had this speed before
---@field deaf table<integer, string>       meters that answer REQ_UD2 but not SND_NKE, and their last telegram
---@field quiet_since? number               when the line was last busy
---@field not_before? number                earliest time of the next request
---@field clock? number                     time that was fed last

local NONE = {} -- what stays empty
local BITS = 11 -- of a character: start, 8 data, parity, stop (EN 13757-2)
local FRAME_MAX = 261

---Seconds that a telegram may be late and still be kept from being taken for that of the next request.
Link.LATE = 2

---@return mbus.LinkState
function Link.state() return { next_fcb = {}, next_command = {}, deaf = {}, formats = {} } end

---@param settings mbus.Settings
---@param state? mbus.LinkState  of the bus; a new one if absent
---@param now? number
---@return mbus.Link
function Link.new(settings, state, now)
  local link = setmetatable({ settings = settings, state = state or Link.state(), log = NONE, logged = 0, inbox = "",
    unasked = "", plan = settings.dry_run and {} or nil }, Link)
  link:set_clock(now)
  return link
end

---Time of what the driver fed last.
---@return number
function Link:now() return self.state.clock or 0 end

---@param now? number
function Link:set_clock(now)
  local state = self.state
  local clock = state.clock
  if now and (not clock or now > clock) then state.clock = now end
end

---How the telegrams of this bus are decoded: with its keys, and the formats that its meters have shown.
---@return mbus.DecodeOptions
function Link:decoding() return { keys = self.settings.keys, formats = self.state.formats } end

---@param count integer  characters
---@return number seconds on the line
function Link:airtime(count) return BITS * count / self.settings.baudrate end

---The longest that an answer can take after the end of transmission, whatever comes.
---@return number seconds
function Link:longest_answer()
  return self.settings.timeout + self:airtime(FRAME_MAX) + self.settings.gap
end

---@param direction "SEND"|"RECV"|"NOISE"|"ECHO"
---@param bytes string
---@param time? number
function Link:trace(direction, bytes, time)
  if bytes == "" then return end
  if self.on_trace then return self.on_trace(direction, bytes, time or self:now()) end
  if self.log == NONE then self.log = {} end
  local log, count = self.log, self.logged
  log[count + 1], log[count + 2], log[count + 3] = direction, bytes, time or self:now()
  self.logged = count + 3
end

-- Comes back with the bytes that the driver brought, or with its failure, which is final.
function Link:ask(what, argument)
  if self.broken then return nil, self.broken end
  local bytes, line_errors
  if self.fulfil then
    bytes, line_errors = self:fulfil(what, argument)
  else
    bytes, line_errors = coroutine.yield(what, argument)
  end
  if not bytes then self.broken = line_errors end
  return bytes, line_errors
end

---Hands a frame to the line.
---@param bytes string
---@return number? ends  when the last bit is on the line; a port that returns early does not shorten it
---@return mbus.Error? err  the line is broken
function Link:send(bytes)
  local start = self.state.clock
  self.sent_at = start
  self:trace("SEND", bytes, start)
  local early, err = self:ask("send", bytes)
  if not early then return nil, err end
  self.inbox, self.inbox_errors, self.unasked = early, err, ""
  local ends = math.max(self:now(), (start or self:now()) + self:airtime(#bytes))
  self.state.quiet_since, self.state.calm = ends, false
  return ends
end

---Changes the speed of the line, and with it all times.
---@param baudrate number
---@return true? ok
---@return mbus.Error? err  the line cannot, or is broken
function Link:set_baudrate(baudrate)
  if self.plan then return true end
  if not self.settings.can_switch then
    return nil, Error.new("unsupported", "the baud rate of this bus cannot be changed from here")
  end
  local bytes, err = self:ask("baudrate", baudrate)
  if not bytes then return nil, err end
  self.state.baudrate, self.state.calm = baudrate, false
  if self.settings.at then self.settings = self.settings.at(baudrate) end
  return true
end

---Waits for bytes.
---@param deadline number
---@return string? bytes  "" if nothing came until then; nil: the line is broken
---@return integer|mbus.Error|nil line_errors  characters with parity or framing errors and breaks among them, or the error
function Link:receive(deadline)
  local bytes, line_errors = self.inbox, self.inbox_errors
  self.inbox, self.inbox_errors = "", nil
  if bytes == "" then bytes, line_errors = self:ask("receive", deadline) end
  local state = self.state
  if bytes == "" then state.listened = state.clock elseif bytes then state.quiet_since = self:now() end
  return bytes, line_errors
end

---Tells whoever started the procedure something while it goes on.
---@param name "found"|"progress"
---@param value any
function Link:report(name, value) self:ask("event", { name = name, value = value }) end

---Has the caller lost interest? A long procedure looks now and then, and then leaves the bus in order.
---@return boolean
function Link:is_aborted() return self.aborted == true or self.broken ~= nil end

-- What came unasked while nobody listened. `unasked` shows it to whoever sends next.
function Link:discard(bytes)
  if bytes == "" then return end
  self.state.quiet_since, self.state.calm = self:now(), false
  self.unasked = self.unasked .. bytes
  self:trace("NOISE", bytes)
end

---Does nothing for a while; what comes in is thrown away.
---@param deadline number
---@return true? ok
---@return mbus.Error? err  the line is broken
function Link:sleep(deadline)
  if deadline <= self:now() then return true end
  local bytes, err = self:ask("sleep", deadline)
  if not bytes then return nil, err end
  self:discard(bytes)
  return true
end

---Throws away what has come in so far.
---@return string? bytes
---@return mbus.Error? err  the line is broken
function Link:drain()
  local bytes, err = self:ask("drain")
  if not bytes then return nil, err end
  bytes, self.inbox = self.inbox .. bytes, ""
  self:discard(bytes)
  return bytes
end

---Gives the meter a rest after SND_NKE, which slow ones need.
function Link:rest() self.state.not_before = self.state.quiet_since + self.settings.post_nke_delay end

---The last request was answered, by a good frame and nothing else.
function Link:answered() self.state.calm = true end

---The earliest time of the next request: after anything but a good answer the receivers need 33 idle bits (IEC 60870-5-1,
---FT1.2).
---@return number
function Link:ready_at()
  local state, settings = self.state, self.settings
  local silence = state.calm and settings.pause or settings.idle
  return math.max(state.quiet_since and state.quiet_since + silence or 0, state.not_before or 0)
end

---Brings the line to rest before a request and empties the input, so that nothing old can answer it.
---@return boolean? quiet  false if the line did not become quiet
---@return mbus.Error? err  the line is broken
function Link:settle()
  local state, limit = self.state, nil
  -- Whoever has just listened to the silence behind an answer need not look again.
  if state.listened == state.clock and state.clock and self:ready_at() <= state.clock then return true end
  repeat
    local ok, err = self:sleep(self:ready_at())
    if not ok then return nil, err end
    local bytes
    bytes, err = self:drain()
    if not bytes then return nil, err end
    limit = limit or self:now() + self:longest_answer()
  until bytes == "" and self:ready_at() <= self:now() or self:now() >= limit
  return self:ready_at() <= self:now()
end

---The frame count bit of the next REQ_UD2 to a meter: 1 after SND_NKE, nil if unknown. A slave that sees the same
---bit again repeats its last answer (IEC 60870-5-2, FCB and FCV).
---@param a integer
---@return integer?
function Link:fcb(a) return self.state.next_fcb[a] end

---@param a integer
function Link:reset_fcb(a) self:set_fcb(a, 1, 1) end

---@param a integer
---@param request integer  frame count bit of the next request
---@param command integer  and of the next SND_UD
function Link:set_fcb(a, request, command) self.state.next_fcb[a], self.state.next_command[a] = request, command end

---@param a integer  the answer to its last request was valid
function Link:toggle_fcb(a) self.state.next_fcb[a] = 1 - (self.state.next_fcb[a] or 1) end

---The frame count bit of the next SND_UD. A slave that sees the same bit again acknowledges, and does nothing.
---@param a integer
---@return integer
function Link:command_fcb(a) return self.state.next_command[a] or 1 end

---@param a integer  its last SND_UD was acknowledged
function Link:toggle_command_fcb(a) self.state.next_command[a] = 1 - self:command_fcb(a) end

---@param a integer  it is not known any more what the meter saw last
function Link:forget_fcb(a) self.state.next_fcb[a], self.state.next_command[a] = nil, nil end

---After a request to every meter.
function Link:forget_all_fcb() self.state.next_fcb, self.state.next_command = {}, {} end

---A request was given up in its middle: nobody knows what the meter has seen, or whether it still answers.
---@param state mbus.LinkState
function Link.interrupt(state)
  state.next_fcb, state.next_command, state.deselected, state.calm = {}, {}, nil, nil
  state.late_until = state.clock and state.clock + Link.LATE
end

return Link
