---The telnet protocol (RFC 854, 855), byte by byte and without any I/O: data is told from commands, wherever the stream
---is cut. What stays of an unfinished command is bounded, whatever the other side sends.
---
---    local telnet = Telnet.new(on_option, on_subnegotiation)
---    local data = telnet:feed(bytes)
---    send(telnet.escape(data))
local M = {}

local IAC = "\xFF"
local SE, SB = 0xF0, 0xFA
local VERBS = { [0xFB] = "will", [0xFC] = "wont", [0xFD] = "do", [0xFE] = "dont" }
local CODES = { will = "\xFB", wont = "\xFC", ["do"] = "\xFD", dont = "\xFE" }
local LONGEST = 256     -- bytes of a subnegotiation; what is longer is dropped as a whole

---@class mbus.Telnet
---@field commands integer  how many commands have come: none from a port that does not speak telnet
local Telnet = {}
Telnet.__index = Telnet

---@param on_option fun(verb: "will"|"wont"|"do"|"dont", option: integer)
---@param on_subnegotiation fun(option: integer, payload: string)
---@return mbus.Telnet
function M.new(on_option, on_subnegotiation)
  return setmetatable({ state = "data", commands = 0, on_option = on_option, on_subnegotiation = on_subnegotiation }, Telnet)
end

---@param data string
---@return string  with FF doubled
function M.escape(data) return (data:gsub(IAC, IAC .. IAC)) end

---@param verb "will"|"wont"|"do"|"dont"
---@param option integer
---@return string
function M.option(verb, option) return IAC .. CODES[verb] .. string.char(option) end

---@param option integer
---@param payload string
---@return string
function M.subnegotiation(option, payload)
  return IAC .. "\xFA" .. string.char(option) .. M.escape(payload) .. IAC .. "\xF0"
end

-- What each state does with the byte at `at`: the position behind what it has used. `out` takes data.
local states = {}

function states.data(self, bytes, at, out)
  local mark = bytes:find(IAC, at, true)
  out[#out + 1] = bytes:sub(at, (mark or 0) - 1)
  if not mark then return #bytes + 1 end
  self.state = "command"
  return mark + 1
end

function states.command(self, bytes, at, out)
  local byte = bytes:byte(at)
  self.state = "data"
  if byte == 0xFF then
    out[#out + 1] = IAC
    return at + 1
  end
  self.commands = self.commands + 1
  if VERBS[byte] then
    self.state, self.verb = "option", VERBS[byte]
  elseif byte == SB then
    self.state, self.payload, self.size = "inside", {}, 0
  end
  return at + 1
end

function states.option(self, bytes, at)
  self.state = "data"
  self.on_option(self.verb, bytes:byte(at))
  return at + 1
end

local function keep(self, part)
  self.size = self.size + #part
  if self.size > LONGEST then self.payload = {} else self.payload[#self.payload + 1] = part end
end

function states.inside(self, bytes, at)
  local mark = bytes:find(IAC, at, true)
  keep(self, bytes:sub(at, (mark or 0) - 1))
  if not mark then return #bytes + 1 end
  self.state = "inside command"
  return mark + 1
end

states["inside command"] = function(self, bytes, at)
  local byte = bytes:byte(at)
  if byte == 0xFF then
    keep(self, IAC)
    self.state = "inside"
    return at + 1
  end
  local payload = table.concat(self.payload)
  self.payload, self.state = nil, "data"
  -- Any other command ends it, too; then it is not taken for whole.
  if byte ~= SE then return states.command(self, bytes, at) end
  if payload ~= "" and self.size <= LONGEST then self.on_subnegotiation(payload:byte(), payload:sub(2)) end
  return at + 1
end

---@param bytes string
---@return string data  what is left when the commands are taken out
function Telnet:feed(bytes)
  local out, at = {}, 1
  self.out = out
  while at <= #bytes do at = states[self.state](self, bytes, at, out) end
  return table.concat(out)
end

---Called by whoever is told of a command: drops the data before it that `feed` has not returned yet.
function Telnet:discard()
  for i = #self.out, 1, -1 do self.out[i] = nil end
end

return M
