-- The benchmark's own parts: what it measures with, what it reads, and what it makes of it. Times are not checked here; the
-- garbage of decoding is, since it repeats.
local core = require "mbus.core"
local helper = require "spec.helper"
local mbus = require "mbus"
local report = require "spec.bench.report"
local telegrams = require "spec.bench.telegrams"
local workloads = require "spec.bench.workloads"

local HYD = assert(mbus.unhex(helper.HYD))

---@type table<string, integer>  most bytes of garbage for one HYD
local LIMITS = { open = 600, each = 700, tables = 17000, json = 36000 }

-- Bytes of garbage for one round.
local function garbage(round)
  round() -- strings that stay, caches
  collectgarbage()
  collectgarbage "stop"
  local before = collectgarbage "count"
  for _ = 1, 10 do round() end
  local bytes = (collectgarbage "count" - before) * 1024 / 10
  collectgarbage "restart"
  return bytes
end

describe("what is measured with", function()
  local own = telegrams.own()

  it("is every telegram of the house, and always the same", function()
    assert.is_true(#own >= 16)
    assert.same(own, telegrams.own())
    for _, bytes in ipairs(own) do assert.is_true(#assert(mbus.decode(bytes)) > 0) end
  end)

  it("is a noisy stream that holds most of them, cut anywhere", function()
    local known, frames, noise, good = {}, 0, 0, 0
    for _, bytes in ipairs(own) do known[bytes] = true end
    local pieces, deframer = telegrams.noisy(own), core.deframer()
    for _, piece in ipairs(pieces) do
      for _, event in ipairs(deframer:feed(piece)) do
        if event.kind == "noise" then
          noise = noise + #event.bytes
        elseif known[event.bytes] then
          frames, good = frames + 1, good + #event.bytes
        end
      end
    end
    local share = noise / (noise + good)
    assert.is_true(frames >= 0.8 * 10 * #own and frames < 10 * #own, frames)
    assert.is_true(share > 0.15 and share < 0.35, share)
    assert.is_true(#pieces > 10 * #own)
  end)

  it("is written and read as hex", function()
    helper.with_folder(function(folder)
      telegrams.write(folder .. "/x.hex", own)
      assert.same(own, telegrams.read(folder .. "/x.hex"))
      helper.write(folder .. "/y.hex", helper.HYD)
      helper.write(folder .. "/z.hex", "68 is no telegram")
      assert.same({ HYD }, telegrams.of_files { folder .. "/y.hex", folder .. "/z.hex" })
    end)
  end)
end)

describe("the workloads", function()
  it("count what they do", function()
    local done = {}
    for name, workload in pairs(workloads) do done[name] = workload.prepare({ HYD, HYD }, { "\x68", HYD })() .. " " .. workload.unit end
    assert.same({ open = "2 telegrams", each = "2 telegrams", tables = "2 telegrams", json = "2 telegrams",
      feed = #HYD + 1 .. " bytes", encode_records = "8 records", encode_telegram = "1 telegrams" }, done)
  end)

  it("leave little garbage when they decode", function()
    for name, limit in pairs(LIMITS) do
      local bytes = garbage(workloads[name].prepare({ HYD }, {}))
      assert.is_true(bytes <= limit, ("%s: %.0f bytes of garbage, the limit is %d"):format(name, bytes, limit))
    end
  end)
end)

describe("a result", function()
  it("is the median of the runs, with the lowest and highest", function()
    assert.same({ 3, 1, 9 }, { report.median { 9, 1, 3 } })
    assert.same({ 2.5, 1, 4 }, { report.median { 4, 1, 3, 2 } })
    assert.same({ 5, 5, 5 }, { report.median { 5 } })
  end)

  it("is read from what the programs print", function()
    assert.same({ 22016, "telegram", 0.300108 }, { report.work "tables: 22016 telegrams 0.300108000 s\n" })
    assert.equal(179788461, report.instructions "==1== \n==1== I   refs:      179,788,461\n")
    local scan = "primary 0-250, house, virtual clock             61.86 s     9 found    261 frames  least 61.59 s: 1.004 times\n"
    assert.same({ 61.86, 61.59 }, { report.scan(scan, "primary 0-250, house, virtual clock") })
    assert.same({ mean = 1.12, slowest = 1.141, cpu = 12.9 }, report.gateway("200 gateways, 3 meters each, 0 faulty, 10 s\n"
      .. "mean cycle      1.538 s  (1.120 of the line)\nslowest cycle   1.567 s  (1.141 of the line)\n"
      .. "cpu             12.9 % of one core, 390 readouts a second\n"))
  end)

  it("that looks otherwise is an error that names the line", function()
    assert.has_error(function() report.gateway "slowest cycle   1.567 s  (1.141 of the line)\n" end,
      'the line "mean cycle ... s (... of the line)" is missing, or looks otherwise, in:\nslowest cycle   1.567 s  (1.141 of the line)\n')
    assert.error_matches(function()
      report.gateway "mean cycle 1.5 s (1.1 of the line)\nslowest cycle nan s (nan of the line)\ncpu 1 % of one core\n"
    end, '"slowest cycle ', 1, true)
    assert.error_matches(function() report.scan("primary 61 s", "primary") end, 'the line "primary ', 1, true)
    assert.error_matches(function() report.work "tables: 0 telegrams 0.3 s\n" end, "not a result of a workload")
    assert.error_matches(function() report.instructions "valgrind: failed" end, "no instructions")
  end)
end)

describe("the baseline", function()
  local ABOUT = { machine = "A CPU", tools = "cc 12; Lua 5.4", telegrams = "16 of the house" }
  local ROWS = {
    { name = "C: frame", value = 27.8, unit = "ns/telegram", low = 27.1, high = 28, rate = 1e9 / 27.8, instructions = 534.4 },
    { name = "scan", value = 61.86, unit = "s", remark = "least 61.59" },
  }
  local text = report.format(ABOUT, ROWS)

  it("is read as it was stored", function()
    assert.same({ about = ABOUT, rows = { ["C: frame"] = { value = 27.8, instructions = 534.4 }, scan = { value = 61.86 } } },
      report.parse(text))
    assert.error_matches(function() report.parse(text .. "C: frame 27\n") end, "not a line of a baseline: C: frame 27", 1, true)
  end)

  it("is what changes are shown against", function()
    local baseline = report.parse(text)
    local faster = { { name = "C: frame", value = 13.9, unit = "ns/telegram", instructions = 587.84 }, { name = "new", value = 1, unit = "s" } }
    local lines = {}
    for line in report.table(faster, baseline):gmatch "[^\n]+" do lines[#lines + 1] = line:gsub("  +", " | ") end
    assert.same({ " | value | unit | lowest .. highest | a second | baseline | change | instructions | baseline | change",
      "C: frame | 13.90 | ns/telegram | - | - | 27.80 | -50.0 % | 587.8 | 534.4 | +10.0 %",
      "new | 1.000 | s | - | - | - | - | - | - | -" }, lines)
    assert.same({}, report.remarks(ABOUT, baseline))
    assert.same({ "The baseline is of other machine (A CPU): the change of times tells of the machine too." },
      report.remarks({ machine = "B", tools = ABOUT.tools }, baseline))
  end)

  it("limits the instructions", function()
    local baseline = report.parse(text)
    assert.same({}, report.worse({ { name = "C: frame", instructions = 550 }, { name = "new", instructions = 9 }, { name = "scan" } }, baseline, 10))
    assert.same({ "C: frame: 600.0 instructions, 534.4 in the baseline" },
      report.worse({ { name = "C: frame", instructions = 600 } }, baseline, 10))
  end)

  it("in the tree is whole", function()
    local baseline = report.parse(helper.read "spec/bench/baseline.txt")
    for _, fact in ipairs { "machine", "tools", "telegrams" } do assert.is_string(baseline.about[fact]) end
    for _, name in ipairs { "C: all records", "Lua: tables", "Lua: JSON", "scan by secondary address, 11 meters",
      "200 gateways: slowest cycle", "1000 gateways: processor" } do
      assert.is_true(baseline.rows[name].value > 0, name)
    end
    assert.is_true(baseline.rows["Lua: JSON"].instructions > baseline.rows["Lua: tables"].instructions)
  end)
end)
