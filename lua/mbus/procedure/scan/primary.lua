---Asks one primary address after another: SND_NKE, then REQ_UD2 to whoever acknowledges it.
local Error = require "mbus.error"
local request = require "mbus.request"
local ear = require "mbus.procedure.scan.ear"

local M = {}

local PATIENCE = 1.5 -- seconds that are added to the window where late answers were heard (adapters and gateways)
local RECENT = 3 -- addresses that a late answer may belong to

local function doubt(scan, address)
  local doubtful = scan.state.doubtful
  for _, known in ipairs(doubtful) do
    if known == address then return end
  end
  table.insert(doubtful, address)
end

-- Late answers belong to one of the addresses asked before, if that seemed to be silent.
local function note_late(scan, run)
  scan:late()
  for _, address in ipairs(run.recent) do doubt(scan, address) end
end

local function note_silent(run, address)
  table.insert(run.recent, 1, address)
  run.recent[RECENT + 1] = nil
end

-- Repeats what was answered by something that does not belong here.
local function class_of(scan, run, bytes)
  local heard
  for _ = 1, 3 do
    heard = scan:ask(bytes)
    local class = ear.class(heard)
    if class ~= "stale" then return class, heard end
    note_late(scan, run)
  end
  return "many", heard
end

-- Noise does not come again, a collision does.
local function class_again(scan, run, bytes)
  local class = class_of(scan, run, bytes)
  if class == "silent" then class = class_of(scan, run, bytes) end
  return class
end

local function tell_collision(scan, address) scan:tell { address = address, collision = true } end

local function tell_mute(scan, address, kind, message)
  scan:tell { address = address, primary_address = address,
    error = Error.new(kind, message, { address = address }) }
end

local REASONS = {
  silent = { "timeout", "acknowledges, and sends no data" },
  none = { "rejected", "acknowledges, and sends no data" },
  other = { "mismatch", "answers with another address" },
}

-- Asks for data until the answer is clear.
local function demand(scan, address, lenient)
  local counts, telegram, verdict = {}
  repeat
    local heard = scan:ask(request.req_ud2(address, 1), true)
    verdict, telegram = ear.data(heard, function(answer) return answer.a == address end, lenient)
    if verdict == "bad" or verdict == "silent" then scan:let_finish(heard) end
    counts[verdict] = (counts[verdict] or 0) + 1
  until verdict == "good" or counts[verdict] == 2
  return verdict, telegram
end

-- Somebody is there: who, and is he alone?
local function verify(scan, run, address, lenient)
  local verdict, telegram = demand(scan, address, lenient)
  scan.link:forget_fcb(address)
  if verdict == "good" then
    scan.link:answered()
    scan:tell(scan:meter(address, telegram))
  elseif verdict == "bad" then
    tell_collision(scan, address)
  elseif scan.options.probe ~= "req" and class_again(scan, run, request.snd_nke(address)) == "silent" then
    note_late(scan, run) -- the acknowledgement was that of another one
    doubt(scan, address)
  else
    tell_mute(scan, address, table.unpack(REASONS[verdict]))
  end
end

-- Several, or noise.
local function disentangle(scan, run, address, bytes, heard)
  local class = ear.acknowledgements(heard) > 1 and "many" or class_again(scan, run, bytes)
  if class == "many" and ear.class(heard, true) == "one" then
    verify(scan, run, address, true) -- a converter may put a 00 beside every answer: the telegram decides
  elseif class == "many" then
    tell_collision(scan, address)
  elseif class == "one" then
    verify(scan, run, address)
  end
  return class
end

local function by_acknowledgement(scan, run, address)
  local bytes = request.snd_nke(address)
  local class, heard = class_of(scan, run, bytes)
  if class == "many" then
    class = disentangle(scan, run, address, bytes, heard)
  elseif class == "one" then
    verify(scan, run, address)
  end
  return class == "silent"
end

local function by_data(scan, run, address)
  local heard = scan:ask(request.req_ud2(address, 1), true)
  local verdict, telegram = ear.data(heard, function(answer) return answer.a == address end)
  if verdict == "silent" then return true end
  if verdict == "good" then
    scan.link:answered()
    scan.link:forget_fcb(address)
    scan:tell(scan:meter(address, telegram))
  else
    verify(scan, run, address)
  end
end

local PROBES = {
  nke = by_acknowledgement,
  req = by_data,
  both = function(...) return by_acknowledgement(...) and by_data(...) end,
}

local function visit(scan, run, address)
  for _ = 0, scan.options.retries or 0 do
    if not PROBES[scan.options.probe](scan, run, address) then return end
  end
  note_silent(run, address)
end

-- Asks those again whose answer may have come after the window.
local function visit_doubtful(scan, run)
  local addresses = scan.state.doubtful
  if #addresses > 0 then scan.late_by = math.max(scan.late_by, PATIENCE) end
  while #addresses > 0 do
    visit(scan, run, addresses[1])
    table.remove(addresses, 1)
  end
end

---@param scan mbus.scan.Scan
function M.run(scan)
  local addresses = scan.options.addresses
  local run = { recent = {} }
  for i = scan.state.next or 1, #addresses do
    scan:progress((i - 1) / #addresses, addresses[i])
    visit(scan, run, addresses[i])
    scan.state.next = i + 1
    scan:save()
  end
  visit_doubtful(scan, run)
  scan:progress(1, addresses[#addresses])
end

---Nobody was selected: there is nothing to put in order.
function M.leave() end

return M
