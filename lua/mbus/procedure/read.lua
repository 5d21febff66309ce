---Reads a meter: all telegrams of its class 2 data, by primary or secondary address.
---
---    primary    SND_NKE a -> E5, REQ_UD2 a -> RSP_UD, ... until no DIF 1F says that more follows
---    secondary  SND_NKE 253, selection -> E5, REQ_UD2 253 -> RSP_UD, ..., SND_NKE 253
---
---A meter that does not answer SND_NKE is asked nevertheless: some do not.
local Error = require "mbus.error"
local Address = require "mbus.address"
local request = require "mbus.request"
local exchange = require "mbus.procedure.exchange"
local judge = require "mbus.procedure.judge"
local Readout = require "mbus.readout"

-- Bytes behind CI at which the access number stands, which differs in a repeated telegram (EN 13757-3, headers).
local ACCESS_NUMBER = { [0x72] = 9, [0x76] = 9, [0x73] = 5, [0x77] = 5, [0x7A] = 1 }

-- What makes a telegram another one: everything but link layer and access number.
local function content(telegram)
  local payload = telegram.bytes:sub(7, -3)
  local at = ACCESS_NUMBER[telegram.ci]
  return at and payload:sub(1, at) .. payload:sub(at + 2) or payload
end

---Collects telegrams until the last. What was read is in `readout` also when this fails.
---@return mbus.Error? err
local function collect(link, address, readout, options)
  local seen = {}
  local telegrams = readout.telegrams
  repeat
    if #telegrams >= link.settings.max_telegrams then
      return Error.new("limit", ("more than %d telegrams"):format(#telegrams))
    end
    local bytes = request.req_ud2(address.a, link:fcb(address.a))
    local telegram, err = exchange.run(link, bytes, judge.data(address, telegrams[1]), options)
    if not telegram then return err end
    if telegram == judge.END then return nil end
    link:toggle_fcb(address.a)
    local key = content(telegram)
    if seen[key] then
      return Error.new("repeated", ("telegram %d is telegram %d again: the meter ignores the frame count bit")
        :format(#telegrams + 1, seen[key]))
    end
    telegrams[#telegrams + 1] = telegram
    seen[key] = #telegrams
    options = { whole_window = options.whole_window }
  until not telegram.more_records_follow
end

local function must_reset(link, a)
  local nke = link.settings.nke
  if nke == "never" then return false end
  return nke or not link:fcb(a)
end

-- Returns the error of an unanswered SND_NKE, which is only a hint, or nil and whether it was answered.
local function reset(link, a)
  if not must_reset(link, a) then
    if not link:fcb(a) then link:reset_fcb(a) end
    return nil, false
  end
  link:forget_fcb(a)
  local retries = link.state.deaf[a] and 0 or nil
  local _, err = exchange.run(link, request.snd_nke(a), judge.ack(a), { retries = retries })
  link:reset_fcb(a)
  if not err then link:rest() end
  return err, not err
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

local function read_primary(link, address, readout)
  local a = address.a
  local known_deaf = link.state.deaf[a]
  local unreset, acknowledged = reset(link, a)
  if link.broken then return unreset end
  local silent = unreset and unreset.kind == "timeout"
  local options = { impatient = silent and not known_deaf, acknowledged = acknowledged }
  local err = collect(link, address, readout, options)
  local answered = #readout.telegrams > 0
  if answered then link.state.deaf[a] = silent or nil end
  if err then
    link:forget_fcb(a)
    err = blame(err, not answered and unreset)
  end
  -- Whoever answered 254 has changed its own frame count.
  if a == Address.TEST then link:forget_all_fcb() end
  return err
end

-- The meter that was selected may answer with E5 or not. `alone`: no second one can answer later.
local function deselect(link, alone)
  local a = Address.SELECTED
  exchange.run(link, request.snd_nke(a), judge.ack(a), { retries = 0, whole_window = not alone })
  link:forget_fcb(a)
  if not link.broken then link:rest() end
end

local function read_selected(link, address, readout)
  local a = Address.SELECTED
  deselect(link, false)
  local options = { strict = true, whole_window = address.wildcard }
  local _, err = exchange.run(link, request.select(address.digits), judge.ack(a), options)
  if not err then
    link:reset_fcb(a)
    err = collect(link, address, readout, { whole_window = address.wildcard, acknowledged = true })
    if err and err.kind == "timeout" then err.message = "selected, but no answer to REQ_UD2" end
  end
  deselect(link, not err and not address.wildcard)
  -- Some meters have one frame count for both of their addresses.
  local first = readout.telegrams[1]
  if first then link:forget_fcb(first.a) end
  return err
end

---@param link mbus.Link
---@param address mbus.Address
---@return mbus.Readout? readout  with `readout.error` if the tail of a telegram is damaged and records before it are good
---@return mbus.Error? err  `err.readout` holds the telegrams read before
local function run(link, address)
  local readout = Readout.new(address.text)
  local err = (address.digits and read_selected or read_primary)(link, address, readout)
  err = err or #readout == 0 and readout.error or nil
  if not err then return readout end
  if readout.telegrams[1] then err.readout = readout end
  return nil, Error.wrap(err, { address = address.text })
end

---@param level integer  of the caller, for `error`
---@param address integer|string
---@param options? mbus.BusOptions
local function prepare(level, address, options)
  if type(address) ~= "number" and type(address) ~= "string" then
    error("an address is a number or a string, not " .. type(address), level + 1)
  end
  local parsed, err = Address.parse(address)
  if not parsed then return nil, err end
  return options or {}, parsed
end

return { prepare = prepare, run = run }
