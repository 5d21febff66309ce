---mbus simulate: a bus of meters on a pseudo-terminal or a TCP port, until it is interrupted.
local console = require "mbus.cli.console"
local signals = require "mbus.cli.signals"
local trace = require "mbus.cli.trace"

local M = {}

M.summary = "Simulate a bus of meters on a pseudo-terminal or a TCP port."

---"10001", "0.0.0.0:10001", "[::1]:10001"; 0 is any free port.
local function endpoint(text)
  local host, port = text:match("^%[([%x:.]+)%]:(%d+)$")
  if not host then host, port = text:match("^([^:]+):(%d+)$") end
  port = math.tointeger(tonumber(port or text:match("^%d+$")))
  if not port or port > 65535 then return nil, ("'%s' is no [HOST:]PORT"):format(text) end
  return { host = host, port = port }
end

function M.define(command)
  command:argument("file", "Description of the bus, a Lua file; without it a house of eleven meters."):args("?")
    :argname("<file>")
  command:mutex(
    command:option("--pty", "Serve on a pseudo-terminal, with a symbolic link to it if LINK is given (default)."):args("?")
      :argname("<link>"),
    command:option("--tcp", "Serve on a TCP port, of this machine alone unless HOST is given; port 0 takes any.")
      :convert(endpoint):argname("<[host:]port>"))
  command:option("-b --baudrate", "Line speed, instead of that of the description."):argname("<n>")
    :choices { "300", "600", "1200", "2400", "4800", "9600", "19200", "38400" }
  command:option("--seed", "Whole number that all chance comes from."):argname("<n>"):convert(math.tointeger)
  trace.define(command)
  command:epilog [[
Runs until it is interrupted (Ctrl-C), with the timing of a real line.

Examples:
  mbus simulate --pty /tmp/house &
  mbus read /tmp/house 10
  mbus simulate bus.lua --tcp 10001 &
  mbus read tcp://localhost:10001 5]]
end

---@return mbus.simulator.Simulator? sim
---@return mbus.Error? err
local function load(args)
  local simulator = require "mbus.simulator"
  local description, err = simulator.load(args.file)
  if not description then return nil, err end
  description.baudrate = math.tointeger(tonumber(args.baudrate)) or description.baudrate
  return simulator.new(description, { seed = args.seed, name = args.file, trace = args.trace and trace.new() or nil })
end

local function serve(sim, args)
  local server = require "mbus.simulator.server"
  if args.tcp then return server.tcp(sim, args.tcp) end
  return server.pty(sim, { link = args.pty and args.pty[1] })
end

---What `mbus read` takes as URL.
local function url_of(server)
  if not server.port then return server.link or server.path end
  local host = server.host:find(":", 1, true) and "[" .. server.host .. "]" or server.host
  return ("tcp://%s:%d"):format(host, server.port)
end

local function announce(sim, server, args)
  local addresses = {}
  for i, meter in ipairs(sim.meters) do addresses[i] = ("%d"):format(meter.address) end
  console.write(("%s: %d %s at %d baud, primary %s %s\nlistening on %s\n"):format(args.file or "house", #addresses,
    #addresses == 1 and "meter" or "meters", sim.baudrate, #addresses == 1 and "address" or "addresses",
    table.concat(addresses, " "), url_of(server)))
  console.flush()
end

local function close_on_signal(server)
  local release
  release = signals.watch(function()
    server:close()
    release()
  end)
end

function M.run(args)
  local sim, server, err
  sim, err = load(args)
  if not sim then
    console.complain(err)
    return console.USAGE
  end
  server, err = serve(sim, args)
  if not server then
    console.complain(err)
    return console.NO_BUS
  end
  close_on_signal(server)
  announce(sim, server, args)
  require("mbus.runtime").run()
  return console.OK
end

return M
