---mbus monitor: what is on a line, without sending anything.
local bus_options = require "mbus.cli.bus"
local capture = require "mbus.capture"
local console = require "mbus.cli.console"
local keys = require "mbus.cli.keys"
local output = require "mbus.cli.output"
local signals = require "mbus.cli.signals"

local M = {}

M.summary = "Listen without sending; print and record every frame."

local function seconds(text)
  local value = tonumber(text)
  if not value or value <= 0 or value == math.huge then return nil, ("'%s' is no number of seconds"):format(text) end
  return value
end

function M.define(command)
  bus_options.define(command)
  command:option("--record", "Write a capture to this file, for mbus decode --replay and mbus simulate."):argname("<file>")
  command:option("--duration", "Seconds to listen; without it until it is interrupted."):convert(seconds):argname("<s>")
  output.define(command)
  command:epilog [[
Examples:
  mbus monitor /dev/ttyUSB0
  mbus monitor tcp://192.168.1.50:10001 --record bus.cap --duration 3600
  mbus decode --replay bus.cap]]
end

local function open_record(args, bus)
  if not args.record then return nil end
  local file, message = io.open(args.record, "wb")
  if not file then return nil, message end
  local baudrate = bus.transport.baudrate
  file:write(capture.head { baudrate = baudrate and math.tointeger(baudrate), start = os.date("%Y-%m-%dT%H:%M:%S") })
  file:flush()
  return file
end

-- Prints and records until it ends.
local function listen(search, out, file, start)
  for entry in search do
    entry.time = entry.time - start
    if file then
      file:write(capture.line(entry.direction, entry.bytes, entry.time))
      file:flush()
    end
    out.show(entry)
  end
  out.finish()
  if search.error then console.complain(search.error) end
  return search.error and console.INCOMPLETE or console.OK
end

local function is_timeless(args) return args.url:find("^sim:") and not args.url:find("clock=real", 1, true) end

function M.run(args)
  if is_timeless(args) and not args.duration then
    console.complain("time does not pass on sim: by itself: give --duration, or ?clock=real")
    return console.USAGE
  end
  local bus, code = bus_options.open(args)
  if not bus then return code end
  local file, message = open_record(args, bus)
  if message then
    console.complain(message)
    return console.USAGE
  end
  local search = bus:monitor { duration = args.duration }
  local release = signals.watch(function() search:abort() end)
  local transport = bus.transport
  local start = transport.now and transport:now() or require("mbus.runtime").now()
  code = listen(search, require("mbus.cli.heard").new(args.format, (keys.parse(args))), file, start)
  release()
  bus:close()
  if file then file:close() end
  return code
end

return M
