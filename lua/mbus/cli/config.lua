---mbus config: checks a config for `mbus poll`, or makes one of what is found on a bus.
local bus_options = require "mbus.cli.bus"
local console = require "mbus.cli.console"
local export = require "mbus.cli.export"
local signals = require "mbus.cli.signals"

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

local LONGEST = 4 * 366 * 86400000 -- ms

local function milliseconds(argument)
  local value = math.tointeger(tonumber(argument))
  if not value or value < 100 or value > LONGEST then
    return nil, ("'%s' is no whole number from 100 to %d"):format(argument, LONGEST)
  end
  return value
end

local function connection_name(argument)
  local good = utf8.len(argument) and #argument <= 1000 and argument:find("^[^%s/][^/]*$") and not argument:find("%c")
  if good then return argument end
  return nil, ("'%s' is no name: no slash, no blank in front"):format(argument)
end

local function define_make(command)
  bus_options.define(command)
  command:option("-o --output", "Write the config to this file, which must not be there yet."):argname("<file>")
  command:option("-a --address", "Take this meter instead of searching the bus; may be given several times."):count("*")
    :argname("<address>")
  command:flag("--secondary", "Search by identification numbers instead of primary addresses.")
  command:option("--range", "Primary addresses to search, as in 1-20,30 (default 0-250)."):argname("<range>")
  command:option("--mask", "Search only identification numbers that match; F is a wildcard."):argname("<mask>")
  command:option("--name", "Name of the connection."):argname("<name>"):default("bus")
    :convert(connection_name)
  command:option("--period", "Milliseconds between two polls."):argname("<ms>"):default("300000")
    :convert(milliseconds)
  command:epilog [[
Writes one binding for every record of every meter found, with its unit, index,
id and find. How the bus is talked to (--timeout, --gap, ...) is taken over,
keys are not.

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

-- Meters of which there is a readout, and what is to be said of the others.
local function new_list()
  local list = { missed = {} }
  function list.miss(err)
    list.missed[#list.missed + 1] = tostring(err)
    console.complain(err)
  end
  return list
end

-- The meters whose addresses are given.
local function read_given(bus, addresses, interactive)
  local list, seen = new_list(), {}
  for _, address in ipairs(addresses) do
    progress(interactive, ("reading %s … "):format(address))
    local readout, err
    if not seen[address] then readout, err = bus:read(address) end
    seen[address] = true
    progress(interactive, "")
    if err then list.miss(err) end
    list[#list + 1] = readout and { address = readout.address, readout = readout } or nil
  end
  return list
end

local function add_found(list, meter)
  if meter.readout then
    list[#list + 1] = meter
  else
    list.miss(("address %s: %s"):format(meter.address, meter.collision
      and "several meters answer: search with --secondary" or tostring(meter.error)))
  end
end

local function search(bus, options, interactive)
  function options.progress(news)
    progress(interactive, ("%3d %%, %d found, at %s "):format(news.fraction * 100 // 1, news.found, news.current))
  end
  local scan, list = bus:scan(options), new_list()
  local interrupted
  local release = signals.watch(function()
    interrupted = true
    scan:abort()
  end)
  for meter in scan do
    progress(interactive, "")
    add_found(list, meter)
  end
  release()
  progress(interactive, "")
  for _, mask in ipairs(scan.result and scan.result.unaccounted or {}) do
    list.miss(("%s: more answers than meters found"):format(mask))
  end
  if interrupted then list.miss("interrupted") elseif scan.error then list.miss(scan.error) end
  return list
end

---@return table? options  of a scan
---@return any message
local function options_of(args)
  local options = { secondary = args.secondary, range = args.range, mask = args.mask, read = true }
  if #args.address > 0 then
    if args.secondary or args.range or args.mask then return nil, "--address goes without a search" end
    return options
  end
  if args.mask and not args.secondary then return nil, "--mask goes with --secondary" end
  if args.range and args.secondary then return nil, "--range goes without --secondary" end
  local ok, err = require("mbus.procedure.scan").prepare(1, options)
  if not ok then return nil, err end
  return options
end

local function exists(path)
  local file = path and io.open(path, "rb")
  if file then file:close() end
  return file and path .. ": is there already, and is not replaced"
end

local function write_file(path, text)
  local there = exists(path)
  if there then return nil, there end
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  local ok
  ok, message = file:write(text)
  local closed, close_message = file:close()
  if ok and closed then return true end
  os.remove(path) -- half a config is none
  return nil, ("%s: %s"):format(path, message or close_message)
end

local function give(args, text)
  if args.output then return write_file(args.output, text) end
  console.write(text)
  console.flush()
  return true
end

-- What the config says as the command line did.
local function settings_of(args, list)
  local in_url = require("mbus.transport").parse(args.url)
  return { url = args.url, name = args.name, period = args.period, missed = list.missed,
    baudrate = not (in_url and in_url.options.baudrate) and args.baudrate or nil,
    timeout = args.timeout and math.max(10, math.min(args.timeout * 1000, 600000)),
    attempts = args.retries and math.min(args.retries + 1, 100),
    options = { margin = args.margin, gap = args.gap, max_telegrams = args.max_telegrams, nke = args.no_nke and "never" or nil },
    has_keys = #args.key > 0 }
end

local function make(args)
  local options, message = options_of(args)
  message = message or exists(args.output)
  if message then
    console.complain(message)
    return console.USAGE
  end
  local bus, code = bus_options.open(args)
  if not bus then return code end
  local interactive = not args.trace and console.is_terminal(2)
  local list = #args.address > 0 and read_given(bus, args.address, interactive) or search(bus, options, interactive)
  bus:close()
  if #list == 0 then
    console.complain("no meter found")
    return console.INCOMPLETE
  end
  local ok, reason = give(args, require("mbus.gateway.maker").config(list, settings_of(args, list)))
  if not ok then
    console.complain(reason)
    return console.USAGE
  end
  return #list.missed == 0 and console.OK or console.INCOMPLETE
end

function M.run(args)
  if args.action == "make" then return make(args) end
  return check(args)
end

return M
