-- A bus of its own bytes under copas: the library performs no I/O, copas waits for the socket.
--
--     lua5.4 examples/copas.lua HOST:PORT ADDRESS...      a TCP gateway, as from: mbus simulate --tcp 10001
local mbus = require "mbus"

local host, port = (arg[1] or ""):match("^(.+):(%d+)$")
if not host then
  print("usage: lua5.4 examples/copas.lua HOST:PORT ADDRESS...   (a TCP gateway, or: mbus simulate --tcp 10001)")
  os.exit(arg[1] == nil)
end
local copas, socket = require "copas", require "socket"

local line, reason = socket.connect(host, port)
if not line then
  io.stderr:write(arg[1], ": ", reason, "\n")
  os.exit(false)
end
line:settimeout(0)
local bus = mbus.open("manual:", { margin = 0.3, name = arg[1] })
local lost

local function lose(why)
  lost = why == "closed" and "the gateway closed the connection" or why
  bus:fail(lost)
end

-- What comes in, whenever it comes.
copas.addthread(function()
  while not lost do
    local bytes, err, part = copas.receivePartial(line, 512)
    bytes = bytes or part
    if bytes and bytes ~= "" and bus:wants() ~= "done" then bus:feed(bytes, socket.gettime()) end
    if err and err ~= "timeout" then lose(err) end
  end
end)

-- Reads one meter. Other work of copas goes on meanwhile.
local function read(address)
  local ok, invalid = bus:begin("read", address)
  if not ok then return nil, invalid end
  while true do
    local what, argument, err = bus:wants()
    if what == "done" then return argument, err end
    if what == "send" then
      local _, failure = line:send(argument)
      if lost or failure then lose(lost or failure) end
    elseif what ~= "drain" then
      copas.step(math.max(0, argument - socket.gettime())) -- until the deadline, or until something has come
    end
    if bus:wants() == what then bus:feed("", socket.gettime()) end
  end
end

local missing = 0
for i = 2, #arg do
  local meter, err = read(arg[i])
  print(arg[i], meter and meter.id or err, meter and #meter .. " records" or "")
  if not meter then missing = missing + 1 end
end
line:close()
os.exit(missing == 0)
