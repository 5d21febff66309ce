---Serial ports by what they are instead of by what the system happens to call them: `usb://1a86:55d5?serial=BC045EABCD&n=2`
---is the third port of the adapter with that serial number, whatever its /dev name is today.
local Error = require "mbus.error"

local M = {}

local BY_ID = "/dev/serial/by-id"

-- --- the list

-- Names that stay the same at every boot, by the port that they lead to; Linux has them.
local function stable_names(uv)
  local found = {}
  local folder = uv.fs_scandir(BY_ID)
  local name = folder and uv.fs_scandir_next(folder)
  while name do
    local path = uv.fs_realpath(BY_ID .. "/" .. name)
    if path then found[path] = BY_ID .. "/" .. name end
    name = uv.fs_scandir_next(folder)
  end
  return found
end

-- Where a port is plugged in, and which of its adapter's ports it is: "1-1.2:1.0".
local function location(uv, name)
  local path = uv.fs_realpath("/sys/class/tty/" .. name:gsub("^.*/", "") .. "/device")
  return path and path:match ".*/([%d.-]+:%d+%.%d+)"
end

-- "ttyUSB10" comes after "ttyUSB9".
local function natural(name)
  return (name:gsub("%d+", function(digits) return ("%010d"):format(math.tointeger(tonumber(digits)) or 0) end))
end

-- Several ports may share an interface: those are named in their order.
local function place(port) return natural((port.location or "~") .. " " .. port.name) end

-- What a USB device says of itself may be any bytes.
local function clean(port)
  for _, name in ipairs { "description", "manufacturer", "product", "serial" } do
    local text = port[name]
    if text and not utf8.len(text) then text = text:gsub("[\x80-\xFF]", "?") end
    port[name] = text and text:gsub("%c", "?")
  end
end

---@class mbus.SerialPortInfo : mbus.serial.Info
---@field stable? string    "/dev/serial/by-id/usb-FTDI_..."
---@field location? string  USB bus, ports and interface: "1-1.2:1.0"
---@field url? string       that names the port among those that are there

-- A URL for each USB port, as short as it can be. `n` counts all that `find` will find.
local function add_urls(ports)
  local same = {}
  local function note(base, port)
    port.url = base
    same[base] = same[base] or {}
    table.insert(same[base], port)
  end
  for _, port in ipairs(ports) do
    if port.vid then
      note(("usb://%04x:%04x"):format(port.vid, port.pid), port)
      if port.serial and port.serial:find "^[%w._-]+$" then note(port.url .. "?serial=" .. port.serial, port) end
    end
  end
  for base, list in pairs(same) do
    for i, port in ipairs(list) do
      local which = ("%sn=%d"):format(base:find("?", 1, true) and "&" or "?", i - 1)
      if #list > 1 and port.url == base then port.url = base .. which end
    end
  end
end

---The serial ports of this machine, those of one adapter in the order of its interfaces.
---@return mbus.SerialPortInfo[]? ports
---@return mbus.Error? err
function M.list()
  local uv = require("mbus.runtime").luv()
  local ports, message, kind = require("mbus.serial").ports()
  if not ports then return nil, Error.new(kind, message) end
  local stable = stable_names(uv)
  for _, port in ipairs(ports) do
    clean(port)
    port.stable = stable[port.name]
    if port.kind == "usb" then port.location = port.location or location(uv, port.name) end
  end
  table.sort(ports, function(one, other) return place(one) < place(other) end)
  add_urls(ports)
  return ports
end

-- --- the choice

local function describe(port)
  local what = {}
  for _, name in ipairs { "manufacturer", "product" } do what[#what + 1] = port[name] end
  return ("%s%s%s"):format(port.name, port.url and " = " .. port.url or "",
    #what > 0 and " (" .. table.concat(what, " ") .. ")" or "")
end

local function describe_all(ports)
  local lines = {}
  for _, port in ipairs(ports) do lines[#lines + 1] = describe(port) end
  return table.concat(lines, ", ")
end

local function usb_only(ports)
  local list = {}
  for _, port in ipairs(ports) do
    if port.vid then list[#list + 1] = port end
  end
  return list
end

local function not_found(name, ...) return nil, Error.new("not_found", string.format(...), { bus = name }) end

local function choose(name, wanted, matches, ports)
  if #matches == 0 then
    if #ports == 0 then return not_found(name, "no such port: no USB serial port is there") end
    return not_found(name, "no such port; there %s: %s", #ports == 1 and "is" or "are", describe_all(ports))
  end
  if wanted.n then
    local port = matches[wanted.n + 1]
    if port then return port.name end
    return not_found(name, "no port n=%d; %d %s, n from 0: %s", wanted.n, #matches, #matches == 1 and "matches" or "match",
      describe_all(matches))
  end
  if #matches == 1 then return matches[1].name end
  return nil, Error.new("invalid", ("%d ports match, say which with n= or serial=: %s"):format(#matches, describe_all(matches)),
    { bus = name })
end

---@param name string   for messages
---@param wanted table  vid, pid, serial?, n?
---@return string? path  of the port, at this moment
---@return mbus.Error? err  not_found: nothing matches; invalid: several do; both list what is there
function M.find(name, wanted)
  local ports, err = M.list()
  if not ports then return nil, Error.wrap(err, { bus = name }) end
  ports = usb_only(ports)
  local matches = {}
  for _, port in ipairs(ports) do
    local fits = port.vid == wanted.vid and port.pid == wanted.pid
    if fits and (not wanted.serial or port.serial == wanted.serial) then matches[#matches + 1] = port end
  end
  return choose(name, wanted, matches, ports)
end

---@param parsed mbus.Url
---@param options table  checked by mbus.transport
---@return mbus.SerialTransport? transport
---@return mbus.Error? err  not_found invalid permission busy io unsupported
function M.open(parsed, options)
  local wanted = { vid = parsed.vid, pid = parsed.pid, serial = options.serial, n = options.n }
  return require("mbus.transport.serial").open(parsed, options, function() return M.find(parsed.path, wanted) end)
end

return M
