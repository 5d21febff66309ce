-- Drives a bus by hand on a clock of our own, against a meter given as a function.
local core = require "mbus.core"

local M = {}

-- How long bytes take on the line.
local function airtime(bytes, baudrate) return 11 * #bytes / baudrate end

-- Answers of the meter: "bytes", or a list of { delay, bytes, line_errors } counted from the end of the request.
local function schedule(line, answer, from)
  if type(answer) == "string" then answer = { { 0.05, answer } } end
  for _, entry in ipairs(answer or {}) do
    local delay, bytes, errors = table.unpack(entry)
    table.insert(line, { time = from + delay + airtime(bytes, 2400), bytes = bytes, errors = errors })
  end
  table.sort(line, function(a, b) return a.time < b.time end)
end

local function due(line, time) return line[1] and line[1].time <= time and table.remove(line, 1) end

local function drained(line, time)
  local parts = {}
  local entry = due(line, time)
  while entry do
    parts[#parts + 1] = entry.bytes
    entry = due(line, time)
  end
  return table.concat(parts)
end

---Runs what was begun on a bus at 2400 baud to its end.
---@param bus mbus.Bus
---@param meter fun(request: string, count: integer): string|table|nil
---@param world? table  { now=, line=, sent= } of an earlier run, to go on
---@return any result
---@return any err
---@return table world  sent: what the master sent, in hex; times: when; now
function M.play(bus, meter, world)
  world = world or { now = 1000, line = {} }
  world.sent, world.times, world.steps = {}, {}, 0
  while true do
    world.steps = world.steps + 1
    assert(world.steps < 100000, "the procedure does not end")
    local what, argument, err = bus:wants()
    if what == "done" then return argument, err, world end
    if what == "send" then
      table.insert(world.sent, core.hex(argument))
      table.insert(world.times, world.now)
      schedule(world.line, meter(argument, #world.sent), world.now + airtime(argument, 2400))
      bus:feed("", world.now)
    elseif what == "drain" then
      bus:feed(drained(world.line, world.now), world.now)
    else
      local entry = due(world.line, argument)
      world.now = math.max(world.now, entry and entry.time or argument)
      bus:feed(entry and entry.bytes or "", world.now, entry and entry.errors)
    end
  end
end

---The user data of an answer with CI 72: identification digits, access number, records.
function M.user_data(id, access, records)
  local number = assert(core.unhex(id:gsub("(..)(..)(..)(..)", "%4%3%2%1")))
  return number .. "\x24\x23\x28\x04" .. string.char(access) .. "\x00\x00\x00" .. records
end

---An answer of a meter, as bytes.
function M.answer(a, id, access, records) return core.long(0x08, a, 0x72, M.user_data(id, access, records)) end

return M
