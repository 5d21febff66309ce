-- What the way to the bus costs, and what broken gateways do: the house of eleven meters at 2400 baud, each by its
-- identification number, over every transport and every fault, with the default settings.
--
--     make bench-transports
--
-- All buses run at the same time in this one process; that takes about two minutes.
local mbus = require "mbus"
local gateways = require "spec.transport.gateways"
local runtime = require "mbus.runtime"
local server = require "mbus.simulator.server"

local addresses, truth = gateways.truth()
local lines = {}

local function errors(result)
  local parts = {}
  for kind, count in pairs(result.errors) do parts[#parts + 1] = ("%d %s"):format(count, kind) end
  table.sort(parts)
  return #parts > 0 and table.concat(parts, ", ") or "none"
end

local function row(number, ...) lines[number] = string.format(...) end

-- One readout of all; and what the line was busy with meanwhile.
local function transport(number, name, make)
  local sim = gateways.house()
  local there, url = make(sim)
  runtime.spawn(function()
    local bus = assert(mbus.open(url))
    local result = gateways.read_all(bus, addresses, truth)
    row(number, "%-22s %4d %5d  %-20s %7.1f %7.1f %6.2f %7.2f", name, result.good, result.wrong, errors(result), result.seconds,
      sim.statistics.airtime, result.seconds / sim.statistics.airtime, bus.transport.margin)
    bus:close()
    there.close(there)
  end)
end

-- Readouts of all until one is good to the end.
local function fault(number, name, faults)
  local there = gateways.tcp(gateways.house(), faults)
  runtime.spawn(function()
    local bus = assert(mbus.open(there.url))
    local first = gateways.read_all(bus, addresses, truth)
    local again, next_good
    local patience = runtime.now() + 60
    for _, time in ipairs(first.good_at) do
      if there.failed and time > there.failed then next_good = next_good or time end
    end
    repeat
      runtime.sleep(1)
      again = gateways.read_all(bus, addresses, truth)
      next_good = next_good or again.good_at[1]
    until again.good == #addresses or runtime.now() > patience
    row(number, "%-22s %4d %5d  %-20s %7.1f %7.1f %9s %8s", name, first.good, first.wrong, errors(first), first.seconds,
      first.longest, next_good and there.failed and ("%.1f"):format(next_good - there.failed) or "-",
      again.good == #addresses and ("%.1f"):format(again.seconds) or "never")
    bus:close()
    there:close()
  end)
end

local function pty(sim)
  local served = assert(server.pty(sim))
  return served, served.path
end

local function tcp(sim)
  local there = gateways.tcp(sim)
  return there, there.url
end

local function udp(sim)
  local there = gateways.udp(sim)
  return there, there.url
end

local function behind(start, scheme, mode)
  return function(sim)
    local there = start(sim, mode)
    return there, ("%s://127.0.0.1:%d"):format(scheme, there.port)
  end
end

local TRANSPORTS = {
  { "pseudo-terminal", pty },
  { "tcp", tcp },
  { "udp", udp },
  { "tcp, socat", behind(gateways.socat, "tcp"), "socat" },
  { "tcp, ser2net", behind(gateways.ser2net, "tcp", "raw"), "ser2net" },
  { "rfc2217, ser2net", behind(gateways.ser2net, "rfc2217", "rfc2217"), "ser2net" },
}

local FAULTS = {
  { "none", {} },
  { "closes", { fault = "closes" } },
  { "resets", { fault = "resets" } },
  { "hangs", { fault = "hangs" } },
  { "refuses 10 s", { fault = "refuses", away = 10 } },
  { "one byte a packet", { delivery = "drip" } },
  { "300 ms late", { delivery = "late", latency = 0.3 } },
  { "whole answers", { delivery = "whole" } },
  { "every 5th answer glued", { delivery = "whole", glue = 5 } },
}

for i, one in ipairs(TRANSPORTS) do
  if one[3] and not gateways.find(one[3]) then
    row(i, "%-22s skipped: %s is not installed", one[1], one[3])
  else
    transport(i, one[1], one[2])
  end
end
for i, one in ipairs(FAULTS) do fault(#TRANSPORTS + i, one[1], one[2]) end
runtime.run()

print(("%-22s %4s %5s  %-20s %7s %7s %6s %7s"):format("transport", "good", "wrong", "errors", "wall/s", "line/s", "ratio", "margin"))
for i = 1, #TRANSPORTS do print(lines[i]) end
print(("\n%-22s %4s %5s  %-20s %7s %7s %9s %8s"):format("fault", "good", "wrong", "errors", "wall/s", "longest", "next good", "again/s"))
for i = #TRANSPORTS + 1, #TRANSPORTS + #FAULTS do print(lines[i]) end
