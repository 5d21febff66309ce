---How long scans take, at 2400 baud, on simulated buses.
---
---    make bench-scan
---    eval "$(make -s env)"; LUA_PATH="./?.lua;$LUA_PATH" lua5.4 spec/bench/scan.lua [real|house]
---
---The clock is virtual, and the numbers repeat; with "real" the house is scanned on the computer's clock as well, with "house"
---it alone is scanned and read. `least` of a primary scan is what the windows of the standard (EN 13757-2: 330 bits + 50 ms,
---and the 11 bits of the character that would end them) and the meters' own telegrams need, one question for each address; of
---a secondary scan the time for one who knows the numbers beforehand: each meter is selected once and sends its first telegram;
---of reading all characters, the meters' own delays, and one window after deselecting.
local house = require "spec.bench.house"
local mbus = require "mbus"
local Random = require "mbus.simulator.random"

local BAUD = 2400
local BITS, DELAY, WINDOW = 11, 0.0475, 341 / BAUD + 0.05 -- of a character; of a meter on average; for an answer

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

-- What the first telegrams of meters need, after a question of so many characters, with a pause behind each answer.
local function first_telegrams(addresses, question)
  local seconds = 0
  local bus <close> = assert(mbus.open(assert(mbus.simulator.new "house")))
  for _, address in ipairs(addresses) do
    local telegram = assert(bus:read(address)).telegrams[1]
    seconds = seconds + BITS * (question + #telegram.bytes + 2) / BAUD + DELAY
  end
  return seconds
end

local function least_primary() return 251 * (396 / BAUD + 0.05) + first_telegrams(house.primary, 5) end

-- Selections of 17 characters and their E5.
local function least_secondary()
  return first_telegrams(house.secondary, 5) + #house.secondary * (BITS * (17 + 1 + 2) / BAUD + DELAY) + WINDOW
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

-- Seconds that reading takes, and that the line needs for it.
local function read(addresses)
  local delays, request_end = 0, nil
  local function trace(direction, _, time)
    if direction == "receive" then request_end = time else delays = delays + time - request_end end
  end
  local sim = assert(mbus.simulator.new("house", { trace = trace }))
  local bus <close> = assert(mbus.open(sim))
  local start = bus.transport:now()
  for _, address in ipairs(addresses) do assert(bus:read(address)) end
  assert(sim.statistics.overlaps == 0, "it has talked while an answer was on the line")
  local deselection = type(addresses[1]) == "string" and WINDOW or 0
  return bus.transport:now() - start, sim.statistics.airtime + delays + deselection, sim.statistics.requests
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

local function against(seconds, least) return ("least %.2f s: %.3f times"):format(least, seconds / least) end

local function scan_house(clock)
  local seconds, result = scan("house", {}, clock)
  line("primary 0-250, house, " .. clock .. " clock", seconds, result.found, result.requests, against(seconds, least_primary()))
  seconds, result = scan("house", { secondary = true }, clock)
  line("secondary, house, " .. clock .. " clock", seconds, result.found, result.requests, against(seconds, least_secondary()))
end

local function read_house()
  for _, by in ipairs { "primary", "secondary" } do
    local seconds, least, requests = read(house[by])
    line("read by " .. by .. " address, house", seconds, #house[by], requests, against(seconds, least))
  end
end

local function main(what)
  if what ~= "house" then
    local seconds, result = scan({ meters = {} }, {})
    line("primary 0-250, empty bus", seconds, result.found, result.requests, against(seconds, 251 * (396 / BAUD + 0.05)))
  end
  scan_house "virtual"
  if what == "real" then scan_house "real" end
  read_house()
  if what == "house" then return end
  for _, case in ipairs { { 0, "-" }, { 1, 2 }, { 10, "-" }, { 50, 95 }, { 250, 460 } } do random_line(table.unpack(case)) end
end

main(arg[1])
