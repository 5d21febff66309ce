---Bytes to a serial port server that speaks RFC 2217, telnet with the COM-PORT option: the line is set from here, so that
---the baud rate can be changed, and the server throws away what waited in it before each request.
---
---Every connection begins with the negotiation. What the server acknowledges is compared with what was asked. A server
---that refuses, a plain telnet server and a plain TCP port are told apart in the error.
local Error = require "mbus.error"
local runtime = require "mbus.runtime"
local tcp = require "mbus.transport.tcp"
local telnet = require "mbus.transport.telnet"

local M = {}

local Tcp = tcp.Tcp

---@class mbus.Rfc2217Transport : mbus.TcpTransport
local Rfc2217 = setmetatable({}, { __index = Tcp })
Rfc2217.__index = Rfc2217
Rfc2217.__close = Tcp.__close

local BINARY, ECHO, SGA, COM_PORT = 0, 1, 3, 44
local SETTLED = { [BINARY] = true, [SGA] = true, [COM_PORT] = true }

-- Commands of the COM-PORT option (RFC 2217, 3); the server answers with 100 more.
local BAUDRATE, DATASIZE, PARITY, STOPSIZE, CONTROL, LINESTATE_MASK, MODEMSTATE_MASK, PURGE = 1, 2, 3, 4, 5, 10, 11, 12
local ANSWER = 100
local NOTIFY_LINESTATE = 6
local PARITIES = { none = 1, odd = 2, even = 3 }
local NO_FLOW_CONTROL, DTR, RTS = 1, 8, 11      -- DTR and RTS on; one more is off
local RECEIVED = 1                              -- what PURGE throws away: the server's receive buffer
local DAMAGE = 0x1E                             -- of the line state: break, framing, parity, overrun

local NAMES = { [BAUDRATE] = "baud rate", [DATASIZE] = "data bits", [PARITY] = "parity", [STOPSIZE] = "stop bits",
  [CONTROL] = "control line" }

-- --- what comes in

-- A server that wants an option of us, or offers one. Each is answered once, so that nobody can keep us busy.
function Rfc2217:on_option(verb, option)
  local about_us = verb == "do" or verb == "dont"
  self.agreed[about_us and "ours" or "theirs"][option] = verb == "do" or verb == "will"
  if SETTLED[option] then return end            -- we have said what we want
  local reply = about_us and "wont" or "dont"
  local key = reply .. option
  if self.told[key] or verb == "dont" or verb == "wont" then return end
  self.told[key] = true
  self:tell(telnet.option(reply, option))
end

function Rfc2217:on_subnegotiation(option, payload)
  if option ~= COM_PORT or payload == "" then return end
  local command, value = payload:byte() - ANSWER, payload:sub(2)
  if command == NOTIFY_LINESTATE then
    if self.line_errors and (value:byte() or 0) & DAMAGE ~= 0 then self.line_errors = self.line_errors + 1 end
    return
  end
  if command == PURGE then
    self.can_purge = true
    if self.purging then        -- what came before was old
      self.telnet:discard()
      self:take()
    end
    self.purging = nil
  end
  local answers = self.answers
  if answers[command] and #answers[command] < 8 then table.insert(answers[command], value) end
end

function Rfc2217:accept(bytes, now)
  local data = self.telnet:feed(bytes)
  -- The answer to a frame cannot have begun before the frame has ended; what comes so early is old.
  if self.purging and runtime.now() < self.purging then data = "" end
  self.purging = self.purging and data == "" and self.purging or nil
  if data ~= "" then Tcp.accept(self, data, now) end
end

-- --- what goes out

-- May be called from within luv's callbacks: a few bytes, of which nobody waits for the end.
function Rfc2217:tell(bytes)
  if self.socket then self.socket:write(bytes) end
end

function Rfc2217:wrap(bytes)
  local frame = telnet.escape(bytes)
  if not self.can_purge then return frame end
  self.purging = runtime.now() + self.path:airtime(#bytes)
  return telnet.subnegotiation(COM_PORT, string.char(PURGE, RECEIVED)) .. frame
end

-- --- negotiation

-- Waits until `done` says so; false when time is up or the connection has ended.
function Rfc2217:await(done, deadline)
  while self.socket and not done() do
    local seconds = deadline - runtime.now()
    if seconds <= 0 then return false end
    self:wait(seconds)
  end
  return self.socket ~= nil
end

function Rfc2217:refuse(kind, ...) return nil, Error.new(kind, string.format(...), { bus = self.name }) end

-- Why the options are not agreed upon.
function Rfc2217:disagreement()
  if not self.socket then return nil, self:turned_away(self:take()) end
  local ours = self.agreed.ours
  if self.telnet.commands == 0 then
    return self:refuse("unsupported", "no telnet answer within %g s: a plain TCP port (tcp://%s:%d), or no port server",
      self.negotiation_timeout, self.host, self.port)
  elseif ours[COM_PORT] == false then
    return self:refuse("unsupported", "the server refuses the COM-PORT option (RFC 2217): a plain telnet port")
  elseif ours[COM_PORT] == nil then
    return self:refuse("unsupported", "the server speaks telnet, but does not answer the COM-PORT option (RFC 2217)")
  end
  return self:refuse("unsupported", "the server refuses binary transmission, without which it changes bytes")
end

function Rfc2217:agree(deadline)
  local ours, theirs = self.agreed.ours, self.agreed.theirs
  self:tell(telnet.option("will", COM_PORT) .. telnet.option("will", BINARY) .. telnet.option("do", BINARY)
    .. telnet.option("will", SGA) .. telnet.option("do", SGA) .. telnet.option("dont", ECHO))
  self.told["dont" .. ECHO] = true
  self:await(function()
    if ours[COM_PORT] == false or ours[BINARY] == false or theirs[BINARY] == false then return true end
    return ours[COM_PORT] and ours[BINARY] and theirs[BINARY]
  end, deadline)
  if self.socket and ours[COM_PORT] and ours[BINARY] and theirs[BINARY] then return true end
  return self:disagreement()
end

-- A setting: command, value on the wire, value for people.
local function baudrate_setting(baudrate) return { BAUDRATE, string.pack(">I4", baudrate), baudrate .. " baud" } end

local function number(command, value) return { command, string.char(value), tostring(value) } end

local function decode(command, value)
  if command == BAUDRATE and #value == 4 then return ("%d baud"):format((string.unpack(">I4", value))) end
  if command == PARITY then
    for name, code in pairs(PARITIES) do
      if value == string.char(code) then return name end
    end
  end
  return #value == 1 and tostring(value:byte()) or "something else"
end

-- Sends settings; every one has to be acknowledged as it was asked for.
function Rfc2217:set(settings, deadline)
  local parts = {}
  self.answers = {}
  for i, setting in ipairs(settings) do
    self.answers[setting[1]] = {}
    parts[i] = telnet.subnegotiation(COM_PORT, string.char(setting[1]) .. setting[2])
  end
  self:tell(table.concat(parts))
  for _, setting in ipairs(settings) do
    local command, value, text = table.unpack(setting)
    local answers = self.answers[command]
    if not self:await(function() return #answers > 0 end, deadline) then
      if not self.socket then return nil, self.lost end
      return self:refuse("timeout", "no answer to the %s within %g s", NAMES[command], self.negotiation_timeout)
    elseif answers[1] ~= value then
      return self:refuse("unsupported", "%s: %s asked for, the server sets %s", NAMES[command], text, decode(command, answers[1]))
    end
  end
  return true
end

-- DTR and RTS: servers without modem lines do not answer, but none may answer the opposite.
function Rfc2217:set_lines()
  local parts = { telnet.subnegotiation(COM_PORT, string.char(CONTROL, NO_FLOW_CONTROL)) }
  for name, code in pairs { dtr = DTR, rts = RTS } do
    local level = self.line[name]
    if type(level) == "boolean" then
      parts[#parts + 1] = telnet.subnegotiation(COM_PORT, string.char(CONTROL, level and code or code + 1))
    end
  end
  parts[#parts + 1] = telnet.subnegotiation(COM_PORT, string.char(LINESTATE_MASK, DAMAGE))
  parts[#parts + 1] = telnet.subnegotiation(COM_PORT, string.char(MODEMSTATE_MASK, 0))
  parts[#parts + 1] = telnet.subnegotiation(COM_PORT, string.char(PURGE, RECEIVED))
  self.answers = { [CONTROL] = {} }
  self:tell(table.concat(parts))
end

function Rfc2217:check_lines()
  for _, value in ipairs(self.answers[CONTROL]) do
    for name, code in pairs { DTR = DTR, RTS = RTS } do
      local level = self.line[name:lower()]
      local opposite = level == true and code + 1 or level == false and code
      if opposite and value == string.char(opposite) then
        return self:refuse("unsupported", "%s: the server does not set it %s", name, level and "on" or "off")
      end
    end
  end
  return true
end

function Rfc2217:configure(deadline)
  local line = self.line
  local parity = { PARITY, string.char(PARITIES[line.parity]), line.parity }
  local ok, err = self:set({ baudrate_setting(self.baudrate), number(DATASIZE, line.databits), parity,
    number(STOPSIZE, line.stopbits) }, deadline)
  if not ok then return nil, err end
  self:set_lines()
  -- The answer to the purge comes last; a server that has none for it has told us nothing of the lines either.
  self:await(function() return self.can_purge end, math.min(deadline, runtime.now() + self.grace))
  if not self.socket then return nil, self.lost end
  return self:check_lines()
end

---In place of waiting for a greeting.
function Rfc2217:greet(deadline)
  deadline = math.min(deadline, runtime.now() + self.negotiation_timeout)
  self.agreed, self.told, self.answers = { ours = {}, theirs = {} }, {}, {}
  self.can_purge, self.purging, self.line_errors = nil, nil, nil
  self.telnet = telnet.new(function(...) self:on_option(...) end, function(...) self:on_subnegotiation(...) end)
  local ok, err = self:agree(deadline)
  if ok then ok, err = self:configure(deadline) end
  self:take()
  self.line_errors = 0
  return ok, err
end

-- --- what a transport does

---@param seconds number   how long to wait for the first byte; 0 only looks
---@return string? bytes   "" when nothing came
---@return integer|mbus.Error|nil line_errors  damaged characters and breaks that the server has told of
function Rfc2217:read(seconds)
  local deadline = runtime.now() + seconds
  self.woken = nil
  local bytes, err = Tcp.read(self, seconds)
  -- A command has ended the wait.
  while bytes == "" and self.size == 0 and not self.woken and runtime.now() < deadline do
    bytes, err = Tcp.read(self, deadline - runtime.now())
  end
  if not bytes then return nil, err end
  local errors = self.line_errors
  self.line_errors = 0
  return bytes, errors
end

-- What the line errors belong to is thrown away with them.
function Rfc2217:drain()
  local bytes, err = Tcp.drain(self)
  self.line_errors = 0
  return bytes, err
end

function Rfc2217:wake()
  self.woken = true
  Tcp.wake(self)
end

---Changes the speed of the line behind the server. If that fails, the next connection sets the old one, unless the server
---says that it still has it.
---@param baudrate integer
---@return boolean? ok
---@return mbus.Error? err  unsupported: the server cannot; timeout closed refused
function Rfc2217:set_baudrate(baudrate)
  if self.closed then return nil, self.lost end
  if self.socket then -- else the next connection begins with it
    local ok, err = self:set({ baudrate_setting(baudrate) }, runtime.now() + self.negotiation_timeout)
    if not ok then
      local kept = self.answers[BAUDRATE][1] == baudrate_setting(self.baudrate)[2]
      if self.socket and not kept then self:disconnect(err) end
      return nil, err
    end
  end
  self.baudrate, self.path.baudrate = baudrate, baudrate
  return true
end

---@param parsed mbus.Url
---@param options table  checked by mbus.transport
---@return mbus.Rfc2217Transport? transport
---@return mbus.Error? err  refused unknown_host timeout busy unsupported io
function M.open(parsed, options)
  local self = tcp.new(Rfc2217, parsed, options)
  self.line = { parity = options.parity or "even", databits = options.databits or 8, stopbits = options.stopbits or 1,
    rts = options.rts, dtr = options.dtr }
  self.negotiation_timeout = (options.negotiation_timeout or 3) * (options.delay_ratio or 1)
  self.grace = math.min(1, self.negotiation_timeout / 2)
  return tcp.start(self)
end

return M
