---The meter that a request is for, by primary or secondary address: brought to attention, asked, commanded, let go.
---
---    local target, err = Target.open(link, address)     SND_NKE a -> E5, or selection -> E5
---    local telegram, err = target:first()               REQ_UD2 -> RSP_UD, the first telegram
---    local readout, err = target:readout()              all telegrams
---    local ok, err = target:command(ci, data)           SND_UD -> E5
---    target:close(err)                                  SND_NKE 253 after a selection
local Error = require "mbus.error"
local Address = require "mbus.address"
local request = require "mbus.request"
local exchange = require "mbus.procedure.exchange"
local judge = require "mbus.procedure.judge"
local Readout = require "mbus.readout"

---@class mbus.Target
---@field link mbus.Link
---@field address mbus.Address  narrowed to the meter that was found, where it had wildcards
---@field unreset? mbus.Error   of an unanswered SND_NKE
---@field acknowledged boolean  the last thing that the meter did was to acknowledge
---@field fresh boolean         the next request gets the first telegram
local Target = {}
Target.__index = Target

-- --- link and network layer

local function must_reset(link, a)
  local nke = link.settings.nke
  if nke == "never" then return false end
  return nke or not link:fcb(a)
end

---Resets the link of a meter by its primary address, if the settings want it. A meter that does not answer may not have
---heard it, or ignore it: it goes on counting where it was, and would take a first request for the last one again.
---@param link mbus.Link
---@param a integer
---@return mbus.Error? err     of an unanswered SND_NKE, which is only a hint: some meters do not answer it
---@return boolean acknowledged
function Target.reset(link, a)
  if not must_reset(link, a) then
    if not link:fcb(a) then link:reset_fcb(a) end
    return nil, false
  end
  local request_fcb, command_fcb = link:fcb(a), link:command_fcb(a)
  link:forget_fcb(a)
  local retries = link.state.deaf[a] and 0 or nil
  local _, err = exchange.run(link, request.snd_nke(a), judge.ack(a), { retries = retries, pause = link.settings.post_nke_delay })
  link:reset_fcb(a)
  if err and err.kind == "timeout" and request_fcb then link:set_fcb(a, request_fcb, command_fcb) end
  if not err and not link.plan then link:rest() end
  return err, not err
end

---Deselects whoever is selected. The meter that was may answer with E5 or not. What comes next is for another meter, so
---there is no rest after E5.
---@param link mbus.Link
---@param alone boolean  no second one can answer later
function Target.deselect(link, alone)
  local a = Address.SELECTED
  exchange.run(link, request.snd_nke(a), judge.ack(a), { retries = 0, whole_window = not alone })
  link:forget_fcb(a)
  link.state.deselected = not link.broken or nil
  if not alone and not link.broken and not link.plan then link:rest() end
end

---Selects by secondary address. Whoever does not match is deselected by it, so SND_NKE 253 goes before it only where it is
---not known that nobody is selected.
---@param link mbus.Link
---@param address mbus.Address
---@param c? integer  C field
---@return any? ok
---@return mbus.Error? err
function Target.select(link, address, c)
  local a = Address.SELECTED
  if not link.state.deselected then Target.deselect(link, false) end
  link.state.deselected = nil
  local options = { strict = true, whole_window = address.wildcard }
  local ok, err = exchange.run(link, request.select(address.digits, c), judge.ack(a), options)
  -- The selection was a SND_UD, too: a meter that counts it would take one of the same bit for its repetition.
  if ok then link:set_fcb(a, 1, c == 0x73 and 0 or 1) end
  return ok, err
end

-- --- telegrams

-- Bytes behind CI at which the access number stands, which differs in a repeated telegram (EN 13757-3, headers).
local ACCESS_NUMBER = { [0x72] = 9, [0x76] = 9, [0x73] = 5, [0x77] = 5, [0x7A] = 1 }

-- What makes a telegram another one: everything but link layer and access number.
local function content(telegram)
  local payload = telegram.bytes:sub(7, -3)
  local at = ACCESS_NUMBER[telegram.ci]
  return at and payload:sub(1, at) .. payload:sub(at + 2) or payload
end

local function repeated(number, earlier)
  return Error.new("repeated", ("telegram %d is telegram %d again: the meter ignores the frame count bit")
    :format(number, earlier))
end

-- A request that nothing came after may be answered yet: by a telegram of this meter, but not the one asked for then.
local function expect_late(link) link.state.late_until = link:now() + link.LATE end

-- A meter that has announced more and then only acknowledges has no more. But an acknowledgement does not say whose it is,
-- and may be a late one: it takes two, and no silence.
local function no_more(link, collected)
  collected.ends = collected.ends + 1
  if link.silences > 0 then
    return true, Error.new("timeout", ("telegram %d was announced and did not come"):format(#collected.readout.telegrams + 1))
  end
  return collected.ends == 2
end

-- Waits for what may be late, and throws it away.
local function wait_for_late(link)
  if not link.state.late_until then return true end
  local ok, err = link:sleep(link.state.late_until)
  link.state.late_until = nil
  return ok, err
end

local function request_next(link, address, first, options)
  local bytes = request.req_ud2(address.a, link:fcb(address.a))
  local telegram, err = exchange.run(link, bytes, judge.data(address, first, link:decoding()), options)
  if (telegram or first) and (link.silences or 0) > 0 then expect_late(link) end
  return telegram, err
end

-- As `request_next`. The very bytes that it sent last may be sent again by a meter whose frame count is not ours.
local function request_new(link, address, first, options)
  local telegram, err = request_next(link, address, first, options)
  if not (options.last and telegram and telegram.bytes == options.last) then return telegram, err end
  link:toggle_fcb(address.a)
  return request_next(link, address, first, { whole_window = options.whole_window })
end

-- One telegram. Returns whether it was the last, or why there is none.
local function collect_one(link, address, collected, options)
  local telegrams, seen = collected.readout.telegrams, collected.seen
  local telegram, err = request_new(link, address, telegrams[1], options)
  if not telegram then return true, err end
  if telegram == exchange.PLANNED then return true end
  if telegram == judge.END then return no_more(link, collected) end
  link:toggle_fcb(address.a)
  if not (telegrams[1] or telegram.more_records_follow) then -- the only one, as of most meters
    telegrams[1] = telegram
    return true
  end
  local key = content(telegram)
  if seen[key] then
    if link.settings.ignores_fcb then return true end
    expect_late(link)
    return true, repeated(#telegrams + 1, seen[key])
  end
  telegrams[#telegrams + 1] = telegram
  seen[key] = #telegrams
  if not telegram.more_records_follow then return true end
  -- What comes late must not be taken for the next telegram.
  local calm, failure = true, nil
  if link.silences > 0 and not options.first_only then calm, failure = wait_for_late(link) end
  return not calm, failure
end

---Collects telegrams until the last. What was read is in `readout` also when this fails.
---@param link mbus.Link
---@param address mbus.Address
---@param readout mbus.Readout
---@param options table  of exchange.run for the first request; first_only: one telegram is enough
---@return mbus.Error? err
function Target.collect(link, address, readout, options)
  local collected = { readout = readout, seen = {}, ends = 0 }
  local over, err
  repeat
    if #readout.telegrams >= link.settings.max_telegrams then
      return Error.new("limit", ("more than %d telegrams"):format(#readout.telegrams))
    end
    over, err = collect_one(link, address, collected, options)
    over = over or options.first_only
    options = { whole_window = options.whole_window }
  until over or err
  return err
end

-- What to say of a meter that gave no data, and perhaps did not acknowledge SND_NKE before.
local function blame(err, unreset)
  if unreset and unreset.kind == "timeout" and err.kind == "timeout" then
    err.tries, err.seconds = err.tries + unreset.tries, err.seconds + unreset.seconds
  elseif unreset then
    return exchange.graver(unreset, err)
  elseif err.kind == "timeout" then
    err.message = "no answer to REQ_UD2"
  end
  return err
end

-- --- one meter

-- Bus-wide consequences of a failure: it is not known any more what the meter saw last.
local function lose(self)
  self.link:forget_fcb(self.address.a)
  self.fresh = false
end

-- An acknowledgement that came after silence may be that of the first attempt, and another one still come.
local function note_late_ack(self)
  if self.acknowledged and (self.link.silences or 0) > 0 then self.late_ack = self.link:now() + self.link.LATE end
end

---Waits for an acknowledgement that may still come, where the next answer is one, too.
function Target:let_late_ack_come()
  if self.late_ack then self.link:sleep(self.late_ack) end
  self.late_ack = nil
end

-- A meter that was asked for its first telegram alone is in the middle of its readout.
local function leave_readout(self)
  if self.midway and not self.address.digits then self.link:forget_fcb(self.address.a) end
  self.midway = nil
end

local function attend(self, c)
  local link, address = self.link, self.address
  local calm, failure = wait_for_late(link)
  if not calm then return nil, failure end
  leave_readout(self)
  self.fresh, self.acknowledged, self.unreset = false, false, nil
  if address.digits then
    local ok, err = Target.select(link, address, c or link.settings.select_c)
    if not ok then return nil, err end
    self.fresh, self.acknowledged = true, true
    note_late_ack(self)
    return true
  end
  self.known_deaf = link.state.deaf[address.a]
  self.unreset, self.acknowledged = Target.reset(link, address.a)
  note_late_ack(self)
  if link.broken then return nil, self.unreset end
  self.fresh = true
  return true
end

---@param link mbus.Link
---@param address mbus.Address
---@return mbus.Target? target
---@return mbus.Error? err  the selection was not acknowledged once; or the line is broken. The bus is in order
function Target.open(link, address)
  local self = setmetatable({ link = link, address = address }, Target)
  local ok, err = attend(self)
  if ok then return self end
  self:close(err)
  return nil, err
end

---Begins anew, at the first telegram.
---@return true? ok
---@return mbus.Error? err
function Target:restart()
  if self.fresh then return true end
  return attend(self)
end

local function request_options(self)
  local address = self.address
  local options = { acknowledged = self.acknowledged, whole_window = address.wildcard }
  if not address.digits then
    options.impatient = self.unreset and self.unreset.kind == "timeout" and not self.known_deaf
    options.last = self.unreset and self.known_deaf
  end
  return options
end

-- Remembers who does not answer SND_NKE but has answered the request, and how.
local function note_deafness(self, telegrams)
  if self.address.digits or #telegrams == 0 then return end
  local is_deaf = self.unreset and self.unreset.kind == "timeout"
  self.link.state.deaf[self.address.a] = is_deaf and telegrams[#telegrams].bytes or nil
end

-- One readout, or its first telegram. What there is comes back also with an error.
local function ask(self, first_only)
  local readout = Readout.new(self.address.text)
  local options = request_options(self)
  options.first_only = first_only
  local err = Target.collect(self.link, self.address, readout, options)
  local telegrams = readout.telegrams
  local answered = #telegrams > 0
  note_deafness(self, telegrams)
  self.fresh, self.acknowledged = false, false
  self.midway = first_only and answered and telegrams[1].more_records_follow
  if not err then return readout end
  lose(self)
  if self.address.digits then
    if err.kind == "timeout" then err.message = "selected, but no answer to REQ_UD2" end
    return readout, err
  end
  return readout, blame(err, not answered and self.unreset)
end

-- Meters that compare the frame count bit first acknowledge a selection without looking at it, and are not selected.
local function may_not_have_looked(self, readout, err)
  return err and self.address.digits and not self.link.settings.select_c and not self.link.broken
    and #readout.telegrams == 0 and (err.kind == "timeout" or err.kind == "mismatch")
end

-- A meter that keeps an earlier choice of records is told to forget it. Some do it and do not acknowledge.
local function reset_application(self)
  local wanted = self.link.settings.application_reset
  if not wanted then return true end
  local data = wanted ~= true and string.char(wanted) or ""
  local ok, err = self:command(0x50, data, { retries = 1 })
  self.fresh = true
  if not ok and err.kind ~= "timeout" then return nil, err end
  return true
end

local function request_data(self, first_only)
  local ok, err = self:restart()
  if ok then ok, err = reset_application(self) end
  if not ok then return Readout.new(self.address.text), err end
  local readout
  readout, err = ask(self, first_only)
  if not may_not_have_looked(self, readout, err) then return readout, err end
  Target.deselect(self.link, false)
  ok = attend(self, 0x73)
  if not ok then return readout, err end
  return ask(self, first_only)
end

---Reads all telegrams.
---@return mbus.Readout readout  what was good, also with an error
---@return mbus.Error? err
function Target:readout() return request_data(self, false) end

---Reads the first telegram, and from now on means the meter that sent it.
---@return mbus.Telegram? telegram  exchange.PLANNED in a dry run
---@return mbus.Error? err
function Target:first()
  local readout, err = request_data(self, true)
  if self.link.plan then return exchange.PLANNED end
  local telegram = readout.telegrams[1]
  if err or not telegram then return nil, err or Error.new("rejected", "the meter sends no telegram", { code = "no_data" }) end
  if self.address.wildcard and telegram.secondary_address then
    self.address = assert(Address.parse(telegram.secondary_address))
  end
  return telegram
end

---Commands the meter. An acknowledgement says that the command has arrived, not that it was obeyed.
---@param ci integer
---@param data? string
---@param options? table  retries
---@return true? ok
---@return mbus.Error? err
function Target:command(ci, data, options)
  local link, a = self.link, self.address.a
  if not self.acknowledged and not self.address.digits and not link:fcb(a) then
    self.acknowledged = select(2, Target.reset(link, a))
    note_late_ack(self)
  end
  self:let_late_ack_come()
  local bytes = request.snd_ud(a, ci, data, link:command_fcb(a))
  local ok, err = exchange.run(link, bytes, judge.ack(a), { strict = self.address.digits ~= nil,
    retries = options and options.retries })
  self.fresh, self.acknowledged = false, ok ~= nil
  note_late_ack(self)
  if ok then
    if self.late_ack then expect_late(link) end
    link:toggle_command_fcb(a)
    return true
  end
  lose(self)
  if err.kind == "timeout" then err.message = "no acknowledgement" end
  return nil, err
end

---Commands all meters. A meter that counts frames ignores a command whose frame count bit is that of its last one, so all
---forget that before.
---@param link mbus.Link
---@param bytes string  SND_UD to 255, with the frame count bit of a first one (C = 73)
---@return true? ok
---@return mbus.Error? err  the line is broken, or does not become quiet
function Target.command_all(link, bytes)
  local ok, err = exchange.broadcast(link, request.snd_nke(Address.BROADCAST))
  if ok then ok, err = exchange.broadcast(link, bytes) end
  link:forget_all_fcb()
  return ok, err
end

---Reads back what a command should have changed, and tells of both together: an acknowledgement that was lost does not
---matter if the change is there.
---@param err? mbus.Error       of the command
---@param found any             what was to be found is there
---@param message string        what to say if it was acknowledged and is not there
---@param read_error? mbus.Error  why it could not be read
---@return any? found
---@return mbus.Error? err
function Target.verdict(err, found, message, read_error)
  if found then return found end
  if err and not read_error then return nil, err end
  if read_error and read_error.kind ~= "timeout" then return nil, read_error end
  return nil, err or Error.new("rejected", message, { code = "unchanged" })
end

---Does work on a meter, and lets go of it however that ends.
---@param link mbus.Link
---@param address mbus.Address
---@param work fun(target: mbus.Target): any, mbus.Error?
---@return any? result
---@return mbus.Error? err
function Target.with(link, address, work)
  local result
  local target, err = Target.open(link, address)
  if target then
    result, err = work(target)
    target:close(err)
  end
  if err then return nil, Error.wrap(err, { address = address.text }) end
  return result
end

---Means another address from now on: the meter has got it.
---@param address mbus.Address
function Target:move(address)
  lose(self)
  self.address = address
end

---Lets go: nobody stays selected.
---@param err? mbus.Error  why it did not go well: then more meters than one may be selected
function Target:close(err)
  local link, address = self.link, self.address
  leave_readout(self)
  if err and not link.plan then lose(self) end
  -- Whoever answered 254 has changed its own frame count.
  if address.a == Address.TEST then link:forget_all_fcb() end
  if not address.digits then return end
  Target.deselect(link, not err and not address.wildcard)
  if err then link.state.deselected = nil end
end

return Target
