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

-- A capture that is written as it comes; what it loses is told once.
local function open_record(args, bus)
  if not args.record then return nil end
  local file, message = io.open(args.record, "wb")
  if not file then return nil, message end
  local self = { lost = false }
  function self.put(text)
    local ok, reason = file:write(text)
    if ok then ok, reason = file:flush() end
    if not ok and not self.lost then console.complain(("%s: %s"):format(args.record, reason)) end
    self.lost = self.lost or not ok
  end
  function self.close() file:close() end
  local baudrate = bus.transport.baudrate
  self.put(capture.head { baudrate = baudrate and math.tointeger(baudrate), start = os.date("%Y-%m-%dT%H:%M:%S") })
  return self
end

-- Prints and records until it ends.
local function listen(search, out, record, start)
  for entry in search do
    entry.time = entry.time - start
    if record then record.put(capture.line(entry.direction, entry.bytes, entry.time)) end
    out.show(entry)
  end
  out.finish()
  if search.error then console.complain(search.error) end
  return (search.error or record and record.lost) and console.INCOMPLETE or console.OK
end

local function is_timeless(args) return args.url:find("^sim:") and not args.url:find("clock=real", 1, true) end

function M.run(args)
  if is_timeless(args) and not args.duration then
    console.complain("time does not pass on sim: by itself: give --duration, or ?clock=real")
    return console.USAGE
  end
  local bus, code = bus_options.open(args)
  if not bus then return code end
  local record, message = open_record(args, bus)
  if message then
    bus:close()
    console.complain(message)
    return console.USAGE
  end
  local search = bus:monitor { duration = args.duration }
  -- Where time does not pass, nothing waits and no signal would be seen.
  local release = is_timeless(args) and function() end or signals.watch(function() search:abort() end)
  local transport = bus.transport
  local start = transport.now and transport:now() or require("mbus.runtime").now()
  code = listen(search, require("mbus.cli.heard").new(args.format, (keys.parse(args))), record, start)
  release()
  bus:close()
  if record then record.close() end
  return code
end

return M
