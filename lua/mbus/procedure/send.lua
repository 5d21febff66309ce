---Sends any bytes, once, and tells what comes until the answer window has closed and the line is quiet.
local core = require "mbus.core"
local Error = require "mbus.error"
local exchange = require "mbus.procedure.exchange"

---@class mbus.Heard
---@field time number      seconds from the end of the request to the end of these bytes
---@field bytes string
---@field frame? mbus.Frame  absent: the bytes are no frame
---@field line_errors integer  characters with parity or framing errors, and breaks, that came with them

local function keep(heard, events, time, line_errors)
  for _, event in ipairs(events) do
    heard[#heard + 1] = { time = time, bytes = event.bytes, frame = event.kind == "frame" and event or nil,
      line_errors = line_errors }
  end
end

-- An unfinished frame may go beyond the window, but not for ever.
local function deadline_of(link, deframer, window, last)
  local waiting = deframer:pending() > 0 or last and last + link.settings.gap > window
  return waiting and last and math.max(window, last + link.settings.gap) or window
end

local function listen(link, sent, ends, seconds)
  local heard, deframer, echo = {}, core.deframer(), sent
  local window, limit = ends + seconds, ends + seconds + link:longest_answer()
  local last
  repeat
    local bytes, line_errors = link:receive(math.min(limit, deadline_of(link, deframer, window, last)))
    if not bytes then return nil, line_errors end
    if bytes ~= "" then last = link:now() end
    local events = deframer:feed(bytes)
    local over = link:now() >= math.min(limit, deadline_of(link, deframer, window, last))
    if over then
      for _, event in ipairs(deframer:flush()) do events[#events + 1] = event end
    end
    for _, event in ipairs(events) do
      local is_echo = echo and event.bytes == echo
      echo = nil
      link:trace(is_echo and "ECHO" or event.kind == "frame" and "RECV" or "NOISE", event.bytes)
      if not is_echo then keep(heard, { event }, link:now() - ends, line_errors or 0) end
    end
  until over
  return heard
end

-- Whoever was meant has seen a frame count bit that was not ours to choose.
local function forget(link, bytes)
  local frame = core.frame(bytes)
  if not frame or not frame.a or frame.a >= 253 then
    link:forget_all_fcb()
    link.state.deselected = nil
  else
    link:forget_fcb(frame.a)
  end
end

local function run(link, bytes, seconds)
  if link.plan then
    table.insert(link.plan, bytes)
    return {}
  end
  local quiet, err = link:settle()
  if quiet == nil then return nil, err end
  if not quiet then return nil, Error.new("noise", exchange.RESTLESS) end
  forget(link, bytes)
  local ends
  ends, err = link:send(bytes)
  if not ends then return nil, err end
  return listen(link, bytes, ends, seconds or link.settings.timeout)
end

local function prepare(level, bytes, options)
  if type(bytes) ~= "string" or bytes == "" then error("bytes are needed to send", level + 1) end
  options = options or {}
  local seconds = options.listen
  if seconds ~= nil and (type(seconds) ~= "number" or not (seconds >= 0 and seconds < math.huge)) then
    error("option listen: seconds expected", level + 1)
  end
  return options, bytes, seconds
end

return { prepare = prepare, run = run, options = { listen = true } }
