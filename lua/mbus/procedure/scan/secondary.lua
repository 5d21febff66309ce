---The wildcard search over secondary addresses (EN 13757-7): select everybody, and where several answer fix one more digit.
---
---A mask is, in this order: silent; "one", if a single clean E5 came; or "many". One must prove itself by a telegram that
---matches the mask, else it is many as well. Of many it is known how many there must be at least, and the children have to
---account for them. What they cannot account for is reported.
local Address = require "mbus.address"
local Error = require "mbus.error"
local request = require "mbus.request"
local ear = require "mbus.procedure.scan.ear"
local Mask = require "mbus.procedure.scan.mask"

local M = {}

local FCB = 0x20
local C_SND_UD = 0x53
local PATIENCE = 0.5 -- seconds added to the window where a late answer may be missing
local RECENT = 4 -- masks that a late answer may belong to
local REBOOT = 3 -- seconds that meters need after a converter has cut the bus
local SAMPLES = 6 -- masks of known collisions that are tried to see whether collisions show
local FRUITLESS = 2400 -- selections without a find, of each attempt at silence
local PART = 1250 -- of these within one identification number: its bytes alone take 1020
local ROUNDS, SLIPS = 12, 1 -- in which somebody must answer to his own address alone, and how many may fail
local BABBLE = 3 -- children of one mask that acknowledge and never send data, while no child is silent

-- The pass begins anew, or a part of it is given up, by `error`.
local RESTART, SPENT = {}, {}

---@class mbus.scan.Search
---@field scan mbus.scan.Scan
---@field c integer         C field of the next selection
---@field nodes table       what is known of masks; survives an interruption
---@field recent string[]   masks that were silent, the last first
---@field doubtful string[] masks that were silent, but perhaps only late
---@field attempts integer  how often a silent mask is asked
---@field fruitless integer selections since the last find
---@field part? integer     what `fruitless` was when the search within one identification number began
---@field credited table<string, true>  what has been found in this pass
---@field spent? boolean    the search was given up
---@field selected boolean  somebody may be selected
---@field wary boolean      meters acknowledge selections unseen if the frame count bit repeats: deselect them after each
local Search = {}
Search.__index = Search

local function explain(err) return type(err) == "table" and err or debug.traceback(tostring(err), 2) end

--- One mask ------------------------------------------------------------------------------------------------------

-- An answer came late: the masks asked shortly before may not have been silent.
local function note_late(self)
  self.scan:late()
  for _, mask in ipairs(self.recent) do table.insert(self.doubtful, mask) end
  self.recent = {}
end

local function note_silent(self, mask)
  table.insert(self.recent, 1, mask)
  self.recent[RECENT + 1] = nil
end

-- Selects. The frame count bit changes with every answer: some meters look at it before they look at the mask, and
-- acknowledge a repetition unseen.
local function select(self, mask, lenient)
  local heard
  self.fruitless = self.fruitless + 1
  for _ = 1, 3 do
    heard = self.scan:ask(Mask.selection(mask, self.c))
    self.scan.link.state.deselected = nil
    local class = ear.class(heard, lenient or self.lenient)
    self.selected = class ~= "silent"
    if self.selected then self.c = self.c ~ FCB end
    if class ~= "stale" then return class, heard end
    note_late(self)
  end
  return "many", heard
end

---@return string? digits  8
local function fabrication_of(telegram)
  local record = telegram:find { quantity = "fabrication_number" }
  local number = record and record.value
  return math.type(number) == "integer" and number >= 0 and ("%08d"):format(number) or nil
end

-- The answer is read by the identification that the meter gives itself; short telegrams give none.
local function matches(mask, telegram)
  local fabrication = #mask > 16 and fabrication_of(telegram)
  if fabrication and not Address.matches(mask:sub(17), fabrication) then return false end
  local full = telegram.secondary_address or telegram.id and telegram.id .. mask:sub(9, 16)
  if full then return Address.matches(mask:sub(1, 16), full) end
  return Mask.is_exact(mask)
end

-- Did somebody answer the selection only now? An acknowledgement beside an answer is none to REQ_UD2.
local function is_late(heard, verdict)
  return heard.early or verdict == "bad" and ear.has_acknowledgement_beside(heard)
end

local function demand(self, mask, lenient)
  local scan = self.scan
  local counts, verdict, telegram = {}
  repeat
    local heard = scan:ask(request.req_ud2(Address.SELECTED, 1), true)
    verdict, telegram = ear.data(heard, function(answer) return matches(mask, answer) end, lenient or self.lenient)
    if is_late(heard, verdict) then note_late(self) end
    if verdict == "bad" or verdict == "silent" then scan:let_finish(heard) end
    counts[verdict] = (counts[verdict] or 0) + 1
  until verdict == "good" or verdict == "other" or counts[verdict] == 2
  return verdict, telegram
end

local function deselect(self)
  self.scan:ask(request.snd_nke(Address.SELECTED), true)
  self.scan.link.state.deselected, self.selected = true, false
end

-- A find is worth further selections, once in a pass.
--
-- So the search ends: it makes no more than FRUITLESS selections for each find. What is found by a telegram is as many as
-- there are meters. What is found without one is what answers to its own address, and not to that of a neighbour, in at least
-- eleven of twelve rounds. Noise, whether rare or nearly always there, passes a round with a probability of at most 1/4, and
-- all of them with 2e-6: it will hardly ever prolong the search, and far less do so again and again.
local function credit(self, find)
  if self.credited[find] then return end
  self.credited[find] = true
  self.fruitless, self.part = 0, self.part and 0
end

local function tell(self, mask, telegram)
  local scan = self.scan
  scan.link:answered()
  scan.link:forget_fcb(telegram.a)
  local id = telegram.id or mask:sub(1, 8)
  local meter = scan:meter(telegram.secondary_address or id .. mask:sub(9, 16), telegram)
  meter.id = id
  if #mask > 16 then meter.fabrication = fabrication_of(telegram) or mask:sub(17) end
  credit(self, meter.address .. (meter.fabrication or ""))
  scan:tell(meter)
end

-- What line speeds before this one have left stays as it is.
local function settled(state) return table.move(state.unaccounted, 1, state.settled or 0, 1, {}) end

-- There is more under this mask than was found.
local function report(self, mask)
  local state = self.scan.state
  state.unaccounted = Mask.join(state.unaccounted, mask, (state.settled or 0) + 1)
end

-- From now on it is what an earlier line speed has left.
local function settle(state)
  local list = settled(state)
  for i = #list + 1, #state.unaccounted do list = Mask.join(list, state.unaccounted[i], 1) end
  state.unaccounted, state.settled = list, #list
end

local function answers_alone(self, mask)
  local class = select(self, mask)
  if self.wary and self.selected then deselect(self) end
  return class ~= "silent"
end

-- Is what sends no valid telegram there at all? Else it is reported, as what may be there.
local function is_steady(self, address)
  if self.credited[address] then return true end
  local digit = address:sub(8, 8)
  local neighbour = Mask.child(address, 8, digit == "E" and "D" or "E")
  local slips = 0
  for _ = 1, ROUNDS do
    if not answers_alone(self, address) or answers_alone(self, neighbour) then slips = slips + 1 end
    if slips > SLIPS then
      report(self, address)
      return false
    end
  end
  credit(self, address)
  return true
end

local function tell_mute(self, mask, verdict)
  local address = mask:sub(1, 16)
  if not is_steady(self, address) then return end
  local kind = verdict == "silent" and "timeout" or "rejected"
  self.scan:tell { address = address, id = mask:sub(1, 8), error = Error.new(kind, "is selected, and sends no data",
    { address = address }) }
end

local function become_wary(self)
  self.wary = true
  error(RESTART, 0)
end

-- Somebody has acknowledged a selection that was not for him: he was late, or has looked at the frame count bit alone. The
-- latter does it again.
local function expose_phantom(self, mask)
  self.c = self.c ~ FCB
  if select(self, mask) ~= "silent" and not self.wary then become_wary(self) end
  note_late(self)
end

-- Acknowledged with either frame count bit, and no data. Is it so too where no meter remembers a frame count bit?
local function try_afresh(self, mask)
  self.scan:ask(request.snd_nke(Address.BROADCAST), true)
  local class = select(self, mask)
  if class == "silent" then become_wary(self) end
  if class == "many" then return "bad" end
  local verdict, telegram = demand(self, mask)
  if verdict == "good" then
    tell(self, mask, telegram)
    become_wary(self)
  end
  return verdict
end

-- Acknowledged, and no answer that fits: once more, with the other frame count bit.
local function select_anew(self, mask, lenient)
  deselect(self)
  local class = select(self, mask, lenient)
  if class == "silent" then
    expose_phantom(self, mask)
    return "phantom"
  end
  local verdict, telegram = "bad", nil
  if class == "one" then verdict, telegram = demand(self, mask, lenient) end
  if verdict ~= "good" and not self.wary then verdict = try_afresh(self, mask) end
  return verdict, telegram
end

-- One acknowledgement: is it one meter, and is it meant? Returns what the mask is.
local function prove(self, mask, lenient)
  local verdict, telegram = demand(self, mask, lenient)
  if verdict == "silent" or verdict == "other" then verdict, telegram = select_anew(self, mask, lenient) end
  if verdict == "phantom" then return "silent" end
  if verdict == "good" then
    tell(self, mask, telegram)
    return "found"
  end
  if verdict == "bad" or verdict == "other" then return "many" end
  if not Mask.is_exact(mask) then return "mute" end
  tell_mute(self, mask, verdict)
  return "found"
end

-- Several at a complete identification number, or noise: noise does not come again. A converter may put a 00 beside
-- every answer; then the telegram decides.
local function look_again(self, mask)
  local class = "many"
  for _ = 1, 2 do
    class = select(self, mask, true)
    if class ~= "silent" then break end
  end
  if class == "one" then return prove(self, mask, true) end
  return class
end

-- Several at a complete identification number are rare: more often it is the frame count bit that makes them answer.
local function doubt_several(self, mask)
  if self.wary then return end
  self.scan:ask(request.snd_nke(Address.BROADCAST), true)
  if select(self, mask) ~= "many" then become_wary(self) end
end

local function probe_once(self, mask)
  local class, heard = select(self, mask)
  if class == "many" and Mask.is_exact(mask) and ear.acknowledgements(heard) < 2 then
    local kind = look_again(self, mask)
    -- Only what surrounds it made this single meter look like several: so it will at the next one.
    if kind == "found" and ear.class(heard, true) == "one" then self.lenient = true end
    class = kind
  end
  if class == "many" and Mask.is_exact(mask) then doubt_several(self, mask) end
  if class == "found" then return class, heard end
  if class == "one" then return prove(self, mask), heard end
  if class == "many" and self.babbling and prove(self, mask) == "found" then return "found", heard end
  return class, heard
end

local function probe(self, mask)
  local kind, heard = probe_once(self, mask)
  if self.wary and self.selected then deselect(self) end
  return kind, heard
end

--- Many masks ----------------------------------------------------------------------------------------------------

-- How many there must be at least.
local NEED = { many = 2, mute = 1, found = 1, silent = 0 }

local function progress(self, mask) self.scan:progress(math.min(self.done, 1), mask) end

local function is_spent(self) return self.fruitless > FRUITLESS * self.attempts end

-- Asks once; silence as often as it takes to be trusted.
local function ask(self, mask, attempts)
  local kind, heard
  if is_spent(self) or self.part and self.fruitless - self.part > PART * self.attempts then error(SPENT, 0) end
  for attempt = 1, attempts do
    -- Silence may be a collision of meters that look at the frame count bit alone.
    if attempt > 1 then self.c = self.c ~ FCB end
    progress(self, mask)
    kind, heard = probe(self, mask)
    if kind ~= "silent" then return kind, heard end
  end
  note_silent(self, mask)
  return "silent", heard
end

-- What a mask is; from memory after an interruption.
local function visit(self, mask, attempts)
  local node = self.nodes[mask]
  if not node then
    local kind, heard = ask(self, mask, attempts)
    node = { kind = kind, clear = heard ~= nil and ear.acknowledgements(heard) > 1 or nil }
    self.nodes[mask] = node
    self.scan:save()
  end
  return node
end

local function tell_collision(self, mask)
  local address = mask:sub(1, 16)
  if is_steady(self, address) then self.scan:tell { address = address, id = mask:sub(1, 8), collision = true } end
end

local split

-- Within one identification number: where that leads to nothing, the rest of the search goes on.
local function split_part(self, mask, node, share, depth)
  if self.part or not Mask.is_exact(mask) then return split(self, mask, node, share, depth) end
  self.part = self.fruitless
  local ok, total = xpcall(split, explain, self, mask, node, share, depth)
  self.part = nil
  if ok then return total end
  if total ~= SPENT or is_spent(self) then error(total, 0) end
  for other in pairs(self.nodes) do
    if other ~= mask and Address.matches(mask, other) then self.nodes[other] = nil end
  end
  report(self, mask)
  self.done = self.done + share
  return NEED[node.kind]
end

-- Meters under a mask of this kind.
local function count(self, mask, node, share, depth)
  if node.total then
    self.done = self.done + share
    return node.total
  end
  if node.kind == "mute" and self.babbling then node.kind = "silent" end
  if node.kind == "many" or node.kind == "mute" then
    node.total = split_part(self, mask, node, share, depth)
  else
    node.total = NEED[node.kind]
    self.done = self.done + share
  end
  return node.total
end

-- A device that acknowledges whatever is selected would unfold the whole tree.
local function notice_babble(self, children, nodes)
  local mute = 0
  for _, child in ipairs(children) do
    if nodes[child].kind == "silent" then return end
    if nodes[child].kind == "mute" then mute = mute + 1 end
  end
  if mute < BABBLE then return end
  self.babble = (self.babble or 0) + 1
  if self.babble < 2 then return end
  self.babbling = true
  self.scan:remark("something acknowledges every selection, and sends no data")
  report(self, self.scan.options.mask)
end

local function children_of(mask, position, values)
  local children = {}
  for i, value in ipairs(values) do children[i] = Mask.child(mask, position, value) end
  return children
end

local function forget(self, children)
  for _, child in ipairs(children) do self.nodes[child] = nil end
end

-- Masks that are taken for collisions without asking.
local function is_unasked(self, mask, depth)
  return (depth < self.scan.options.start_depth or depth < self.blind) and not Mask.is_exact(mask)
end

local function is_settled(node) return node.total or node.kind == "silent" or node.kind == "found" end

-- Of these masks those that have to be gone into.
local function unsettled(children, nodes)
  local masks = {}
  for _, child in ipairs(children) do
    if not is_settled(nodes[child]) then masks[#masks + 1] = child end
  end
  return masks
end

local function has_found(self, mask)
  for _, meter in ipairs(self.scan.found) do
    if Address.matches(mask:sub(1, 16), meter.address) then return true end
  end
  return false
end

-- What nobody or a single meter answers to tells of each of the crowd. Whom it found before would answer to it too.
local function ask_common(self, common, crowd, position, value)
  if not self.nodes[common] and has_found(self, common) then return end
  local kind = visit(self, common, self.attempts).kind
  if kind ~= "silent" and kind ~= "found" then return end
  for _, mask in ipairs(crowd) do
    local child = Mask.child(mask, position, value)
    self.nodes[child] = { kind = has_found(self, child) and "found" or "silent" }
  end
end

local SPARSE = 8 -- of ten values: if more hide several meters, there are too many of them to be asked together

-- Only where collisions show, and by digits of the identification number.
local function common_position(self, crowd, nodes)
  if not self.scan.delivers or self.babbling or #crowd < 2 or #crowd > SPARSE then return nil end
  for _, child in ipairs(crowd) do
    local node = nodes[child]
    if node.kind ~= "many" or node.unasked or node.together then return nil end
  end
  local position = nodes[crowd[1]].position or Mask.position(crowd[1], self.scan.found)
  return position and position <= 8 and position
end

-- Where several children of a mask have to be split by the same digit, most values of that digit are nobody's in any of
-- them: a selection that leaves open which child is meant asks all of them. Returns the share that is left of theirs.
local function ask_together(self, mask, crowd, nodes, share)
  local position = common_position(self, crowd, nodes)
  if not position then return share end
  for _, child in ipairs(crowd) do nodes[child].position = position end
  local values = Mask.axis(position, self.scan.found, self.scan.options.hex).values
  local commons = children_of(mask, position, values)
  for i, common in ipairs(commons) do
    ask_common(self, common, crowd, position, values[i])
    self.done = self.done + share / 2 / #commons
  end
  for _, child in ipairs(crowd) do nodes[child].together = true end
  forget(self, commons)
  return share / 2
end

-- Asks all of these masks first, then goes into those with several. Returns nothing where the children of a complete
-- identification number all show several: then meters do not look at what the children fix.
local function count_all(self, mask, children, share, depth)
  local nodes, total = {}, 0
  for _, child in ipairs(children) do
    nodes[child] = is_unasked(self, child, depth) and { kind = "many", unasked = true } or visit(self, child, self.attempts)
    if is_settled(nodes[child]) then total = total + count(self, child, nodes[child], 0, depth) end
    self.done = self.done + share / 4 / #children
  end
  if self.babbling == nil then notice_babble(self, children, nodes) end
  local crowd = unsettled(children, nodes)
  if #crowd == #children and Mask.is_exact(mask) then return nil, nodes end
  local left = ask_together(self, mask, crowd, nodes, share * 3 / 4)
  for _, child in ipairs(crowd) do total = total + count(self, child, nodes[child], left / #crowd, depth) end
  return total, nodes
end

-- As long as it is not known that collisions show on this path, silence is not trusted: it is asked again at the end.
local function remember_silent(self, children, nodes)
  if self.scan.delivers or self.babbling or self.attempts > 1 then return end
  for _, child in ipairs(children) do
    if nodes[child].kind == "silent" then table.insert(self.scan.state.untrusted, child) end
  end
end

-- Asks the silent ones of these masks once more.
local function ask_silent(self, children, nodes, depth)
  local more = 0
  for _, child in ipairs(children) do
    if nodes[child].kind == "silent" then
      local kind = ask(self, child, 1)
      if kind ~= "silent" then
        nodes[child] = { kind = kind }
        self.nodes[child] = nodes[child]
        if not self.scan.delivers then self.hides = true end
        more = more + count(self, child, nodes[child], 0, depth)
      end
    end
  end
  return more
end

-- The children do not account for what the mask showed. Was that noise? Returns how many there are, if it was.
local function was_noise(self, mask, node, total)
  if total > 1 or node.clear then return nil end
  local kind = ask(self, mask, total == 0 and 2 or 1)
  if kind == "found" then return 1 end
  return kind == "silent" and total == 0 and 0 or nil
end

local function with_longer_window(self, fn, ...)
  local scan = self.scan
  local before = scan.late_by
  scan.late_by = before + PATIENCE
  local ok, result = xpcall(fn, explain, self, ...)
  scan.late_by = math.max(before, scan.late_by - PATIENCE)
  if not ok then error(result, 0) end
  return result
end

-- Returns how many there are after all, and whether that is what the mask showed.
local function recount(self, mask, axis, children, nodes, need, total, depth)
  local single = was_noise(self, mask, self.nodes[mask] or {}, total)
  if single then return single, true end
  if depth == 1 and total == 0 then self.scan.link:sleep(self.scan.link:now() + REBOOT) end
  total = total + with_longer_window(self, ask_silent, children, nodes, depth)
  if total < need and axis.more then
    total = total + count_all(self, mask, children_of(mask, axis.position, axis.more), 0, depth)
  end
  return total, total >= need
end

-- Nothing is left that could tell them apart; or what the mask showed is not found.
local function give_up(self, mask)
  if Mask.is_exact(mask) then
    tell_collision(self, mask)
  else
    report(self, mask)
  end
end

---@return integer  meters under this mask, as many as are accounted for or reported
function split(self, mask, node, share, depth)
  local need = node.unasked and 0 or NEED[node.kind]
  node.position = node.position or Mask.position(mask, self.scan.found)
  if not node.position then
    give_up(self, mask)
    return need
  end
  local axis = Mask.axis(node.position, self.scan.found, self.scan.options.hex)
  local children = children_of(mask, axis.position, axis.values)
  depth = depth + 1
  local total, nodes = count_all(self, mask, children, share, depth)
  if not total then
    forget(self, children)
    give_up(self, mask)
    return need
  end
  remember_silent(self, children, nodes)
  if self.babbling then need = math.min(need, total) end
  if total < need then
    local accounted
    total, accounted = recount(self, mask, axis, children, nodes, need, total, depth)
    if not accounted then
      give_up(self, mask)
      total = math.max(total, need) -- reported once, not by every mask above
    end
  end
  forget(self, children)
  return total
end

--- The bus -------------------------------------------------------------------------------------------------------

-- Asks masks again that seemed to be silent, until none is left.
local function ask_again(self, masks, is_wrong)
  local asked = {}
  while #masks > 0 do
    local mask = masks[1]
    if not asked[mask] then
      asked[mask] = true
      self.nodes[mask] = nil
      local node = visit(self, mask, 1)
      if is_wrong and node.kind ~= "silent" then is_wrong() end
      count(self, mask, node, 0, 1)
    end
    table.remove(masks, 1)
  end
end

local function ask_doubtful(self)
  local scan = self.scan
  if #self.doubtful > 0 then scan.late_by = math.max(scan.late_by, PATIENCE) end
  ask_again(self, self.doubtful)
end

local function ask_untrusted(self)
  local scan = self.scan
  if scan.delivers then scan.state.untrusted = {} end
  ask_again(self, scan.state.untrusted, function() self.hides = self.hides or not scan.delivers end)
end

-- What was found at this line speed; collisions are not among the meters.
local function found_here(scan, list)
  local here = {}
  for _, meter in ipairs(list) do
    if meter.baudrate == scan.link.settings.baudrate then here[#here + 1] = meter end
  end
  return here
end

-- Pairs of meters that are known: their common masks must not be silent.
local function samples(found)
  local masks = {}
  for distance = 1, #found - 1 do
    for i = 1, #found - distance do
      local one, other = found[i].secondary_address, found[i + distance].secondary_address
      if #masks == SAMPLES then return masks end
      if one and other then masks[#masks + 1] = Mask.common(one, other) end
    end
  end
  for i = #masks + 1, #masks > 0 and SAMPLES or 0 do masks[i] = masks[i - 1] end
  return masks
end

-- Does a collision look like silence on this path?
local function hides_collisions(self)
  if self.hides then return true end
  for _, mask in ipairs(samples(found_here(self.scan, self.scan.found))) do
    progress(self, mask)
    if select(self, mask) == "silent" then return true end
  end
  return false
end

local HIDDEN = "collisions look like silence on this path: there may be more meters"

-- Does the first pass leave reasons for a second one, which does not trust silence?
local function is_dubious(self)
  local scan = self.scan
  local expected = scan.options.expect
  if Mask.is_exact(scan.options.mask) then return false end
  local left = #scan.state.unaccounted > (scan.state.settled or 0)
  local hidden = (not scan.delivers or left) and hides_collisions(self)
  if hidden then scan:remark(HIDDEN) end
  return hidden or scan.garbles and not scan.delivers or expected and #scan.found < expected
end

-- Are as many told of under this mask as one with several must have?
local function shows_enough(mask, told)
  local known = 0
  for _, meter in ipairs(told) do
    if Address.matches(mask:sub(1, 16), meter.address) then known = known + (meter.collision and NEED.many or 1) end
  end
  return known >= NEED.many
end

-- What the second pass has found may be what the first one has missed.
local function account(self)
  local state = self.scan.state
  local here, left = found_here(self.scan, state.found), settled(state)
  for i = #left + 1, #state.unaccounted do
    local mask = state.unaccounted[i]
    if not shows_enough(mask, here) then left[#left + 1] = mask end
  end
  state.unaccounted = left
end

-- All masks down to two fixed digits are taken for collisions, and silence is asked for twice.
local function second_pass(self)
  local root, state = self.scan.options.mask, self.scan.state
  if state.pass ~= 2 then state.pass, state.nodes = 2, {} end
  self.blind, self.attempts, self.done, self.nodes = 2, 2, 0, state.nodes
  local before = #self.scan.found
  split(self, root, { kind = "many", unasked = true }, 1, 0)
  ask_doubtful(self)
  account(self)
  if #self.scan.found > before then self.scan:remark(HIDDEN) end
end

-- A single meter must be so twice: another one may not have heard the selection.
local function confirm(self, mask)
  local kind = probe(self, mask)
  return kind == "many" and kind or "found"
end

local function root_of(self, mask)
  local memory = self.nodes[mask]
  if memory then return memory end
  if is_unasked(self, mask, 0) then return { kind = "many", unasked = true } end
  local node = visit(self, mask, 2)
  if node.kind == "found" and mask:find("F") then node.kind = confirm(self, mask) end
  return node
end

local function first_pass(self)
  local root = self.scan.options.mask
  local node = root_of(self, root)
  if node.kind == "silent" and not Mask.is_exact(root) then
    -- Collisions may look like silence, or the only meter has not heard: do not trust it yet.
    self.attempts = math.max(self.attempts, 2)
    split(self, root, { kind = "many", unasked = true }, 1, 0)
    if #self.scan.found > 1 then self.hides = true end
    self.attempts = 1 + (self.scan.options.retries or 0)
  else
    count(self, root, node, 1, 0)
  end
  ask_doubtful(self)
  ask_untrusted(self)
end

-- Frame count bits of all meters are forgotten, and so is what was learned while they misled us.
local function restart(self)
  local scan, state = self.scan, self.scan.state
  state.nodes, state.unaccounted, state.untrusted, state.doubtful = {}, settled(state), {}, {}
  self.nodes, self.recent, self.doubtful = state.nodes, {}, state.doubtful
  self.done, self.babble, self.babbling = 0, nil, nil
  scan:ask(request.snd_nke(Address.BROADCAST), true)
end

local function pass(self, method)
  self.credited, self.part = {}, nil
  local ok, err = xpcall(method, explain, self)
  if ok then return end
  if err == RESTART then
    restart(self)
    return pass(self, method)
  end
  if err ~= SPENT then error(err, 0) end
  self.spent = true
  self.scan:remark("given up: too many answers that lead to no meter (is the line noisy?)")
  report(self, self.scan.options.mask)
end

---@param scan mbus.scan.Scan
function M.run(scan)
  local self = setmetatable({ scan = scan, c = C_SND_UD, nodes = scan.state.nodes, recent = {}, doubtful = scan.state.doubtful,
    done = 0, fruitless = 0, blind = 0, attempts = 1 + (scan.options.retries or 0) }, Search)
  scan.search = self
  if scan.state.pass ~= 2 then pass(self, first_pass) end
  if not self.spent and (scan.state.pass == 2 or is_dubious(self)) then pass(self, second_pass) end
  settle(scan.state)
  self.done = 1
  progress(self, scan.options.mask)
end

---The search ends before all masks are gone into: those that have shown more than was found are reported.
---@param scan mbus.scan.Scan
function M.conclude(scan)
  local self = scan.search
  if not self then return end
  local here = found_here(scan, scan.state.found)
  for mask, node in pairs(self.nodes) do
    if node.kind == "many" and not node.total and not shows_enough(mask, here) then report(self, mask) end
  end
end

---Leaves no meter selected.
---@param scan mbus.scan.Scan
function M.leave(scan)
  local self = scan.search
  if not self then return end
  local link = scan.link
  local window = link.settings.timeout + scan.late_by
  if self.selected or link:is_aborted() then
    ear.ask(link, request.snd_nke(Address.SELECTED), window)
  elseif link:settle() then
    -- After a selection that nobody has answered nobody can answer this, and whoever comes next waits for the window.
    local ends = link:send(request.snd_nke(Address.SELECTED))
    if ends and link:sleep(ends) then link.state.not_before = ends + window end
  end
  link:forget_fcb(Address.SELECTED)
  link.state.deselected, self.selected = not link.broken or nil, false
end

return M
