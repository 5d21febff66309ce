---Asks one primary address after another: SND_NKE, then REQ_UD2 to whoever acknowledges it.
---
---The first round tells of those who prove themselves at once. Whatever else was heard may have been the late answer of an
---address that was asked before: that is decided in a second round, when the line has rested, and with a longer window.
local Error = require "mbus.error"
local request = require "mbus.request"
local ear = require "mbus.procedure.scan.ear"

local M = {}

local PATIENCE = 1.5 -- seconds that are added to the window in the second round (adapters and gateways)
local RECENT = 3 -- addresses that a late answer may belong to

local function doubt(scan, address)
  local doubtful = scan.state.doubtful
  for _, known in ipairs(doubtful) do
    if known == address then return end
  end
  table.insert(doubtful, address)
end

local function doubt_all(scan, addresses)
  for _, address in ipairs(addresses) do doubt(scan, address) end
end

-- Was somebody found there, at this line speed?
local function is_told(scan, address)
  for _, meter in ipairs(scan.state.found) do
    if meter.address == address and meter.baudrate == scan.link.settings.baudrate then return true end
  end
  return false
end

-- The last addresses before this one that seemed to be silent: late answers are theirs.
local function silent_before(scan, address)
  local addresses, place, list = scan.options.addresses, 1, {}
  while place <= #addresses and addresses[place] ~= address do place = place + 1 end
  for i = place - 1, 1, -1 do
    if #list == RECENT then break end
    if not is_told(scan, addresses[i]) then list[#list + 1] = addresses[i] end
  end
  return list
end

local function is_silent_before(scan, other, address)
  for _, known in ipairs(silent_before(scan, address)) do
    if known == other then return true end
  end
  return false
end

local function note_late(scan, address)
  scan:late()
  doubt_all(scan, silent_before(scan, address))
end

-- What does not come again was noise or a late answer; the latter for sure, if more whole answers were heard than the `own`
-- one of this address.
local function note_unconfirmed(scan, address, answers, own)
  if answers > own then scan:late() end
  doubt_all(scan, silent_before(scan, address))
end

local function ask(scan, address, bytes, is_data)
  local heard = scan:ask(bytes, is_data)
  if heard.overdue then scan:late() end
  if heard.stray then doubt_all(scan, silent_before(scan, address)) end
  return heard
end

-- A converter may put a 00 beside every answer: the telegram decides.
local function ask_data(scan, address)
  local heard = ask(scan, address, request.req_ud2(address, 1), true)
  local verdict, telegram = ear.data(heard, function(answer) return answer.a == address end, true)
  return verdict, telegram, heard
end

local function tell_meter(scan, address, telegram)
  scan.link:answered()
  scan.link:forget_fcb(address)
  scan:tell(scan:meter(address, telegram))
end

--- The first round -----------------------------------------------------------------------------------------------

-- Each returns what was seen: "silent", "good", or something odd.

local function look_for_data(scan, address)
  local verdict, telegram, heard = ask_data(scan, address)
  if verdict == "good" then tell_meter(scan, address, telegram) end
  if verdict == "other" and is_silent_before(scan, telegram and telegram.a, address) then verdict = "stale" end
  return verdict, heard
end

local function look_for_acknowledgement(scan, address)
  local heard = ask(scan, address, request.snd_nke(address))
  local class = ear.class(heard, true)
  if class ~= "one" then return class, heard end
  local verdict, data = look_for_data(scan, address)
  if verdict == "silent" then return "mute", heard end
  return verdict, data
end

local LOOKS = {
  nke = { look_for_acknowledgement },
  req = { look_for_data },
  both = { look_for_acknowledgement, look_for_data },
}

local function look_once(scan, address)
  local seen, heard
  for _, look in ipairs(LOOKS[scan.options.probe]) do
    seen, heard = look(scan, address)
    if seen ~= "silent" then break end
  end
  return seen, heard
end

local function look(scan, address)
  local seen, heard
  for _ = 0, scan.options.retries or 0 do
    seen, heard = look_once(scan, address)
    if seen ~= "silent" then break end
  end
  if seen == "silent" or seen == "good" then return end
  scan.odd[address] = { seen = seen, answers = ear.answers(heard) }
  doubt(scan, address)
  if seen == "stale" then note_late(scan, address) end
end

--- The second round ----------------------------------------------------------------------------------------------

-- Each returns what the address is: "silent", "good", "collision", or which data a single meter lacks.

-- A longer window catches more noise, which is no collision. It could be one of meters that are late.
local function is_noise(scan, heard)
  if heard.within > 0 or ear.answers(heard) > 0 or #heard.events == 0 then return false end
  scan:remark("noise came after the answer window: it may be meters at one address that answer late")
  return true
end

-- Repeats what was answered by something that does not belong here.
local function class_of(scan, address)
  local heard
  for _ = 1, 3 do
    heard = ask(scan, address, request.snd_nke(address))
    local class = is_noise(scan, heard) and "silent" or ear.class(heard)
    if class ~= "stale" then return class, heard end
    note_late(scan, address)
  end
  return "many", heard
end

-- Noise does not come again, a collision does.
local function class_again(scan, address)
  local class = class_of(scan, address)
  if class == "silent" then class = class_of(scan, address) end
  return class
end

local function tell_collision(scan, address)
  scan:tell { address = address, collision = true }
  return "collision"
end

local REASONS = {
  mute = { "timeout", "acknowledges, and sends no data" },
  none = { "rejected", "acknowledges, and sends no data" },
  other = { "mismatch", "answers with another address" },
}

local function tell_mute(scan, address, verdict)
  local kind, message = table.unpack(REASONS[verdict])
  scan:tell { address = address, primary_address = address, error = Error.new(kind, message, { address = address }) }
  return verdict
end

-- Asks for data until the answer is clear. `others` are answers by their verdicts, which have to prove true.
local function demand(scan, address, others)
  local counts = {}
  local verdict, telegram, heard
  repeat
    verdict, telegram, heard = ask_data(scan, address)
    if verdict == "bad" or verdict == "silent" then scan:let_finish(heard) end
    counts[verdict], others[verdict] = (counts[verdict] or 0) + 1, heard
  until verdict == "good" or counts[verdict] == 2
  others[verdict], others.silent = nil, nil
  for other, what in pairs(others) do
    note_unconfirmed(scan, address, ear.answers(what), other == "bad" and verdict ~= "silent" and 1 or 0)
  end
  return verdict, telegram
end

-- Somebody is there: who, and is he alone? Tells of him if he has data, or of several.
local function verify(scan, address, others)
  local verdict, telegram = demand(scan, address, others)
  scan.link:forget_fcb(address)
  if verdict == "good" then tell_meter(scan, address, telegram) end
  return verdict == "bad" and tell_collision(scan, address) or verdict
end

local function verify_acknowledged(scan, address)
  local verdict = verify(scan, address, {})
  if verdict == "good" or verdict == "collision" then return verdict end
  if class_again(scan, address) ~= "silent" then return tell_mute(scan, address, verdict == "silent" and "mute" or verdict) end
  note_late(scan, address) -- the acknowledgement was that of another one
  return "silent"
end

-- Several, or noise, or a late answer beside that of this address.
local function disentangle(scan, address, heard)
  local class = class_again(scan, address)
  if class ~= "many" then note_unconfirmed(scan, address, ear.answers(heard), class == "one" and 1 or 0) end
  if class == "one" or class == "many" and ear.class(heard, true) == "one" then return verify_acknowledged(scan, address) end
  return class == "many" and tell_collision(scan, address) or class
end

local function by_acknowledgement(scan, address)
  local class, heard = class_of(scan, address)
  if class == "many" then return disentangle(scan, address, heard) end
  return class == "one" and verify_acknowledged(scan, address) or class
end

local function by_data(scan, address)
  local verdict, telegram, heard = ask_data(scan, address)
  if verdict == "silent" or is_noise(scan, heard) then return "silent" end
  if verdict == "good" then
    tell_meter(scan, address, telegram)
    return verdict
  end
  local odd = scan.odd[address]
  local is_again = verdict == "bad" and odd and odd.seen == "bad"
  verdict = verify(scan, address, { [verdict] = heard })
  if verdict == "silent" and is_again then
    scan:remark(("what address %d answers is spoilt, or does not come: it may be several meters"):format(address))
  end
  return REASONS[verdict] and tell_mute(scan, address, verdict) or verdict
end

local PROBES = { nke = { by_acknowledgement }, req = { by_data }, both = { by_acknowledgement, by_data } }

-- Where something was heard, silence is asked for once more: of a collision it may be what a gateway passes on.
local function visit(scan, address)
  local odd = scan.odd[address]
  local times = 1 + (scan.options.retries or 0) + (odd and odd.seen and 1 or 0)
  for _ = 1, times do
    for _, probe in ipairs(PROBES[scan.options.probe]) do
      local is = probe(scan, address)
      if is ~= "silent" then return is end
    end
  end
  return "silent"
end

-- Is this what was seen in the first round? If not, that was noise, or a late answer.
local function compare(scan, address, is)
  local odd = scan.odd[address]
  if not odd or odd.seen == is or is == "collision" and (odd.seen == "many" or odd.seen == "bad") then return end
  note_unconfirmed(scan, address, odd.answers, is == "silent" and 0 or 1)
end

-- Long windows that it takes to decide about an address, roughly.
local function windows_for(scan, address) return scan.odd[address] and 3 or 1 end

-- By the time that both rounds take. What becomes doubtful adds to it.
local function progress(scan, asked, current)
  local settings, left = scan.link.settings, 0
  for _, address in ipairs(scan.state.doubtful) do left = left + windows_for(scan, address) end
  local short = 55 / settings.baudrate + settings.timeout -- seconds of an address where nobody is
  local long = short + PATIENCE
  local done = asked * short + scan.decided * long
  scan.fraction = math.max(scan.fraction, done / (#scan.options.addresses * short + (scan.decided + left) * long))
  scan:progress(scan.fraction, current)
end

-- Asks each once, however much else is heard.
local function visit_doubtful(scan)
  local addresses, asked, link, late_by = scan.state.doubtful, {}, scan.link, scan.late_by
  if #addresses == 0 then return end
  scan.late_by = math.max(late_by, PATIENCE)
  link:sleep(link:now() + PATIENCE)
  while #addresses > 0 do
    local address = addresses[1]
    if not asked[address] then
      progress(scan, #scan.options.addresses, address)
      compare(scan, address, is_told(scan, address) and "good" or visit(scan, address))
      scan.decided = scan.decided + windows_for(scan, address)
    end
    asked[address] = true
    table.remove(addresses, 1)
    scan:save()
  end
  if scan.late_answers == 0 then scan.late_by = late_by end
end

-- Nobody was asked before, and this address is asked once: what is heard there is not late.
local function is_first(scan)
  local options = scan.options
  return scan.requests == 0 and not scan.state.next and (options.retries or 0) == 0 and options.probe ~= "both"
end

---@param scan mbus.scan.Scan
function M.run(scan)
  local addresses, state = scan.options.addresses, scan.state
  scan.odd, scan.decided, scan.fraction = {}, 0, 0
  for _, address in ipairs(state.doubtful) do scan.odd[address] = { answers = 0 } end
  -- Answers of those asked shortly before an interruption may have been late, and nobody has heard them.
  for i = math.max(1, (state.next or 1) - RECENT), #addresses do
    if scan:has_enough() then break end
    progress(scan, i - 1, addresses[i])
    if not is_told(scan, addresses[i]) then (is_first(scan) and visit or look)(scan, addresses[i]) end
    state.next = math.max(state.next or 1, i + 1)
    scan:save()
  end
  visit_doubtful(scan)
  scan:progress(1, addresses[#addresses])
end

---Nobody was selected: there is nothing to put in order.
function M.leave() end

return M
