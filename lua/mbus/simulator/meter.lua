---One slave: link layer and network layer of EN 13757-2 and -7 as a meter sees them. Sans I/O: frames in, answers out.
local core = require "mbus.core"
local faults = require "mbus.simulator.faults"
local Values = require "mbus.simulator.values"

local OWN_ALSO, SELECTED, BROADCAST = 254, 253, 255
local FCB, FCV, PRIMARY = 0x20, 0x10, 0x40 -- bits of the C field; PRIMARY: from the master

local BAUDRATES = { [0xB8] = 300, [0xB9] = 600, [0xBA] = 1200, [0xBB] = 2400, [0xBC] = 4800, [0xBD] = 9600, [0xBE] = 19200,
  [0xBF] = 38400 }
local USUAL_RATES = { 300, 600, 1200, 2400, 4800, 9600 }

---@class mbus.simulator.Meter
---@field address integer    primary address
---@field id string          8 hex digits
---@field identity string    8 bytes: id, manufacturer, version, medium, as in a header
---@field baudrate integer
---@field selected boolean   by a secondary address
---@field writes string[]    records that were written to it, as hex, oldest first
---@field answered integer   number of answers given
---@field values mbus.simulator.Values  what was written, the clock, and which records it is to send
---@field synchronized integer  number of synchronize actions
---@field application integer?  subcode of the last application reset, nil if it had none
local Meter = {}
Meter.__index = Meter

-- What a meter remembers of one link address: the last FCB of requests and of commands, the telegram of the readout it
-- is at, and the answer, to repeat it.
local function link_state() return { request = nil, command = nil, position = 0, answer = nil } end

---@param description table  one of the meters of an mbus.simulator.Description
---@param options table      baudrate (of the bus), random (mbus.simulator.Random)
---@return mbus.simulator.Meter
function Meter.new(description, options)
  local self = setmetatable({
    description = description,
    random = options.random,
    address = description.address,
    id = description.id,
    identity = ("<I4I2BB"):pack(tonumber(description.id, 16), description.manufacturer, description.version,
      description.medium),
    baudrate = description.baudrate or options.baudrate,
    access_no = description.access_no or 0,
    selected = false,
    normalised = not description.needs_nke,
    writes = {},
    values = Values.new(),
    synchronized = 0,
    now = 0,
    answered = 0,
    faults = {},
  }, Meter)
  self.own = link_state()
  self.other = description.shared_fcb and self.own or link_state()
  return self
end

local function clear(state) state.request, state.command, state.position, state.answer = nil, nil, 0, nil end

-- ------------------------------------------------------------------ answers

local function acknowledge(self) return self.description.short_ack and core.short(0x00, self.address) or core.ACK end

-- Of CI 72, counting on.
local function next_header(self)
  local header = self.identity .. string.char(self.access_no, self.description.status or 0, 0, 0)
  self.access_no = (self.access_no + 1) & 0xFF
  return header
end

local function from_records(self, telegram, more)
  local tail = more and "\x1F" or telegram.manufacturer and "\x0F" or ""
  return 0x08, 0x72, next_header(self) .. telegram.records .. tail .. (telegram.manufacturer or "")
end

-- A header of fixed data changes with the identity only when that was written.
local function from_data(self, telegram)
  local data, ci = telegram.data, telegram.ci or 0x72
  if self.renamed and ci == 0x72 and #data >= 8 then data = self.identity .. data:sub(9) end
  return telegram.c or 0x08, ci, data
end

local function parts_of(self, position)
  local telegrams = self.description.telegrams
  local telegram = telegrams[position]
  if telegram.data then return from_data(self, telegram) end
  return from_records(self, telegram, position < #telegrams)
end

local function most_significant_first(data)
  return data:sub(1, 4):reverse() .. data:sub(5, 6):reverse() .. data:sub(7)
end

-- One telegram with the records that were asked for, of all that the meter has.
local function selected_bytes(self)
  local is_mode2 = self.description.telegrams[1].ci == 0x76
  local ci, parts = is_mode2 and 0x76 or 0x72, { next_header(self) }
  if is_mode2 then parts[1] = most_significant_first(parts[1]) end
  for _, telegram in ipairs(self.description.telegrams) do
    if telegram.records then
      parts[#parts + 1] = self.values:chosen(0x78, telegram.records)
    elseif telegram.data then
      parts[#parts + 1] = self.values:chosen(telegram.ci or 0x72, telegram.data)
    end
  end
  return core.long(0x08, self.address, ci, self.values:patch(ci, table.concat(parts):sub(1, 252), self.now))
end

local function telegram_bytes(self, position)
  if self.values.selection then return selected_bytes(self) end
  local frame = self.description.telegrams[position].frame
  if frame then return frame end
  local c, ci, data = parts_of(self, position)
  return core.long(c, self.address, ci, self.values:patch(ci, data, self.now))
end

-- How many telegrams a readout has.
local function telegram_count(self)
  local count = #self.description.telegrams
  return self.values.selection and math.min(count, 1) or count
end

-- ------------------------------------------------------------------ requests

local function has_toggled(last, c) return last ~= c & FCB end

-- REQ_UD2: an unchanged FCB asks for the last telegram once more, a toggled one for the next, wrapping to the first.
local function request_data(self, state, frame)
  local count = telegram_count(self)
  if count == 0 then return acknowledge(self) end
  local counts = frame.c & FCV ~= 0
  if counts and state.request and not has_toggled(state.request, frame.c) then
    state.answer = state.answer or telegram_bytes(self, math.min(state.position, count))
    return state.answer
  end
  if self.description.needs_nke and state.position == count then self.normalised = false end
  if not self.normalised then
    clear(state)
    return nil
  end
  local first = not counts or state.request == nil or self.description.ignores_fcb
  state.position = first and 1 or state.position % count + 1
  state.request = counts and frame.c & FCB or nil
  state.answer = telegram_bytes(self, state.position)
  return state.answer
end

-- REQ_UD1: alarms.
local function request_alarm(self)
  local alarm = self.description.alarm
  if not alarm then return acknowledge(self) end
  return core.long(0x08, self.address, 0x71, string.char(alarm))
end

local function normalise(self, state, frame)
  if self.description.ignores_nke then return nil end
  clear(state)
  self.normalised = true
  if frame.a == BROADCAST then clear(self.other) end
  if frame.a == SELECTED then self.selected = false end
  return acknowledge(self)
end

-- ------------------------------------------------------------------ selection

local function digits_match(mask, own)
  for i = 1, #own do
    local digit = mask:sub(i, i)
    if digit ~= "F" and digit ~= own:sub(i, i) then return false end
  end
  return true
end

local function byte_matches(mask, own) return mask == 0xFF or mask == own end

local function id_text(bytes) return ("%08X"):format((("<I4"):unpack(bytes))) end

-- Nibble F is any digit of the id, byte FF any byte of the rest (EN 13757-7).
local function address_matches(self, mask)
  if not digits_match(id_text(mask), self.id) then return false end
  for i = 5, 8 do
    if not byte_matches(mask:byte(i), self.identity:byte(i)) then return false end
  end
  return true
end

-- Enhanced selection: after the eight bytes a record with the fabrication number. Who does not know it does not match.
local function extension_matches(self, extension)
  if extension == "" then return true end
  local fabrication = self.description.fabrication
  if not fabrication or #extension ~= 6 or extension:sub(1, 2) ~= "\x0C\x78" then return false end
  return digits_match(id_text(extension:sub(3)), fabrication)
end

local function selection_matches(self, frame)
  local data, wanted_ci = frame.data, 0x52
  if self.description.mode2 then data, wanted_ci = most_significant_first(data), 0x56 end
  return frame.ci == wanted_ci and #data >= 8 and address_matches(self, data:sub(1, 8))
    and extension_matches(self, data:sub(9))
end

local function is_selection(frame) return frame.a == SELECTED and (frame.ci == 0x52 or frame.ci == 0x56) end

local function try_selection(self, frame)
  local counts = self.description.fcb_before_selection and frame.c & FCV ~= 0
  if counts and self.other.command and not has_toggled(self.other.command, frame.c) then return acknowledge(self) end
  self.selected = selection_matches(self, frame)
  if not self.selected then return nil end
  clear(self.other)
  if counts then self.other.command = frame.c & FCB end
  self.normalised = true
  return acknowledge(self)
end

-- ------------------------------------------------------------------ commands

local function is_decimal(text) return text:find("^%d+$") ~= nil end

-- An answer made before is not repeated after a change of who answers.
local function forget_answers(self) self.own.answer, self.other.answer = nil, nil end

local function set_address(self, address)
  if address > 250 then return end
  self.address = address
  forget_answers(self)
end

local function set_identity(self, identity)
  if not is_decimal(id_text(identity)) then return end
  self.identity, self.id, self.renamed = identity, id_text(identity), true
  forget_answers(self)
end

-- The records that a slave has to understand: primary address and identification (EN 13757-3).
local function set_addresses(self, data)
  if data:sub(1, 2) == "\x01\x7A" and #data >= 3 then
    set_address(self, data:byte(3))
    return set_addresses(self, data:sub(4))
  elseif data:sub(1, 2) == "\x0C\x79" and #data >= 6 then
    set_identity(self, data:sub(3, 6) .. self.identity:sub(5))
    return set_addresses(self, data:sub(7))
  elseif data:sub(1, 2) == "\x07\x79" and #data >= 10 then
    set_identity(self, data:sub(3, 10))
    return set_addresses(self, data:sub(11))
  end
  return data
end

local function write(self, data)
  local rest = set_addresses(self, data)
  if rest == "" then return end
  self.writes[#self.writes + 1] = core.hex(rest)
  self.values:write(rest, self.now)
  forget_answers(self)
end

local function reset_application(self, data)
  self.application = data:byte(1)
  self.values:unselect()
  clear(self.own)
  clear(self.other)
end

-- The acknowledgement goes out at the old rate; a rate that it cannot do is acknowledged and ignored.
local function switch_baudrate(self, baudrate, time)
  for _, possible in ipairs(self.description.baudrates or USUAL_RATES) do
    if possible == baudrate and baudrate ~= self.baudrate then
      self.fallback = { baudrate = self.baudrate, time = time + (self.description.fallback or 120) }
      self.baudrate = baudrate
    end
  end
end

local function execute(self, frame, time)
  if frame.ci == 0x50 then
    reset_application(self, frame.data)
  elseif frame.ci == 0x51 then
    write(self, frame.data)
  elseif frame.ci == 0x5C or frame.ci == 0x54 then
    self.synchronized = self.synchronized + 1
  elseif BAUDRATES[frame.ci] then
    switch_baudrate(self, BAUDRATES[frame.ci], time)
  end
end

-- SND_UD: a command with an unchanged FCB was done already and is only acknowledged again. E5 confirms reception, not
-- that the command was understood.
local function command(self, state, frame, time)
  if is_selection(frame) then return try_selection(self, frame) end
  local answer = acknowledge(self) -- from the old address
  local counts = frame.c & FCV ~= 0
  if counts and not has_toggled(state.command, frame.c) then return answer end
  execute(self, frame, time)
  if counts then state.command = frame.c & FCB end
  return answer
end

-- ------------------------------------------------------------------ link

local function is_addressed(self, frame)
  if frame.a == SELECTED then return self.selected or is_selection(frame) end
  return frame.a == self.address or frame.a == OWN_ALSO or frame.a == BROADCAST
end

local function answer_to(self, frame, time)
  local state = frame.a == SELECTED and self.other or self.own
  local code = frame.c & ~(FCB | FCV)
  if frame.type == "short" then
    if frame.c == 0x40 then return normalise(self, state, frame) end
    if code == PRIMARY | 0x0B then return request_data(self, state, frame) end
    if code == PRIMARY | 0x0A then return request_alarm(self) end
  elseif code == PRIMARY | 0x03 then
    return command(self, state, frame, time)
  end
  return nil
end

-- Seconds from the end of the request to the answer: 11 bits to 330 bits + 50 ms (EN 13757-2).
local function delay(self, baudrate)
  local least, window = 11 / baudrate, 330 / baudrate + 0.05
  local description = self.description
  if description.late then return window + description.late end
  local wanted = description.delay
  if type(wanted) == "number" then return wanted end
  if wanted then return self.random:between(wanted[1], wanted[2]) end
  local most = math.min(0.06, window)
  return self.random:between(math.min(math.max(0.03, least), most), most)
end

local function fall_back(self, time)
  if self.fallback and time >= self.fallback.time then
    self.baudrate, self.fallback = self.fallback.baudrate, nil
  end
end

local function may_answer(self, frame)
  local limit = self.description.silent_after
  return frame.a ~= BROADCAST and not self.description.deaf and not (limit and self.answered >= limit)
end

---A whole frame has come over the wire.
---@param frame table      as core.frame gives it
---@param time number      seconds, when its last stop bit ended
---@param baudrate number  at which it was sent
---@return table? answer   { bytes, delay (seconds after `time`), baudrate, gap (seconds between characters)?, bit_flips? }
function Meter:receive(frame, time, baudrate)
  fall_back(self, time)
  self.now = time
  if baudrate ~= self.baudrate or frame.type == "ack" then return nil end
  self.fallback = nil -- a valid frame at the new rate: the switch has come off
  if not is_addressed(self, frame) then return nil end
  local bytes = answer_to(self, frame, time)
  if not bytes or not may_answer(self, frame) then return nil end
  local options
  bytes, options = faults.apply(self.description.faults or {}, self.faults, bytes, self.random)
  if not bytes then return nil end
  self.answered = self.answered + 1
  options = options or {}
  return { bytes = bytes, delay = delay(self, baudrate), baudrate = baudrate, gap = options.gap,
    bit_flips = options.bit_flips }
end

---A babbling meter talks without being asked: from time to time it puts its first telegram on the line.
---@param after number  seconds
---@return number? time  of the next time
function Meter:next_babble(after)
  local description = self.description
  local every = description.babbles
  if not every then return nil end
  local time = (after // every + 1) * every
  if time <= after then time = time + every end -- by rounding
  return time <= (description.babbles_until or math.huge) and time or nil
end

---@return string bytes  what it says then
function Meter:babble() return self.description.telegrams[1] and telegram_bytes(self, 1) or core.ACK end

return Meter
