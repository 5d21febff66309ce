---What TCP and UDP share: names of hosts, and what libuv says, in words.
local Error = require "mbus.error"
local runtime = require "mbus.runtime"

local M = {}

-- What libuv says, for people: kind and text.
local REASONS = {
  ECONNREFUSED = { "refused", "connection refused: nobody listens at that port, or somebody else uses the gateway" },
  EHOSTUNREACH = { "unknown_host", "the host cannot be reached" },
  ENETUNREACH = { "unknown_host", "the host cannot be reached: no network" },
  EHOSTDOWN = { "unknown_host", "the host cannot be reached" },
  EAI_NONAME = { "unknown_host", "unknown host" },
  EAI_NODATA = { "unknown_host", "unknown host: the name has no address" },
  EAI_AGAIN = { "unknown_host", "unknown host: no name server answers" },
  EOF = { "closed", "the other side closed the connection" },
  ECONNRESET = { "closed", "the other side reset the connection" },
  ECONNABORTED = { "closed", "the connection was aborted" },
  EPIPE = { "closed", "the other side closed the connection" },
  ENOTCONN = { "closed", "the connection is closed" },
  ETIMEDOUT = { "closed", "the other side takes nothing any more: connection lost" },
}

---@param name string  of the bus
---@param code string  libuv's name of the error
---@return mbus.Error
function M.error(name, code)
  local reason = REASONS[code] or { code:find "^EAI_" and "unknown_host" or "io", "network failure" }
  return Error.new(reason[1], reason[2], { bus = name, code = code })
end

---@return string  "tcp://10.0.0.5:10001", "udp://[fe80::1]:10001"
function M.name(scheme, host, port)
  return ("%s://%s:%d"):format(scheme, host:find(":", 1, true) and "[" .. host .. "]" or host, port)
end

-- What is an address already needs nobody to look it up.
local function is_ipv4(host)
  local count = 0
  for part in (host .. "."):gmatch("(%d%d?%d?)%.") do
    if tonumber(part) > 255 then return false end
    count = count + 1
  end
  return count == 4 and host:find("^%d+%.%d+%.%d+%.%d+$") ~= nil
end

---@param host string
---@param socktype "stream"|"dgram"
---@param deadline number
---@return table[]? addresses  each with `addr`
---@return string? code  libuv's name of the error
function M.resolve(host, socktype, deadline)
  if is_ipv4(host) or host:find(":", 1, true) then return { { addr = host } } end -- with its scope: fe80::1%eth0
  local code, list = runtime.await(function(resume)
    local uv = runtime.luv()
    local done = false
    local cancel = runtime.after(deadline - runtime.now(), function() resume "ETIMEDOUT" end)
    local request, _, name = uv.getaddrinfo(host, nil, { socktype = socktype }, function(err, addresses)
      done = true
      resume(err, addresses)
    end)
    if not request then resume(name) end
    return function()
      cancel()
      if request and not done then uv.cancel(request) end
    end
  end)
  if code then return nil, code end
  return list
end

-- No serial line fills a network: whoever sends more than the fastest of them for long is something else.
local RATE, BURST = 4096, 65536   -- bytes a second, bytes at once

---Counts what comes.
---@return fun(count: integer, now: number): boolean flooded
function M.meter()
  local level, last = 0, nil
  return function(count, now)
    level = math.max(0, level - (now - (last or now)) * RATE) + count
    last = now
    return level > BURST
  end
end

---@return mbus.Error
function M.flood(name)
  return Error.new("noise", "endless bytes, more than a serial line can carry: this is no M-Bus gateway", { bus = name })
end

return M
