---Judges of answers, for exchange.run: is this frame the answer, and what does it say?
local decode = require("mbus.decode").telegram
local Error = require "mbus.error"
local Address = require "mbus.address"

local M = {}

local MASTER = 0x40 -- PRM: the frame comes from a master, it is our echo or somebody else's request
local RSP_UD, RSP_UD_MASK = 0x08, 0xCF -- ACD and DFC may be set
local ACK, NACK, NO_DATA = 0x00, 0x01, 0x09 -- functions of a short frame from a meter
---Instead of a telegram: the meter has no further one.
M.END = {}

local function answers_for(a, frame)
  return a == Address.SELECTED or a == Address.TEST or a == frame.a
end

local function from_other(a, frame)
  return Error.new("mismatch", ("answer from address %d instead of %d"):format(frame.a, a))
end

local function nack() return Error.new("rejected", "the meter refuses (NACK)", { code = "nack" }) end

local function no_data() return Error.new("rejected", "the meter answers, but sends no data", { code = "no_data" }) end

---Acknowledged by E5, or by a short frame as some meters do.
---@param a integer  A field of the request
---@return fun(frame: table): "take"|"pass", any, mbus.Error?
function M.ack(a)
  return function(frame)
    if frame.type == "ack" then return "take", true end
    if frame.c & MASTER ~= 0 then return "pass" end
    if not answers_for(a, frame) then return "pass", from_other(a, frame) end
    if frame.type ~= "short" then
      return "pass", Error.new("mismatch", "a late answer instead of an acknowledgement")
    end
    local code = frame.c & 0x0F
    if code == NACK then return "take", nil, nack() end
    if code == ACK or code == NO_DATA then return "take", true end
    return "pass"
  end
end

-- Fails where a telegram says of itself that it is another meter's; many short telegrams say nothing.
local function check_identity(telegram, address, first)
  local found = address.digits and (telegram.secondary_address or telegram.id and telegram.id .. address.digits:sub(9))
  if found and not Address.matches(address.digits, found) then
    return Error.new("mismatch", ("answer of meter %s instead of %s"):format(found, address.digits))
  end
  if first and first.id and telegram.id and first.id ~= telegram.id then
    return Error.new("mismatch", ("telegram of meter %s among those of %s"):format(telegram.id, first.id))
  end
end

local function application_error(telegram)
  local said = telegram.application_error
  return Error.new("rejected", ("the meter reports: %s"):format(said.name or "error"), { code = said.name })
end

local function judge_short(frame, may_end)
  local code = frame.c & 0x0F
  if code == NACK then return "take", nil, nack() end
  if code ~= ACK and code ~= NO_DATA then return "pass" end
  if may_end then return "take", M.END end
  return "take", nil, no_data()
end

-- A short header leaves the address to us, which an encrypted telegram needs to be read.
local function known_address(address, first)
  return first and first.secondary_address or not address.wildcard and address.digits or nil
end

local function judge_telegram(frame, address, first, options)
  options.address = known_address(address, first)
  local telegram, err = decode(frame.bytes, options)
  -- Records beside an error may be ciphertext. Behind a bad MAC not even the header is to be believed.
  if not telegram or err and (#telegram > 0 or err.code == "bad_mac") then return "take", nil, Error.wrap(err) end
  err = check_identity(telegram, address, first)
  if err then return "pass", err end
  if telegram.application_error then return "take", nil, application_error(telegram) end
  return "take", telegram
end

---User data of a meter, or the end of it.
---@param address mbus.Address
---@param first? mbus.Telegram  of the same readout
---@param options? mbus.DecodeOptions
---@return fun(frame: table): "take"|"perhaps"|"pass", any, mbus.Error?
function M.data(address, first, options)
  return function(frame)
    if frame.type == "ack" then
      if first then return "perhaps", M.END end -- or the late acknowledgement of another meter
      return "pass", no_data() -- or the late answer to SND_NKE: the telegram may still come
    end
    if frame.c & MASTER ~= 0 then return "pass" end
    if not answers_for(address.a, frame) then return "pass", from_other(address.a, frame) end
    if frame.type == "short" then return judge_short(frame, first ~= nil) end
    if frame.c & RSP_UD_MASK ~= RSP_UD then
      return "pass", Error.new("mismatch", ("answer with C field %02X is no user data"):format(frame.c))
    end
    return judge_telegram(frame, address, first, options or {})
  end
end

return M
