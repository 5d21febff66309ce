---M-Bus master: decode telegrams, read meters.
---
---    local mbus = require "mbus"
---    local telegram = assert(mbus.decode(bytes))
---    local bus <close> = assert(mbus.open("/dev/ttyUSB0"))
---    local readout = assert(bus:read(5))
---
---Decoding needs nothing but the C core; serial ports, sockets and the simulator are loaded when they are used.
local core = require "mbus.core"
local decode = require("mbus.decode").telegram

---@class mbus
---@field freeclient table  host for BACRouter-style free-client scripts, see freeclient/init.lua
---@field gateway fun(config: table|string): table?, mbus.Error?  connections, bindings, polling, see gateway/init.lua
---@field security table   encryption of telegrams, see security.lua
---@field encode mbus.encode  makes bytes: data records, headers, telegrams, and every frame that a master sends
---@field simulator table  meters and a whole bus without hardware, see simulator/init.lua
---@field spawn fun(fn: function, ...)  starts a coroutine in which requests yield instead of blocking
---@field run fun()  runs all that was spawned until nothing is left to do
local M = {}

local function formats(value)
  if type(value) ~= "table" then return "a table expected" end
end

local DECODE_OPTIONS = { formats = formats, address = true,
  keys = function(value) return require("mbus.options").keys(value) end }

---Reads one telegram. Its records are decoded when they are asked for.
---@param bytes string  exactly one frame
---@param options? mbus.DecodeOptions  keys of encrypted meters, formats of compact frames
---@return mbus.Telegram? telegram  with `telegram.error` if its tail is damaged; the records before it are good
---@return mbus.Error? err  the frame itself is bad; beside a telegram: its header is good, but it could not be decrypted
function M.decode(bytes, options)
  if type(bytes) ~= "string" then error("bytes are a string, not " .. type(bytes), 2) end
  if options ~= nil then require("mbus.options").check(options, DECODE_OPTIONS, 2) end
  return decode(bytes, options)
end

-- What is no transport would be noticed at the first request only.
local function check_transport(transport, level)
  for _, name in ipairs { "write", "read", "drain", "close" } do
    if not transport[name] then error("a transport has write, read, drain and close; this has no " .. name, level + 1) end
  end
  return transport
end

---Opens a bus.
---@param url string|table  "/dev/ttyUSB0", "COM3", "tcp://host:port", "sim:FILE"; "manual:" for a bus that the caller drives
---by hand; or a transport of one's own, or a simulator
---@param options? mbus.BusOptions  and what the transport understands
---@return mbus.Bus? bus
---@return mbus.Error? err
function M.open(url, options)
  local Bus = require "mbus.bus"
  Bus.check(options, 2) -- before anything is opened
  if type(url) == "table" or type(url) == "userdata" then
    return Bus.new(check_transport(url.transport and url:transport() or url, 2), options)
  end
  if type(url) ~= "string" then error("a URL or a transport is needed, not " .. type(url), 2) end
  if url == "manual:" then return Bus.new(nil, options) end
  local transport, err = require("mbus.transport.shared").open(url, options)
  if not transport then return nil, err end
  return Bus.new(transport, options)
end

---Upper case hex digits; the separator is " " by default.
---@type fun(bytes: string, separator?: string): string
M.hex = core.hex

---Of hex digits; spaces, ":", "-", "," and 0x are skipped.
---@type fun(text: string): string?, mbus.Error?
M.unhex = core.unhex

local LAZY = {
  freeclient = function() return require "mbus.freeclient" end,
  gateway = function() return require("mbus.gateway").new end,
  encode = function() return require "mbus.encode" end,
  simulator = function() return require "mbus.simulator" end,
  security = function() return require "mbus.security" end,
  spawn = function() return require("mbus.runtime").spawn end,
  run = function() return require("mbus.runtime").run end,
}

return setmetatable(M, {
  __index = function(self, name)
    local value = LAZY[name] and LAZY[name]()
    if value ~= nil then rawset(self, name, value) end
    return value
  end,
})
