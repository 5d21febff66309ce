---What a script can ask the bus for, one thing at a time: procedures for `bus:run`. Each returns { result, data }; results
---below 0 are errors, by the numbers that such scripts know. Times are seconds.
local M = {}

---@class mbus.freeclient.Request
---@field kind "timer"|"rs485"|"tcp"
---@field packet? string    to send
---@field deadline? number  timer: on the clock of the bus
---@field idle? number      rs485: silence before sending
---@field timeout? number   rs485: until the answer begins; tcp: until `least` bytes are there
---@field maxlen? integer   rs485: a longer answer is an overflow
---@field least? integer    tcp
---@field most? integer     tcp
---@field callback function

local BUSMESS, NOREPLY, BYTE, OVERFLOW = -1, -2, -3, -5
local TIMEOUT, READ, WRITE, CONNECT = -1, -2, -3, -4

local SLICE = 0.25 -- seconds after which an operation looks whether it is still wanted

-- Waits for bytes; "" at the deadline, or when the host is told to stop.
local function receive(link, deadline, host)
  repeat
    local bytes, line_errors = link:receive(math.min(deadline, link:now() + SLICE))
    if bytes ~= "" then return bytes, line_errors end
  until host.stopping or link:now() >= deadline
  return ""
end

local function sleep(link, deadline, host)
  while link:now() < deadline and not host.stopping do
    if not link:sleep(math.min(deadline, link:now() + SLICE)) then return nil end
  end
  return true
end

function M.timer(link, request, host) return { broken = not sleep(link, request.deadline, host) } end

-- Waits until nobody has spoken for so long.
local function settle(link, idle, host)
  local limit = link:now() + 10 * idle + 1
  repeat
    if not link:drain() then return nil end
    if not sleep(link, (link.state.quiet_since or -math.huge) + idle, host) then return nil end
    local unasked = link:drain()
    if not unasked then return nil end
    if unasked == "" and link:now() >= (link.state.quiet_since or -math.huge) + idle then return true end
  until host.stopping or link:now() >= limit
  return false
end

-- An answer ends with a silence.
local function listen(link, deadline, maxlen, host)
  local parts, size, damaged = {}, 0, 0
  while true do
    local bytes, line_errors = receive(link, deadline, host)
    if not bytes then return BUSMESS, "" end
    if bytes == "" then break end
    parts[#parts + 1] = bytes
    size, damaged = size + #bytes, damaged + (line_errors or 0)
    if size > maxlen then break end
    deadline = link:now() + link.settings.gap
  end
  local data = table.concat(parts)
  link:trace("RECV", data)
  if size == 0 then return NOREPLY, "" end
  if size > maxlen then return OVERFLOW, data:sub(1, maxlen) end
  if damaged > 0 then return BYTE, data end
  return size, data
end

function M.rs485(link, request, host)
  local quiet = settle(link, request.idle, host)
  if not quiet then return { BUSMESS, "", broken = quiet == nil } end
  local ends = link:send(request.packet)
  if not ends then return { BUSMESS, "", broken = true } end
  local result, data = listen(link, ends + request.timeout, request.maxlen, host)
  return { result, data, broken = link.broken ~= nil }
end

local NO_CONNECTION = { refused = true, unknown_host = true, timeout = true, not_found = true, permission = true, busy = true }

local function send(link, host, packet)
  host.received = ""
  if not link:drain() then return CONNECT end
  local ends, err = link:send(packet)
  if not ends then return NO_CONNECTION[err.kind] and CONNECT or WRITE end
end

function M.tcp(link, request, host)
  local failure = request.packet and send(link, host, request.packet)
  if failure then return { failure, "", broken = true } end
  local deadline = link:now() + request.timeout
  while #host.received < request.least do
    local bytes = receive(link, deadline, host)
    if not bytes then return { READ, host.received, broken = true } end
    if bytes == "" then return { TIMEOUT, host.received } end
    host.received = host.received .. bytes
  end
  local data = host.received:sub(1, request.most)
  host.received = host.received:sub(#data + 1)
  link:trace("RECV", data)
  return { #data, data }
end

return M
