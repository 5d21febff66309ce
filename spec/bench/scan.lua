---How long scans take, at 2400 baud, on simulated buses.
---
---    make bench-scan                          or: lua5.4 spec/bench/scan.lua [real]
---
---The clock is virtual, and the numbers repeat; with "real" the house is scanned on the computer's clock as well. `least` is
---what the windows of the standard (EN 13757-2: 330 bits + 50 ms, and the 11 bits of the character that would end them) and
---the meters' own telegrams need, one question for each address and no scan being possible with less; for secondary scans
---there is no such bound, and the number of selections is given.
local mbus = require "mbus"
local Random = require "mbus.simulator.random"

local BAUD = 2400
local KAMSTRUP = { 10, 12, 15, 17, 74, 75, 76, 77, 79 }

local function random_bus(count, seed)
  local random, meters = Random.new(seed), {}
  for i = 1, count do
    local records = {}
    for k = 1, 11 do records[k] = { quantity = "energy", unit = "Wh", value = k * i * 1000, exponent = 3, data = "int32" } end
    meters[i] = { id = ("%08d"):format(random:number() * 1e8 // 1 | 0), manufacturer = "KAM", version = 1, medium = 4,
      telegrams = { { records = records } } } -- 90 characters
  end
  return { baudrate = BAUD, meters = meters, seed = seed }
end

-- What 251 windows and the first telegrams of the nine meters that answer alone need.
local function least_primary()
  local seconds = 251 * (396 / BAUD + 0.05)
  local sim = assert(mbus.simulator.new "house")
  local bus <close> = assert(mbus.open(sim))
  for _, address in ipairs(KAMSTRUP) do
    local telegram = assert(bus:read(address)).telegrams[1]
    seconds = seconds + (55 + 11 * #telegram.bytes + 22) / BAUD + 0.0475
  end
  return seconds
end

local function scan(description, options, clock)
  local sim = assert(mbus.simulator.new(description))
  local transport = sim:transport { clock = clock }
  local bus <close> = assert(mbus.open(transport))
  local start, search = transport:now(), assert(bus:scan(options))
  for _ in search do end -- luacheck: ignore
  assert(search.result, search.error)
  assert(sim.statistics.overlaps == 0, "it has talked while an answer was on the line")
  return transport:now() - start, search.result
end

local function line(name, seconds, found, requests, limit)
  print(("%-44s %8.2f s  %4d found  %5d frames  %s"):format(name, seconds, found, requests, limit))
end

local function random_line(count, limit)
  local sum, most, requests, runs = 0, 0, 0, 10
  for seed = 1, runs do
    local seconds, result = scan(random_bus(count, seed), { secondary = true })
    assert(result.found == count and result.complete, "not all are found")
    sum, most, requests = sum + seconds, math.max(most, seconds), requests + result.requests
  end
  line(("secondary, %d random ids, mean of %d buses"):format(count, runs), sum / runs, count, requests // runs,
    ("longest %.2f s, limit %s s"):format(most, limit))
end

local function main(real)
  local least = least_primary()
  local seconds, result = scan({ meters = {} }, {})
  line("primary 0-250, empty bus", seconds, result.found, result.requests, ("least %.2f s"):format(251 * (396 / BAUD + 0.05)))
  for _, clock in ipairs { "virtual", real } do
    seconds, result = scan("house", {}, clock)
    line("primary 0-250, house, " .. clock .. " clock", seconds, result.found, result.requests,
      ("least %.2f s: %.3f times"):format(least, seconds / least))
    seconds, result = scan("house", { secondary = true }, clock)
    line("secondary, house, " .. clock .. " clock", seconds, result.found, result.requests, "limit 20 s")
  end
  for _, case in ipairs { { 0, "-" }, { 1, 2 }, { 10, "-" }, { 50, 95 }, { 250, 460 } } do random_line(table.unpack(case)) end
end

main(arg[1] == "real" and "real" or nil)
