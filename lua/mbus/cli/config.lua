---mbus config: checks a config for `mbus poll`, or makes one of what is found on a bus.
local bus_options = require "mbus.cli.bus"
local console = require "mbus.cli.console"
local export = require "mbus.cli.export"

local M = {}

M.summary = "Check a config for mbus poll, or make one of the meters on a bus."

local function define_check(command)
  command:argument("config", "The config: a Lua file that returns a table, or the bus export of a BACRouter."):argname("<config>")
  export.define(command)
  command:epilog [[
Names every wrong setting by its path, with what is allowed. Opens nothing.

Example:
  mbus config check house.lua]]
end

local function define_make(command)
  bus_options.define(command)
  command:option("-o --output", "Write the config to this file, which must not be there yet."):argname("<file>")
  command:option("-a --address", "Take this meter instead of searching the bus; may be given several times."):count("*")
    :argname("<address>")
  command:flag("--secondary", "Search by identification numbers instead of primary addresses.")
  command:option("--range", "Primary addresses to search, as in 1-20,30 (default 0-250)."):argname("<range>")
  command:option("--mask", "Search only identification numbers that match; F is a wildcard."):argname("<mask>")
  command:option("--name", "Name of the connection (default bus)."):argname("<name>"):default("bus")
  command:option("--period", "Milliseconds between two polls (default 300000)."):argname("<ms>"):default("300000")
    :convert(tonumber)
  command:epilog [[
Writes one binding for every record of every meter found, with its unit, index and id.

Examples:
  mbus config make /dev/ttyUSB0 --range 1-20 -o house.lua
  mbus config make tcp://192.168.1.50:10001 --secondary
  mbus config make sim: -a 10 -a 3189274724232804]]
end

function M.define(command)
  command:command_target("action"):require_command(true)
  local function complain(self, message) return command.error(self, message) end
  local check = command:command("check", "Check a config; opens nothing.")
  local make = command:command("make", "Make a config of the meters on a bus.")
  define_check(check)
  define_make(make)
  check.error, make.error = complain, complain
  command:epilog [[
Examples:
  mbus config check house.lua
  mbus config make /dev/ttyUSB0 -o house.lua]]
end

-- ------------------------------------------------------------------ check

local function check(args)
  local config, err = require("mbus.gateway.config").read(args.config, { ports = export.ports(args) })
  if not config then
    export.complain(err, args.config)
    return console.INCOMPLETE
  end
  for _, warning in ipairs(config.warnings) do
    console.complain(("%s: warning: %s: %s"):format(args.config, warning.path, warning.message))
  end
  local bindings = 0
  for _, connection in ipairs(config.connections) do bindings = bindings + #connection.bindings end
  console.write(("%s: good, %d %s with %d %s\n"):format(args.config, #config.connections,
    #config.connections == 1 and "connection" or "connections", bindings, bindings == 1 and "binding" or "bindings"))
  return console.OK
end

-- ------------------------------------------------------------------ make

local function progress(interactive, message)
  if interactive then io.stderr:write("\r\27[K", message) end
end

-- The meters whose addresses are given.
local function read_given(bus, addresses, interactive)
  local found, complete = {}, true
  for _, address in ipairs(addresses) do
    progress(interactive, ("reading %s … "):format(address))
    local readout, err = bus:read(address)
    progress(interactive, "")
    if not readout then
      console.complain(err)
      complete = false
    end
    found[#found + 1] = readout and { address = readout.address, readout = readout } or nil
  end
  return found, complete
end

local function search(bus, args, interactive)
  local scan = bus:scan { secondary = args.secondary, range = args.range, mask = args.mask, read = true,
    progress = function(news)
      progress(interactive, ("%3d %%, %d found, at %s "):format(news.fraction * 100 // 1, news.found, news.current))
    end }
  local found, complete = {}, true
  for meter in scan do
    progress(interactive, "")
    if meter.readout then
      found[#found + 1] = meter
    else
      complete = false
      console.complain(("address %s: %s"):format(meter.address, meter.collision
        and "several meters answer: search with --secondary" or tostring(meter.error)))
    end
  end
  progress(interactive, "")
  if scan.error then console.complain(scan.error) end
  return found, complete and not scan.error
end

local function collect(bus, args)
  local interactive = not args.trace and console.is_terminal(2)
  if args.address and #args.address > 0 then return read_given(bus, args.address, interactive) end
  return search(bus, args, interactive)
end

local function write_file(path, text)
  local there = io.open(path, "rb")
  if there then
    there:close()
    return nil, path .. ": is there already, and is not replaced"
  end
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  local ok
  ok, message = file:write(text)
  local closed, close_message = file:close()
  if ok and closed then return true end
  return nil, message or close_message
end

local function make(args)
  local bus, code = bus_options.open(args)
  if not bus then return code end
  local found, complete = collect(bus, args)
  bus:close()
  local text = require("mbus.gateway.maker").config(found, { url = args.url, name = args.name, period = args.period,
    baudrate = args.baudrate })
  if not args.output then
    console.write(text)
    console.flush()
  else
    local ok, message = write_file(args.output, text)
    if not ok then
      console.complain(message)
      return console.USAGE
    end
  end
  if #found == 0 then console.complain("no meter found") end
  return #found > 0 and complete and console.OK or console.INCOMPLETE
end

function M.run(args)
  if args.action == "make" then return make(args) end
  return check(args)
end

return M
