-- Runs a free-client script on a bus, as a BACRouter does, from its bus export or on the simulated house.
--
--     lua5.4 examples/freeclient.lua                           our script, on the simulated house, for a minute of its time
--     lua5.4 examples/freeclient.lua EXPORT.json /dev/ttyUSB0  the script and the points of an export, until Ctrl-C
local mbus = require "mbus"
local freeclient = require "mbus.freeclient"

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

local description, script
if arg[1] then
  description = assert(require("mbus.freeclient.config").buses(read(arg[1]), arg[1]))[1]
  script = assert(description.script, "there is no script in it")
else
  script = read(arg[0]:gsub("%.lua$", "/mbus.lua"))
  description = { type = "rs485", tag = "update_interval=30000, force_reset=true", devices = {
    { tag = "addr=10", points = { { tag = "id=1, scale=1000" }, { tag = "id=2" } } },
    { tag = 'addr="31892747ffffffff"', points = { { tag = "id=0, scale=100" } } },
    { tag = "addr=99", points = { { tag = "id=0" } } },
  } }
end

local bus <close> = assert(mbus.open(arg[2] or "sim:"))
local host = assert(freeclient.new(script, { name = description.script_name or "mbus.lua", bus = description,
  update = function(device, point, value, reliability) print(device, point, value, reliability) end,
  status = function(device, online) print(device, online and "online" or "offline") end }))
assert(host:run(bus, not arg[1] and 60 or nil))
