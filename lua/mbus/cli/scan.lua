---mbus scan: finds the meters of a bus.
local bus_options = require "mbus.cli.bus"
local console = require "mbus.cli.console"
local meters = require "mbus.format.meters"
local progress = require "mbus.cli.progress"
local signals = require "mbus.cli.signals"

local M = {}

M.summary = "Find the meters of a bus."

local POLL, SAVE = 0.1, 2 -- seconds between looks for a signal, and between two savings

local function whole(least)
  return function(value)
    local number = math.tointeger(tonumber(value))
    if not number or number < least then return nil, ("'%s' is no whole number from %d"):format(value, least) end
    return number
  end
end

local function speeds(list)
  local baud = {}
  for part in (list .. ","):gmatch("([^,]*),") do
    local number = math.tointeger(tonumber(part))
    if not require("mbus.request").BAUDRATES[number or 0] then
      return nil, ("'%s' is no line speed (300, 600, 1200, 2400, 4800, 9600, 19200, 38400)"):format(part)
    end
    baud[#baud + 1] = number
  end
  return baud
end

function M.define(command)
  bus_options.define(command)
  command:option("--range", "Primary addresses: 0-250 (default), 5, 1-20,30."):argname("<range>")
  command:flag("-s --secondary", "Search by secondary address (identification number).")
  command:option("--mask", "Only meters that match these 8 or 16 hex digits, F is a wildcard; with --secondary.")
    :argname("<mask>")
  command:flag("--read", "Read each meter on the way.")
  command:option("--baud", "Line speeds to search at, one after another: 300,2400,9600."):convert(speeds):argname("<list>")
  command:option("--expect", "How many meters there are: ends with the last, looks twice for a missing one.")
    :convert(whole(1)):argname("<n>")
  command:option("--probe", "What a primary address is asked with: nke (default), req, both."):argname("<how>")
    :choices { "nke", "req", "both" }
  command:flag("--hex", "Search for digits A to E in identification numbers too.")
  command:option("--start-depth", "Begin with so many fixed digits, for weak converters on large buses (0 to 3).")
    :convert(whole(0)):argname("<n>")
  command:option("--resume", "Keep the state in this file; go on where an interrupted scan stopped."):argname("<file>")
  command:option("-f --format", "How the list is printed: table, json, jsonl or csv."):choices(meters.formats)
    :default("table"):argname("<format>")
  command:epilog [[
Silent addresses are asked once, or as often again as --retries says. Ctrl-C ends the scan with no meter selected.
Exit code 1: nothing was found, or not everything that answered is accounted for.

Examples:
  mbus scan /dev/ttyUSB0
  mbus scan /dev/ttyUSB0 --secondary --mask 31FFFFFF
  mbus scan tcp://192.168.1.50:10001 -s --read -f json --resume scan.state]]
end

--- State of an interrupted scan ---------------------------------------------------------------------------------

---@return table? state  nil: there is none
---@return string? message  why the file is no good
local function load_state(name)
  local file, message, code = io.open(name, "rb")
  if not file then
    if code == 2 then return nil end -- ENOENT
    return nil, message
  end
  local content = file:read("a")
  file:close()
  -- Raises where it is nested too deeply.
  local ok, state = require("mbus.error").pcall(require("dkjson").decode, content or "", 1, nil, nil, nil)
  if not ok or type(state) ~= "table" then return nil, name .. ": this is not the state of a scan" end
  return state
end

-- Written beside and moved over: there is always a whole file.
local function write_state(name, state)
  local beside = name .. ".new"
  local file, message = io.open(beside, "wb")
  if not file then return nil, message end
  local ok
  ok, message = file:write((require("dkjson").encode(state)))
  if ok then ok, message = file:close() else file:close() end
  if not ok then message = ("%s: %s"):format(beside, message) end
  if ok then ok, message = os.rename(beside, name) end
  if not ok then os.remove(beside) end
  return ok, message
end

local function now() return require("mbus.runtime").now() end

---Keeps the state in a file.
local function keeper(name)
  local self = { last = -math.huge }
  function self.save(state)
    self.state = state
    if not name or now() - self.last < SAVE then return end
    self.last = now()
    self.write()
  end
  function self.write()
    if not (name and self.state) then return end
    local ok, message = write_state(name, self.state)
    if not ok and not self.told then console.complain(message) end
    self.told = not ok
  end
  function self.finish(is_done)
    if is_done and name then os.remove(name) else self.write() end
  end
  return self
end

--- Scanning -----------------------------------------------------------------------------------------------------

-- That nobody reads any more is told by the next write, not by the end of the program.
local function survive_pipe()
  local runtime = require "mbus.runtime"
  local handle = runtime.luv().new_signal()
  pcall(handle.start, handle, "sigpipe", function() end) -- not every system has it
  return function() runtime.close(handle) end
end

-- Looks for signals also where nothing ever waits, as on a simulated bus.
local function poller()
  local last = now()
  return function()
    if now() - last < POLL then return end
    last = now()
    require("mbus.runtime").poll()
  end
end

local function prints_readouts(args) return args.read and (args.format == "table" or args.format == "csv") end

-- Readouts as `mbus read` prints them; a list otherwise, where a readout in JSON is part of its meter.
local function lister(args, put)
  if prints_readouts(args) then
    local output = require("mbus.cli.output").new(args.format)
    return {
      meter = function(meter)
        if meter.readout then output.readout(meter.readout, meter.error) end
      end,
      finish = output.finish,
    }
  end
  return meters.stream(args.format, put,
    { secondary = args.secondary, speeds = args.baud and #args.baud > 1, colour = console.style().colour })
end

local function sum_up(result, interrupted)
  if interrupted then console.complain("interrupted") end
  for _, address in ipairs(result.collisions) do
    local hint = math.type(address) == "integer" and "; mbus scan --secondary tells them apart" or ""
    console.complain(("address %s: several meters answer%s"):format(address, hint))
  end
  for _, mask in ipairs(result.unaccounted) do
    console.complain(("%s: more answers than meters found"):format(mask))
  end
  for _, text in ipairs(result.remarks) do console.complain(text) end
  if result.found == 0 and #result.collisions == 0 then console.complain("no meter found") end
end

-- A reader that has seen enough ends the scan, and the bus is put in order all the same.
local function guarded_put()
  local self = {}
  function self.put(content)
    if not self.closed and not (io.stdout:write(content) and io.stdout:flush()) then self.closed = true end
  end
  return self
end

---@return mbus.ScanResult? result
---@return mbus.Error? err
local function scan(bus, options, args, keep)
  local bar, poll, out = progress.new(not args.trace), poller(), guarded_put()
  local list = lister(args, out.put)
  local in_list = not prints_readouts(args)
  options.save = keep.save
  options.progress = function(state)
    bar:update(state)
    poll()
  end
  local search = assert(bus:scan(options))
  local interrupted = false
  local mind_pipe = survive_pipe()
  local release = signals.watch(function()
    interrupted = true
    search:abort()
  end)
  for meter in search do
    bar:clear()
    list.meter(meter)
    if meter.error and not in_list then console.complain(meter.error) end
    if out.closed then break end
  end
  search:close()
  release()
  bar:clear()
  list.finish()
  mind_pipe()
  local whole_scan = search.result and not interrupted and not out.closed
  keep.finish(whole_scan)
  if search.result then sum_up(search.result, interrupted) end
  return whole_scan and search.result, search.error
end

---@return mbus.ScanOptions? options
---@return string? message
local function options_of(args)
  local options = { secondary = args.secondary, range = args.range, mask = args.mask, probe = args.probe, baud = args.baud,
    retries = args.retries, read = args.read, expect = args.expect, hex = args.hex, start_depth = args.start_depth }
  if args.mask and not args.secondary then return nil, "--mask goes with --secondary" end
  if args.range and args.secondary then return nil, "--range goes without --secondary" end
  if (args.start_depth or 0) > 3 then return nil, "--start-depth is 0 to 3" end
  if args.resume then
    local state, message = load_state(args.resume)
    if message then return nil, message end
    options.resume = state
  end
  local ok, err = require("mbus.procedure.scan").prepare(1, options)
  if not ok then return nil, (args.resume and options.resume and args.resume .. ": " or "") .. tostring(err) end
  return options
end

function M.run(args)
  local options, message = options_of(args)
  if not options then
    console.complain(message)
    return console.USAGE
  end
  local bus, code = bus_options.open(args)
  if not bus then return code end
  local result, err = scan(bus, options, args, keeper(args.resume))
  bus:close()
  if err then console.complain(err) end
  return result and result.found > 0 and result.complete and console.OK or console.INCOMPLETE
end

return M
