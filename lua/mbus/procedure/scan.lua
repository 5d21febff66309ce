---Finds the meters of a bus, by primary address or by the wildcard search of EN 13757-7.
---
---    for meter in bus:scan() do print(meter.address, meter.id, meter.manufacturer) end
---    local scan = bus:scan { secondary = true, mask = "31FFFFFF", progress = print }
---    for meter in scan do ... end
---    if not scan.result.complete then ... end
---
---Every meter is proven by a valid telegram of its own. What cannot be proven is reported: addresses at which several
---meters answer come as `{ address = 0, collision = true }`, the rest is in `result.unaccounted`.
local Error = require "mbus.error"
local Address = require "mbus.address"
local Readout = require "mbus.readout"
local request = require "mbus.request"
local ear = require "mbus.procedure.scan.ear"
local primary = require "mbus.procedure.scan.primary"
local secondary = require "mbus.procedure.scan.secondary"

---@class mbus.ScanOptions : mbus.BusOptions
---@field secondary? boolean    search by identification number instead of asking each primary address
---@field range? string|integer|integer[]  primary addresses: "0-250" (default), "1-20,30", 5 or a list
---@field mask? string          8 or 16 hex digits: only meters that match, F is a wildcard
---@field probe? "nke"|"req"|"both"  what a primary address is asked with: SND_NKE (default), REQ_UD2 for meters that do not
---answer that, or one after the other
---@field retries? integer      how often what was silent is asked again; default 0, and 2 for readouts
---@field baud? integer[]       line speeds to search at, one after another; default the present one
---@field read? boolean         read each meter on the way: `meter.readout`
---@field expect? integer       how many meters there are: the search ends with the last, and looks twice for a missing one
---@field hex? boolean          search for digits A to E in identification numbers too, which takes half as long again
---@field start_depth? integer  number of digits to begin with, for weak converters on large buses; default 0: all meters
---at once
---@field progress? fun(progress: mbus.ScanProgress)
---@field resume? table         state of an interrupted scan: what `save` was called with
---@field save? fun(state: table)  called with the state of the scan whenever it has changed: plain data, which can be
---written as JSON and goes on changing afterwards

---@class mbus.ScanProgress
---@field fraction number        0 to 1
---@field found integer
---@field current integer|string address or mask that is asked now
---@field baudrate number
---@field elapsed number         seconds
---@field seconds_left? number   absent until it can be told

---@class mbus.FoundMeter
---@field address integer|string  primary address, or 16 hex digits of the secondary one
---@field id? string
---@field manufacturer? string
---@field version? integer
---@field medium? integer
---@field medium_name? string
---@field secondary_address? string
---@field primary_address? integer  A field of its answer
---@field fabrication? string      the 8 digits that tell it from another one with the same secondary address
---@field baudrate number
---@field collision? boolean       several meters, which cannot be told apart by this kind of address
---@field error? mbus.Error        it answers, but there is no telegram of it; or its readout is not whole
---@field readout? mbus.Readout    with `read`
---@field resumed? boolean         found before the scan was interrupted

---@class mbus.ScanResult
---@field complete boolean       everything that answered is accounted for
---@field found integer          meters, collisions not counted
---@field collisions (integer|string)[]  addresses with several meters
---@field unaccounted string[]   masks in which there is more than was found
---@field remarks string[]       what else speaks against completeness
---@field expected? integer
---@field requests integer       frames sent
---@field seconds number

local VERSION = 1
-- What a scan is left with, by `error`, wherever it is.
local STOP = {}

---@class mbus.scan.Scan
---@field link mbus.Link
---@field options mbus.scan.Plan
---@field state table      survives an interruption, see `save`
---@field window number    answer window
---@field late_by number   what late answers have added to it
---@field odd? table<integer, { seen: string?, answers: integer }>  what was heard of primary addresses that is not clear yet
---@field decided? integer  long windows of the second primary round that are over
---@field fraction? number  the last one told of a primary scan, which does not go back
local Scan = {}
Scan.__index = Scan

function Scan.new(link, options)
  local state = options.resume or { version = VERSION, key = options.key, speed = 1, found = {}, nodes = {}, doubtful = {},
    untrusted = {}, unaccounted = {}, remarks = {} }
  return setmetatable({ link = link, options = options, state = state, found = {}, known = {}, collisions = {},
    delivers = state.delivers, requests = 0, late_by = 0, late_answers = 0, evidence = 0, began = link:now() }, Scan)
end

---Leaves the scan.
---@param err? mbus.Error
function Scan:stop(err)
  self.failure = err
  error(STOP, 0)
end

local CONVINCED = 3

-- What is learned of the path from an answer that is an acknowledgement, or several.
local function learn(scan, heard)
  local evidence = ear.path(heard)
  scan.garbles = scan.garbles or evidence ~= nil
  scan.evidence = scan.evidence + (evidence or 0)
  scan.delivers = scan.delivers or scan.evidence >= CONVINCED
  scan.state.delivers = scan.delivers
end

---Asks, and listens through the whole answer window. Leaves the scan where the caller has lost interest.
---@param bytes string
---@param is_data? boolean  the answer is a telegram
---@return mbus.scan.Heard
function Scan:ask(bytes, is_data)
  local link = self.link
  if link:is_aborted() then self:stop() end
  local heard, err = ear.ask(link, bytes, link.settings.timeout + self.late_by)
  if not heard then self:stop(err) end
  self.requests = self.requests + 1
  if is_data then self.delivers = self.delivers or heard.errors > 0 else learn(self, heard) end
  return heard
end

---After a spoilt telegram, or none: somebody may still be talking, hidden by a gateway that drops damaged characters, or by
---a break, of which there is one 00 however long it is.
---@param heard mbus.scan.Heard
function Scan:let_finish(heard)
  local last = heard.events[#heard.events]
  local in_break = last and last.kind == "noise" and last.bytes:byte(-1) == 0
  if in_break or not self.delivers then self.link:sleep(heard.limit) end
end

local LATE_STEP, LATE_MOST = 0.25, 2.0 -- seconds

---A late answer was heard: one is a reason to look again, from the second on the window is too short.
function Scan:late()
  self.late_answers = self.late_answers + 1
  self:remark("answers came after the answer window: with a longer margin there may be more")
  if self.late_answers > 1 then self.late_by = math.min(self.late_by + LATE_STEP, LATE_MOST) end
end

---@param text string
function Scan:remark(text)
  for _, known in ipairs(self.state.remarks) do
    if known == text then return end
  end
  table.insert(self.state.remarks, text)
end

function Scan:save() self.link:report("save", self.state) end

-- Share of this line speed in the time of all.
local function overall(scan, fraction)
  local before, all = 0, 0
  for i, baudrate in ipairs(scan.options.baud) do
    local cost = 528 / (baudrate or scan.link.settings.baudrate) + 0.05
    all = all + cost
    if i < scan.state.speed then before = before + cost end
    if i == scan.state.speed then before = before + cost * fraction end
  end
  return before / all
end

---@param fraction number  of this line speed
---@param current integer|string
function Scan:progress(fraction, current)
  local elapsed = self.link:now() - self.began
  fraction = overall(self, fraction)
  self.first = self.first or fraction
  local gained = fraction - self.first
  self.link:report("progress", { fraction = fraction, found = #self.found, current = current, elapsed = elapsed,
    baudrate = self.link.settings.baudrate, seconds_left = gained > 0 and elapsed / gained * (1 - fraction) or nil })
end

-- What is kept of a meter over an interruption.
local function plain(meter)
  local kept = {}
  for name, value in pairs(meter) do
    if name ~= "readout" then kept[name] = value end
  end
  if meter.error then kept.error = { kind = meter.error.kind, message = meter.error.message } end
  return kept
end

---Are there as many meters as are expected?
function Scan:has_enough()
  local expected = self.options.expect
  return expected and #self.found >= expected
end

-- What was odd at primary addresses is decided about first: there may be others.
local function end_if_enough(scan)
  if not scan:has_enough() or not scan.options.secondary and #scan.state.doubtful > 0 then return end
  if scan.options.secondary then secondary.conclude(scan) end
  scan:stop()
end

local function note(scan, meter)
  if meter.collision then
    table.insert(scan.collisions, meter.address)
  else
    table.insert(scan.found, meter)
  end
end

-- What two findings of one meter have in common, at two line speeds or by two masks. Who has not told who he is may be
-- another one at another speed.
local function identity(meter)
  local who = meter.secondary_address
  if not who then who = ("%s %s %s"):format(meter.id or meter.baudrate, meter.collision, meter.error ~= nil) end
  return ("%s %s %s"):format(meter.address, who, meter.fabrication or "")
end

---Tells of a meter, once.
---@param meter mbus.FoundMeter
function Scan:tell(meter)
  meter.baudrate = meter.baudrate or self.link.settings.baudrate
  local key = identity(meter)
  if self.known[key] then return end
  self.known[key] = true
  note(self, meter)
  table.insert(self.state.found, plain(meter))
  self:save()
  self.link:report("found", meter)
  end_if_enough(self)
end

-- The whole readout of a meter whose first telegram is there.
local function readout_of(scan, address, telegram)
  if not telegram.more_records_follow then return Readout.new(address.text, { telegram }) end
  local readout, err = require("mbus.procedure.read").run(scan.link, address)
  return readout or err.readout, err
end

---A meter as its telegram shows it.
---@param address integer|string
---@param telegram mbus.Telegram
---@return mbus.FoundMeter
function Scan:meter(address, telegram)
  local meter = { address = address, id = telegram.id, manufacturer = telegram.manufacturer, version = telegram.version,
    medium = telegram.medium, medium_name = telegram.medium_name, secondary_address = telegram.secondary_address,
    primary_address = telegram.a }
  if self.options.read then
    meter.readout, meter.error = readout_of(self, assert(Address.parse(address)), telegram)
  end
  return meter
end

-- Tells again of what was found before the interruption.
local function recall(scan)
  local before = scan.state.found
  for _, kept in ipairs(before) do
    local meter = plain(kept)
    meter.resumed = true
    meter.error = kept.error and Error.new(kept.error.kind, kept.error.message, { address = kept.address })
    scan.known[identity(meter)] = true
    note(scan, meter)
    scan.link:report("found", meter)
  end
end

local function scan_all(scan)
  local method = scan.options.secondary and secondary or primary
  recall(scan)
  end_if_enough(scan)
  for i = scan.state.speed, #scan.options.baud do
    local baudrate = scan.options.baud[i]
    if baudrate and baudrate ~= scan.link.settings.baudrate then
      local ok, err = scan.link:set_baudrate(baudrate)
      if not ok then scan:stop(err) end
    end
    method.run(scan)
    end_if_enough(scan)
    if scan.options.baud[i + 1] then
      method.leave(scan)
      scan.state.speed, scan.state.nodes, scan.state.next, scan.state.pass = i + 1, {}, nil, nil
      scan:save()
    end
  end
end

local function result_of(scan)
  local expected = scan.options.expect
  -- How many there are is known at the end alone: a scan that goes on must not read it in its state.
  local unaccounted, remarks = scan.state.unaccounted, table.move(scan.state.remarks, 1, #scan.state.remarks, 1, {})
  if expected and #scan.found < expected then
    remarks[#remarks + 1] = ("found %d of %d meters"):format(#scan.found, expected)
  end
  if not scan.options.secondary and #scan.state.doubtful > 0 then
    remarks[#remarks + 1] = "not decided yet what was heard at or near address " .. table.concat(scan.state.doubtful, ", ")
  end
  return {
    complete = not scan.link:is_aborted() and #scan.collisions == 0 and #unaccounted == 0 and #remarks == 0,
    found = #scan.found, collisions = scan.collisions, unaccounted = unaccounted, remarks = remarks,
    expected = expected, requests = scan.requests, seconds = scan.link:now() - scan.began,
  }
end

-- A handler of its own keeps the traceback of a bug.
local function explain(err)
  if err == STOP then return err end
  return debug.traceback(tostring(err), 2)
end

---@param link mbus.Link
---@param options mbus.scan.Plan
---@return mbus.ScanResult? result
---@return mbus.Error? err
local function run(link, options)
  local scan = Scan.new(link, options)
  local home = link.settings.baudrate
  local ok, err = xpcall(scan_all, explain, scan)
  if not ok and err ~= STOP then error(err, 0) end
  local aborted = link:is_aborted()
  if not link.broken then (options.secondary and secondary or primary).leave(scan) end
  if not link.broken and link.settings.baudrate ~= home then link:set_baudrate(home) end
  if link.broken or scan.failure then return nil, link.broken or scan.failure end
  if not aborted then
    scan.state.finished = true
    scan:save()
  end
  return result_of(scan)
end

--- Options ------------------------------------------------------------------------------------------------------

local function invalid(...) return nil, Error.new("invalid", string.format(...)) end

local RANGE = "primary addresses are 0 to 250, as in 0-250 or 1-20,30"

local function add_range(list, first, last)
  first, last = math.tointeger(tonumber(first)), math.tointeger(tonumber(last))
  if not first or not last or first < 0 or last > 250 or first > last then return false end
  for address = first, last do
    if not list[-1 - address] then list[#list + 1] = address end
    list[-1 - address] = true
  end
  return true
end

local function bare(list) return table.move(list, 1, #list, 1, {}) end

---@param value string|integer|integer[]|nil
---@return integer[]? addresses
---@return mbus.Error? err
local function parse_range(value)
  local list = {}
  if type(value) == "table" then
    for _, address in ipairs(value) do
      if not add_range(list, address, address) then return invalid("bad address %s: %s", tostring(address), RANGE) end
    end
    if #list == 0 then return invalid("an empty list of addresses: %s", RANGE) end
    return bare(list)
  end
  local text = tostring(value == nil and "0-250" or value)
  for part in (text .. ","):gmatch("([^,]*),") do
    local first, last = part:match("^%s*(%d+)%s*%-%s*(%d+)%s*$")
    if not first then first = part:match("^%s*(%d+)%s*$") end
    if not first or not add_range(list, first, last or first) then return invalid("bad range %q: %s", text, RANGE) end
  end
  return bare(list)
end

local MASK = "8 or 16 hex digits are needed, F is a wildcard"

---@return string? digits  16
---@return mbus.Error? err
local function parse_mask(text)
  if text == nil then return ("F"):rep(16) end
  local wrong = text:match("[^%x]")
  if wrong then return invalid("bad mask %q: %q is no hex digit (%s)", text, wrong, MASK) end
  if #text ~= 8 and #text ~= 16 then return invalid("bad mask %q: it has %d digits, %s", text, #text, MASK) end
  return Address.parse(text).digits
end

local function whole(least, most)
  return function(value) return math.type(value) == "integer" and value >= least and value <= most end
end

local function flag(value) return type(value) == "boolean" end

local function callable(value) return type(value) == "function" end

local function speeds(value)
  if type(value) ~= "table" or #value == 0 then return false end
  for _, baudrate in ipairs(value) do
    if not request.BAUDRATES[baudrate] then return false end
  end
  return true
end

local CHECKS = {
  secondary = { flag, "true or false" }, read = { flag, "true or false" }, hex = { flag, "true or false" },
  expect = { whole(1, 100000), "a whole number from 1" }, start_depth = { whole(0, 3), "a whole number from 0 to 3" },
  baud = { speeds, "a list of 300, 600, 1200, 2400, 4800, 9600, 19200, 38400" },
  probe = { function(value) return value == "nke" or value == "req" or value == "both" end, '"nke", "req" or "both"' },
  progress = { callable, "a function" }, save = { callable, "a function" },
  resume = { function(value) return type(value) == "table" end, "a table" },
}

local function check(options, level)
  for name, rule in pairs(CHECKS) do
    if options[name] ~= nil and not rule[1](options[name]) then
      error(("option %s: %s expected"):format(name, rule[2]), level + 1)
    end
  end
  if options.mask ~= nil and type(options.mask) ~= "string" then error("option mask: hex digits expected", level + 1) end
  if options.mask ~= nil and not options.secondary then error("option mask: only with secondary", level + 1) end
  local kind = type(options.range)
  if kind ~= "nil" and kind ~= "string" and kind ~= "number" and kind ~= "table" then
    error("option range: text, a number or a list expected", level + 1)
  end
end

-- What makes a scan the same one when it goes on.
local function key_of(plan)
  local what = plan.secondary and "secondary " .. plan.mask or "primary " .. table.concat(plan.addresses, ",")
  local baud = {}
  for i, baudrate in ipairs(plan.baud) do baud[i] = tostring(baudrate) end
  return ("%s baud %s%s"):format(what, table.concat(baud, ","), plan.hex and " hex" or "")
end

-- A state comes from a file: what the scan relies on is looked at first.

local NODES = { silent = true, found = true, many = true, mute = true }

local function all(list, is_good)
  if type(list) ~= "table" then return false end
  for key, item in pairs(list) do
    if not is_good(item, key) then return false end
  end
  return true
end

-- Whoever walks a list must not fall into a hole.
local function is_list(value, is_good)
  if not all(value, is_good) then return false end
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  for i = 1, count do
    if value[i] == nil then return false end
  end
  return true
end

local function is_text(value) return type(value) == "string" end

local function is_whole(value) return value == nil or math.type(value) == "integer" and value >= 0 end

local function is_primary(value) return math.type(value) == "integer" and value >= 0 and value <= 250 end

local function is_mask(value) return is_text(value) and (#value == 16 or #value == 24) and not value:find("%X") end

local function is_error(value)
  return value == nil or type(value) == "table" and Error.kinds[value.kind] ~= nil and is_text(value.message)
end

local function is_meter(value)
  return type(value) == "table" and (is_primary(value.address) or is_mask(value.address)) and is_error(value.error)
    and (value.secondary_address == nil or is_mask(value.secondary_address)) and (value.id == nil or is_text(value.id))
    and (value.baudrate == nil or type(value.baudrate) == "number")
end

-- Whether a mask can be split there.
local function is_free(mask, position)
  if not is_whole(position) or position < 1 or position > 24 then return false end
  if position > #mask then return position > 16 end
  if position > 8 and position <= 16 then return position % 2 == 1 and mask:sub(position, position + 1) == "FF" end
  return mask:sub(position, position) == "F"
end

local function is_node(value, mask)
  return is_mask(mask) and type(value) == "table" and NODES[value.kind] ~= nil and is_whole(value.total)
    and (value.position == nil or is_free(mask, value.position))
end

local function is_state(plan, state)
  local place = plan.secondary and is_mask or is_primary
  return state.version == VERSION and is_text(state.key) and is_whole(state.speed) and (state.speed or 0) > 0
    and is_whole(state.next) and state.next ~= 0
    and all(state.nodes, is_node) and is_list(state.found, is_meter) and is_list(state.doubtful, place)
    and is_list(state.untrusted, place) and is_list(state.unaccounted, is_text) and is_list(state.remarks, is_text)
    and is_whole(state.settled) and (state.settled or 0) <= #state.unaccounted
end

local function check_resume(plan, state)
  if not state then return true end
  if not is_state(plan, state) then return invalid("this is not the state of a scan") end
  if state.key ~= plan.key then return invalid("the state to go on with is that of another scan: %s", state.key) end
  return true
end

---@class mbus.scan.Plan
---@field secondary boolean
---@field mask? string
---@field addresses? integer[]
---@field baud (integer|false)[]  false: as it is
---@field key string
---@param level integer
---@param options? mbus.ScanOptions
---@return mbus.ScanOptions? options
---@return mbus.scan.Plan|mbus.Error
local function prepare(level, options)
  if options ~= nil and type(options) ~= "table" then error("options are a table, not " .. type(options), level + 1) end
  options = options or {}
  check(options, level + 1)
  local plan = { secondary = options.secondary == true, probe = options.probe or "nke", retries = options.retries,
    baud = options.baud or { false }, read = options.read, expect = options.expect, hex = options.hex,
    start_depth = options.start_depth or 0, resume = options.resume }
  local err
  if plan.secondary then
    plan.mask, err = parse_mask(options.mask)
  else
    plan.addresses, err = parse_range(options.range)
  end
  if err then return nil, err end
  plan.key = key_of(plan)
  local ok
  ok, err = check_resume(plan, options.resume)
  if not ok then return nil, err end
  return options, plan
end

local OPTIONS = { range = true, mask = true }
for name in pairs(CHECKS) do OPTIONS[name] = true end

return { prepare = prepare, run = run, options = OPTIONS, finds = true }
