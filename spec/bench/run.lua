---All benchmarks, each in a process of its own: medians of repeated runs, instructions where valgrind is there, and the
---change against the stored baseline.
---
---    make bench                           everything
---    make bench-baseline                  the same, and store it in spec/bench/baseline.txt
---    make bench-check                     instructions only; fails if one is 10 % above the baseline
---    make bench BENCH='Lua.*' ...         rows whose name has this pattern
---    BENCH_REPEATS=5 BENCH_SECONDS=0.5    of each row that takes processor time
---    BENCH_GATEWAYS='200 1000'            how many; empty: none
---    BENCH_METERS=11 BENCH_GATEWAY_SECONDS=30   for each of these
---    BENCH_FRAMES='a.hex ...'             other telegrams, not compared
---
---Seconds are of the processor, so that others who use the machine disturb little. Instructions are those of twice the rounds
---less those of the rounds, so that start and end do not count.
local helper = require "spec.helper"
local mbus = require "mbus"
local report = require "spec.bench.report"
local telegrams = require "spec.bench.telegrams"

local BASELINE = "spec/bench/baseline.txt"
local TELEGRAMS, PIECES = "build/bench/telegrams.hex", "build/bench/pieces.hex"
local WORSE = 10 -- percent

local function setting(name, default)
  local value = os.getenv("BENCH_" .. name)
  return value and value ~= "" and assert(tonumber(value), "BENCH_" .. name .. " is a number") or default
end

local only = os.getenv "BENCH" or ""
local task = arg[1] or "show"
local is_check = task == "check"

--- Processes --------------------------------------------------------------------------------------------------------

-- What a command prints on both channels; it must end well.
local function output(...)
  local command = (...):format(select(2, ...))
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  if not pipe:close() then error(command .. ":\n" .. text, 0) end
  return text
end

local function found(tool) return (os.execute(("command -v %s >/dev/null 2>&1"):format(tool))) end

local has_valgrind = found "valgrind"
local lua = helper.quote(arg[-1] or "lua5.4")

local function first_line(...) return output(...):match "[^\n]*" end

local function about(list, source)
  local records = 0
  for _, bytes in ipairs(list) do records = records + #assert(mbus.decode(bytes)) end
  local machine = found "lscpu" and output "lscpu":match "Model name: *([^\n]+)" or first_line "uname -m"
  return { machine = machine, tools = first_line((os.getenv "CC" or "cc") .. " --version") .. "; " .. first_line(lua .. " -v"):match "^Lua [%d.]+",
    telegrams = ("%d of %s, %.1f records each"):format(#list, source, records / #list) }
end

--- Rows -------------------------------------------------------------------------------------------------------------

-- Program, workload, name, rounds for the counting of instructions.
local WORK = {
  { "core", "frame", "C: frame and header", 100 }, { "core", "records", "C: all records", 100 },
  { "core", "values", "C: all values and units", 100 }, { "core", "texts", "C: and exact decimal texts", 100 },
  { "core", "deframe", "C: deframing, noisy", 10 }, { "core", "write", "C: writing records", 100 },
  { "lua", "open", "Lua: decode alone", 100 }, { "lua", "each", "Lua: each()", 20 }, { "lua", "tables", "Lua: tables", 10 },
  { "lua", "json", "Lua: JSON", 5 }, { "lua", "feed", "Lua: deframing, noisy", 10 },
  { "lua", "encode_records", "Lua: encoding records", 50 }, { "lua", "encode_telegram", "Lua: encoding telegrams", 50 },
}

local function work_command(work, option, amount)
  local program = work[1] == "core" and "build/bench/core" or lua .. " spec/bench/work.lua"
  return ("%s %s %s %s %s %s"):format(program, work[2], option, amount, TELEGRAMS, PIECES)
end

-- Repeats go round all rows, so that a noisy minute does not hit one row alone.
local function measure_times(wanted)
  local rows = {}
  for _ = 1, setting("REPEATS", 5) do
    for i, work in ipairs(wanted) do
      local done, unit, seconds = report.work(output(work_command(work, "-t", setting("SECONDS", 0.5))))
      local row = rows[i] or { name = work[3], unit = "ns/" .. unit, times = {} }
      row.times[#row.times + 1] = seconds / done * 1e9
      rows[i] = row
    end
  end
  for _, row in ipairs(rows) do
    row.value, row.low, row.high = report.median(row.times)
    row.rate = 1e9 / row.value
  end
  return rows
end

-- The clock stands, so that Lua seeds its hashes alike each time.
local VALGRIND = "LD_PRELOAD=build/bench/time.so valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null "

local function instructions_of(work)
  local counts, done = {}, {}
  for i = 1, 2 do
    local text = output(VALGRIND .. work_command(work, "-n", i * work[4]))
    counts[i], done[i] = report.instructions(text), report.work(text:match "[^\n]*%d s\n")
  end
  return (counts[2] - counts[1]) / (done[2] - done[1])
end

local function work_rows(add, wants)
  local wanted = {}
  for _, work in ipairs(WORK) do
    if wants(work[3]) then wanted[#wanted + 1] = work end
  end
  local rows = is_check and {} or measure_times(wanted)
  for i, work in ipairs(wanted) do
    local row = rows[i] or { name = work[3], unit = "-" }
    row.instructions = has_valgrind and instructions_of(work) or nil
    add(row)
  end
end

-- Name in scan.lua, name.
local SCANS = {
  { "primary 0-250, house, virtual clock", "scan 0 to 250, 9 of 11 meters alone" },
  { "secondary, house, virtual clock", "scan by secondary address, 11 meters" },
  { "read by primary address, house", "read 9 meters by primary address" },
  { "read by secondary address, house", "read 11 meters by secondary address" },
}

local function scan_rows(add, wants)
  local text
  for _, scan in ipairs(SCANS) do
    if wants(scan[2]) then
      text = text or output(lua .. " spec/bench/scan.lua house")
      local seconds, least = report.scan(text, scan[1])
      add { name = scan[2], value = seconds, unit = "s", remark = ("least %.2f, %.3f times"):format(least, seconds / least) }
    end
  end
end

local function gateway_rows(add, wants)
  for count in (os.getenv "BENCH_GATEWAYS" or "200 1000"):gmatch "%d+" do
    local name = count .. " gateways"
    if wants(name) then
      local result = report.gateway(output(lua .. " spec/bench/gateway.lua %s %d %d", count, setting("METERS", 11),
        setting("GATEWAY_SECONDS", 30)))
      add { name = name .. ": slowest cycle", value = result.slowest, unit = "of the line", remark = ("mean %.3f"):format(result.mean) }
      add { name = name .. ": processor", value = result.cpu, unit = "% of a core" }
    end
  end
end

--- All --------------------------------------------------------------------------------------------------------------

local function measure()
  local rows = {}
  local function add(row) rows[#rows + 1] = row end
  local function wants(name) return name:find(only) ~= nil end
  work_rows(add, wants)
  if not is_check then
    scan_rows(add, wants)
    gateway_rows(add, wants)
  end
  return rows
end

local function read_baseline()
  local file = io.open(BASELINE)
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return report.parse(text)
end

local function check(facts, rows, baseline)
  if not has_valgrind then return print "bench-check: skipped, valgrind is not there" end
  if facts.tools ~= baseline.about.tools then return print "bench-check: skipped, the baseline is of other tools" end
  local complaints = report.worse(rows, baseline, WORSE)
  if #complaints > 0 then error(table.concat(complaints, "\n"), 0) end
  print(("bench-check: %d rows within %d %% of the baseline"):format(#rows, WORSE))
end

local function main()
  local files = {}
  for name in (os.getenv "BENCH_FRAMES" or ""):gmatch "%S+" do files[#files + 1] = name end
  if task == "baseline" and (only ~= "" or #files > 0) then
    error("a baseline is stored whole, without BENCH and BENCH_FRAMES", 0)
  end
  local list = #files > 0 and telegrams.of_files(files) or telegrams.own()
  telegrams.write(TELEGRAMS, list)
  telegrams.write(PIECES, telegrams.noisy(list))
  local facts = about(list, #files > 0 and "BENCH_FRAMES" or "the house")
  local baseline = #files == 0 and read_baseline() or nil
  local rows = measure()
  if is_check then return check(facts, rows, assert(baseline, "there is no baseline")) end
  print(("%s\n%s\ntelegrams: %s\n"):format(facts.machine, facts.tools, facts.telegrams))
  print(report.table(rows, baseline))
  for _, remark in ipairs(baseline and report.remarks(facts, baseline) or {}) do print(remark) end
  if task == "baseline" then
    helper.write(BASELINE, report.format(facts, rows))
    print("stored in " .. BASELINE)
  end
end

local ok, err = pcall(main)
if not ok then
  io.stderr:write("bench: ", tostring(err), "\n")
  os.exit(1)
end
