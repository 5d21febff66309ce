---Listens without sending anything, and tells of each frame, and of what is none, until time is up or nobody wants to know
---any more. Who has sent a frame shows in its C field.
local core = require "mbus.core"

local TICK = 0.25 -- seconds between looks whether anybody still listens
local MASTER = 0x40

---@class mbus.Monitored
---@field time number  of the end of these bytes, on the clock of the bus
---@field direction "SEND"|"RECV"|"NOISE"  of a master, of a meter, no frame
---@field bytes string
---@field frame? mbus.Frame
---@field line_errors integer  characters with parity or framing errors, and breaks, that came with them

local function direction_of(event)
  if event.kind ~= "frame" then return "NOISE" end
  return event.c and event.c & MASTER ~= 0 and "SEND" or "RECV"
end

local function tell(link, events, time, line_errors)
  for _, event in ipairs(events) do
    link:report("found", { time = time, direction = direction_of(event), bytes = event.bytes,
      frame = event.kind == "frame" and event or nil, line_errors = line_errors })
  end
end

-- When what is unfinished will not be finished any more.
local function patience(link, deframer, since, last)
  local have, need = deframer:pending()
  if have == 0 or not last then return math.huge end
  local whole = need > 0 and since + link:airtime(need) + link.settings.gap or 0
  return math.max(last + link.settings.gap, whole)
end

local function run(link, duration)
  local deframer = core.deframer()
  local ends = duration and link:now() + duration or math.huge
  local since, last = link:now(), nil
  repeat
    local give_up = patience(link, deframer, since, last)
    local bytes, line_errors = link:receive(math.min(ends, give_up, link:now() + TICK))
    if not bytes then return nil, line_errors end
    local now = link:now()
    if bytes ~= "" then
      local begun = deframer:pending() > 0
      local events = deframer:feed(bytes)
      if not begun or #events > 0 then since = now end
      last = now
      tell(link, events, now, line_errors or 0)
    elseif now >= give_up then
      tell(link, deframer:flush(), now, line_errors or 0)
    end
  until now >= ends or link:is_aborted()
  if not link.broken then tell(link, deframer:flush(), link:now(), 0) end
  return true
end

local function prepare(level, options)
  options = options or {}
  local duration = type(options) == "table" and options.duration
  if duration and (type(duration) ~= "number" or duration <= 0 or duration ~= duration) then
    error("option duration: seconds expected", level + 1)
  end
  return options, duration or nil
end

return { prepare = prepare, run = run, options = { duration = true }, finds = true }
