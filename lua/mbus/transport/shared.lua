---One bus, however often this program opens it: a serial port, a gateway and a line have room for one master. Who opens
---the same bus again gets a handle of his own on the same transport. The last one that is closed closes it.
local Error = require "mbus.error"
local runtime = require "mbus.runtime"
local transport = require "mbus.transport"

local M = {}

local open = {}         -- what is open, by key: { key, handles, options, transport }
local commons = setmetatable({}, { __mode = "k" })

---What all users of a transport have in common: a table to keep it in, the same for every handle.
---@param line table  a transport
---@return table  with `line`, the transport itself
function M.common(line)
  local entry = getmetatable(line) == M.Handle and rawget(line, "entry")
  local key = entry and entry.transport or line
  commons[key] = commons[key] or { line = key }
  return commons[key]
end

-- --- a handle

---@class mbus.SharedTransport : mbus.Transport
local Handle = {}
M.Handle = Handle

-- Its fields are those of the transport: margin and baud rate may change.
function Handle:__index(name)
  if Handle[name] then return Handle[name] end
  local value = rawget(self, "entry").transport[name]
  if type(value) ~= "function" then return value end
  return function(first, ...)
    if first == self then
      if self.closed then return nil, self.lost end
      first = rawget(self, "entry").transport
    end
    return value(first, ...)
  end
end

-- A call that waits: closed meanwhile, it has no result.
for _, name in ipairs { "write", "read", "drain" } do
  Handle[name] = function(self, ...)
    if self.closed then return nil, self.lost end
    local line = self.entry.transport
    self.busy = true
    local result, extra = line[name](line, ...)
    self.busy = false
    if self.closed then return nil, self.lost end
    return result, extra
  end
end

---Idempotent. Others who have opened the same bus keep it.
function Handle:close()
  if self.closed then return end
  self.closed, self.lost = true, Error.new("closed", "the bus is closed", { bus = self.entry.transport.name })
  local entry = self.entry
  entry.handles = entry.handles - 1
  if entry.handles == 0 then
    open[entry.key] = nil
    entry.transport:close()
  elseif self.busy and entry.transport.wake then
    entry.transport:wake()
  end
end

Handle.__close = Handle.close

local function new_handle(entry)
  entry.handles = entry.handles + 1
  -- What every request needs is found at once.
  return setmetatable({ entry = entry, closed = false, busy = false, write = Handle.write, read = Handle.read,
    drain = Handle.drain }, Handle)
end

-- --- opening

local function port_of(path) return runtime.luv().fs_realpath(path) or path end

-- What tells one bus from another; nil: each opening makes a new one.
local function key_of(parsed, options)
  if parsed.scheme == "serial" then return "serial " .. parsed.path end
  if parsed.scheme == "usb" then
    return ("usb %04x:%04x %s %s"):format(parsed.vid, parsed.pid, options.serial, options.n)
  end
  if parsed.host then return ("%s %s %d"):format(parsed.scheme, parsed.host:lower(), parsed.port) end
end

-- The bus, if it is open. A serial port has several names, and gets others when adapters are plugged in again: what counts is
-- where they lead now.
local function find(parsed, key)
  if open[key] or parsed.scheme ~= "serial" then return open[key] end
  local port = port_of(parsed.path)
  for _, entry in pairs(open) do
    if entry.path and port_of(entry.path) == port then return entry end
  end
end

-- The line has one speed and one format, whoever uses it.
local LINE = { "baudrate", "parity", "databits", "stopbits", "rts", "dtr", "rs485" }
local STANDARD = { baudrate = 2400, parity = "even", databits = 8, stopbits = 1, rts = "leave", dtr = "leave", rs485 = "leave" }

-- Who says nothing takes what is there. The speed may have been changed since.
local function join(entry, url, options)
  entry.options.baudrate = entry.transport.baudrate
  for _, name in ipairs(LINE) do
    local there = entry.options[name]
    if there == nil then there = STANDARD[name] end
    if options[name] ~= nil and options[name] ~= there then
      return nil, Error.new("busy", ("open already in this program, with %s %s"):format(name, tostring(there)), { bus = url })
    end
  end
  return new_handle(entry)
end

local function create(key, parsed, url, options)
  local line, err = transport.open(url, options)
  if not line then return nil, err end
  local of_line = {}
  for _, name in ipairs(LINE) do of_line[name] = options[name] end
  open[key] = { key = key, path = parsed.scheme == "serial" and parsed.path or nil, handles = 0, options = of_line,
    transport = line }
  return new_handle(open[key])
end

local opening = {}      -- locks: who opens the same bus at the same time waits

---Opens what a URL names, or shares it if it is open.
---@param url string
---@param options? table  as of `mbus.transport.open`; what sets the line must be the same for all
---@return mbus.Transport? transport
---@return mbus.Error? err  and `busy`: open with other settings
function M.open(url, options)
  local parsed, err = transport.parse(url)
  if not parsed then return nil, err end
  local merged
  merged, err = transport.merge(parsed, options or {})
  if not merged then return nil, err end
  local key = key_of(parsed, merged)
  if not key then return transport.open(url, options) end
  options = merged
  local name = parsed.scheme == "serial" and port_of(parsed.path) or key
  local lock = opening[name] or runtime.lock()
  opening[name] = lock
  lock:acquire()
  local _ <close> = setmetatable({}, { __close = function()
    lock:release()
    if not lock.held then opening[name] = nil end
  end })
  local entry = find(parsed, key)
  if entry then return join(entry, url, options) end
  return create(key, parsed, url, options)
end

return M
