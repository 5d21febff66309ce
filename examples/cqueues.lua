-- Serial buses under cqueues: a transport of one's own, which waits with cqueues for the descriptor of the port.
--
--     lua5.4 examples/cqueues.lua PORT ADDRESS [PORT ADDRESS]...      as from: mbus simulate --pty /tmp/house
local mbus = require "mbus"

if #arg == 0 or #arg % 2 == 1 then
  print("usage: lua5.4 examples/cqueues.lua PORT ADDRESS [PORT ADDRESS]...   (a serial port, or: mbus simulate --pty /tmp/house)")
  os.exit(#arg == 0)
end
local cqueues, serial = require "cqueues", require "mbus.serial"

local Transport = {}
Transport.__index = Transport

local function open(path)
  local port, reason = serial.open(path, { baudrate = 2400 })
  if not port then error(reason, 0) end
  return setmetatable({ name = path, port = port, margin = 0.1, gap = 0.1, baudrate = 2400,
    readable = { pollfd = port:fd(), events = "r" } }, Transport)
end

function Transport:write(bytes)
  local count, message = self.port:write(bytes)
  return count == #bytes or nil, message
end

function Transport:read(seconds)
  local deadline = self:now() + seconds
  while true do
    local bytes, errors = self.port:read()
    local left = deadline - self:now()
    if bytes ~= "" or left <= 0 then return bytes, errors end
    cqueues.poll(self.readable, left)
  end
end

function Transport:drain() return self.port:read() end
function Transport:sleep(seconds) cqueues.sleep(seconds) end -- luacheck: no unused args
function Transport:now() return cqueues.monotime() end       -- luacheck: no unused args

function Transport:close()
  cqueues.cancel(self.readable)
  self.port:close()
end

local loop, missing, ticks = cqueues.new(), 0, 0
local reading = 0

for i = 1, #arg, 2 do
  reading = reading + 1
  loop:wrap(function()
    local bus <close> = assert(mbus.open(open(arg[i])))
    local meter, err = bus:read(arg[i + 1])
    print(arg[i + 1], meter and meter.id or err, meter and #meter .. " records" or "")
    if not meter then missing = missing + 1 end
    reading = reading - 1
  end)
end

-- Other work goes on meanwhile.
loop:wrap(function()
  while reading > 0 do
    cqueues.sleep(0.02)
    ticks = ticks + 1
  end
end)

local ok, failed = loop:loop()
if not ok then
  io.stderr:write(tostring(failed), "\n")
  os.exit(false)
end
print(ticks > 5 and "meanwhile, other work went on" or "nothing else could run")
os.exit(missing == 0)
