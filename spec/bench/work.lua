---One workload, measured as csrc/bench/core.c measures its own:
---
---    lua5.4 spec/bench/work.lua NAME (-t SECONDS | -n ROUNDS) TELEGRAMS.hex PIECES.hex
local telegrams = require "spec.bench.telegrams"
local workloads = require "spec.bench.workloads"

local name, option, amount = arg[1], arg[2], tonumber(arg[3])
local workload = workloads[name]
if not workload or (option ~= "-t" and option ~= "-n") or not arg[5] then
  error("work.lua NAME (-t SECONDS | -n ROUNDS) TELEGRAMS.hex PIECES.hex", 0)
end

local round = workload.prepare(telegrams.read(arg[4]), telegrams.read(arg[5]))
-- Where rounds are counted, garbage is freed once, at the end: when a cycle of the collector begins is chance.
collectgarbage()
if option == "-n" then collectgarbage "stop" end
local start, done, rounds = os.clock(), 0, 0
repeat
  done, rounds = done + round(), rounds + 1
until option == "-n" and rounds >= amount or option == "-t" and os.clock() - start >= amount
local seconds = os.clock() - start
if option == "-n" then collectgarbage() end
print(("%s: %d %s %.9f s"):format(name, done, workload.unit, seconds))
