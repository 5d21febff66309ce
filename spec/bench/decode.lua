---Speed of decoding from Lua: time per record, telegrams per second, garbage per telegram.
---
---    make bench-decode                        or: lua5.4 spec/bench/decode.lua [FILE.hex ...]
---
---Without files, the telegrams are those of BENCH_CORPUS (../shared/corpus), or where that is missing a few of our own.
---Times are reported, the median of BENCH_SECONDS; garbage is asserted, for one telegram that never changes: it repeats.
local mbus = require "mbus"
local json = require "mbus.format.json"

-- A heat meter with 14 records, one with five, the fixed structure, a profile with plain text.
local OWN = {
  "68 5E 5E 68 08 00 72 47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01 0C 12 91 72 64 02 0C 2A 00 00 00 00 "
    .. "0B 3A 00 00 00 0A 5A 22 05 0A 5E 23 04 0A 62 99 00 04 6D 21 16 0A 39 4C 05 30 78 11 00 44 6D 00 00 1E 14 "
    .. "44 ED 7E 00 00 3F 1C 8C 01 05 20 30 69 01 84 01 6D 00 00 FF 2C 0B 26 02 03 16 F5 16",
  "68 1F 1F 68 08 02 72 78 56 34 12 24 40 01 07 55 00 00 00 03 13 15 31 00 DA 02 3B 13 01 8B 60 04 37 18 02 18 16",
  "68 13 13 68 08 05 73 78 56 34 12 0A 00 E9 7E 01 00 00 00 35 01 00 00 3C 16",
}
local SAMPLE = assert(mbus.unhex(OWN[1]))

---@type table<string, integer>  most bytes of garbage for one SAMPLE
local LIMITS = { open = 600, each = 700, tables = 17000, json = 44000 }

--- What is measured: each takes bytes and gives the number of records. ---------------------------------------------

local WAYS = {
  { name = "open", run = function(bytes) return mbus.decode(bytes) and 0 end },
  { name = "each", run = function(bytes)
    local telegram, count = mbus.decode(bytes), 0
    for _ in telegram:each() do count = count + 1 end
    return count
  end },
  { name = "tables", run = function(bytes)
    local telegram, count = mbus.decode(bytes), 0
    for _ in telegram:records() do count = count + 1 end
    return count
  end },
  { name = "json", run = function(bytes) return json.telegram(mbus.decode(bytes)) and 0 end },
}

--- Telegrams --------------------------------------------------------------------------------------------------------

local function lines(command)
  local pipe = assert(io.popen(command))
  local result = {}
  for line in pipe:lines() do result[#result + 1] = line end
  pipe:close()
  return result
end

local function load_telegrams()
  local files = #arg > 0 and arg or lines(("ls '%s'/wired/*.hex 2>/dev/null"):format(os.getenv "BENCH_CORPUS" or "../shared/corpus"))
  local texts = {}
  for _, name in ipairs(files) do
    local file <close> = assert(io.open(name))
    texts[#texts + 1] = file:read "a"
  end
  local telegrams = {}
  for _, text in ipairs(#texts > 0 and texts or OWN) do
    local bytes = mbus.unhex(text)
    local telegram = bytes and mbus.decode(bytes)
    if telegram and #telegram > 0 then telegrams[#telegrams + 1] = bytes end
  end
  return telegrams
end

--- Measuring --------------------------------------------------------------------------------------------------------

local function round(run, telegrams)
  for _, bytes in ipairs(telegrams) do run(bytes) end
end

---@return number seconds  of one round: the median of as many as fit
local function median(run, telegrams, seconds)
  local times, stop = {}, os.clock() + seconds
  repeat
    local start = os.clock()
    for _ = 1, 5 do round(run, telegrams) end
    times[#times + 1] = (os.clock() - start) / 5
  until #times >= 3 and os.clock() > stop
  table.sort(times)
  return times[#times // 2 + 1]
end

---@return number bytes  of garbage for each telegram
local function garbage(run, telegrams)
  round(run, telegrams) -- strings that stay, caches
  collectgarbage()
  collectgarbage "stop"
  local before = collectgarbage "count"
  for _ = 1, 10 do round(run, telegrams) end
  local bytes = (collectgarbage "count" - before) * 1024 / 10 / #telegrams
  collectgarbage "restart"
  return bytes
end

local telegrams = load_telegrams()
local seconds = tonumber(os.getenv "BENCH_SECONDS") or 1
local records = 0
for _, bytes in ipairs(telegrams) do records = records + #mbus.decode(bytes) end

print(("%d telegrams, %d records"):format(#telegrams, records))
for _, way in ipairs(WAYS) do
  local time = median(way.run, telegrams, seconds)
  print(("%-8s %9.0f ns/telegram %9.0f telegrams/s %9.1f ns/record %9.0f bytes of garbage/telegram"):format(way.name,
    time / #telegrams * 1e9, #telegrams / time, time / records * 1e9, garbage(way.run, telegrams)))
end

for _, way in ipairs(WAYS) do
  local bytes = garbage(way.run, { SAMPLE })
  assert(bytes <= LIMITS[way.name], ("%s: %.0f bytes of garbage, the limit is %d"):format(way.name, bytes, LIMITS[way.name]))
end
print "garbage is within its limits"
