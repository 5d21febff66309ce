---What the benchmark makes of its figures: medians, the stored baseline, the table; and the reading of what the measuring
---programs print. What they print is taken strictly: a line that is not there or looks otherwise is an error.
local M = {}

---@class mbus.bench.Row
---@field name string
---@field value number
---@field unit string             "ns/telegram", "s", ...; less is better
---@field low? number             of the repeated runs
---@field high? number
---@field remark? string          in place of these
---@field rate? number            how many a second
---@field instructions? number    for one

---@class mbus.bench.Baseline
---@field about table<string, string>    machine, tools, telegrams
---@field rows table<string, { value: number, instructions?: number }>

--- Figures ----------------------------------------------------------------------------------------------------------

---@param values number[]  gets sorted
---@return number median, number low, number high
function M.median(values)
  table.sort(values)
  local n = #values
  local upper = values[n // 2 + 1]
  return n % 2 == 1 and upper or (values[n // 2] + upper) / 2, values[1], values[n]
end

---@param text string  what a workload prints
---@return integer done, string unit, number seconds
function M.work(text)
  local done, unit, seconds = text:match "^[%w_]+: (%d+) (%l+)s ([%d.]+) s\n$"
  if not done or tonumber(done) == 0 then error("not a result of a workload: " .. text, 0) end
  return math.tointeger(tonumber(done)), unit, tonumber(seconds)
end

---@param text string  what valgrind says
---@return integer
function M.instructions(text)
  local count = text:match "I +refs: +([%d,]+)"
  if not count then error("valgrind counts no instructions: " .. text, 0) end
  return math.tointeger(tonumber((count:gsub(",", ""))))
end

local function line_of(text, pattern, what)
  for line in text:gmatch "[^\n]+" do
    local one, other = line:match(pattern)
    if one then return tonumber(one), tonumber(other), line end
  end
  error(("the line %q is missing, or looks otherwise, in:\n%s"):format(what, text), 0)
end

---@param text string  what scan.lua prints
---@param name string  of the line
---@return number seconds, number least
function M.scan(text, name)
  local pattern = "^" .. name:gsub("%p", "%%%0") .. " +([%d.]+) s .- least ([%d.]+) s: [%d.]+ times$"
  local seconds, least = line_of(text, pattern, name .. "  ... s ... least ... s: ... times")
  return seconds, least
end

---@param text string  what gateway.lua prints
---@return { mean: number, slowest: number, cpu: number }  the cycles against the line alone; percent of one core
function M.gateway(text)
  local _, mean = line_of(text, "^mean cycle +([%d.]+) s +%(([%d.]+) of the line%)$", "mean cycle ... s (... of the line)")
  local _, slowest = line_of(text, "^slowest cycle +([%d.]+) s +%(([%d.]+) of the line%)$", "slowest cycle ... s (... of the line)")
  local cpu = line_of(text, "^cpu +([%d.]+) %% of one core", "cpu ... % of one core")
  return { mean = mean, slowest = slowest, cpu = cpu }
end

--- Baseline ---------------------------------------------------------------------------------------------------------

-- A line of facts is "# name: text", one of figures "name <tab> value <tab> unit <tab> instructions".

---@param text string
---@return mbus.bench.Baseline
function M.parse(text)
  local baseline = { about = {}, rows = {} }
  for line in text:gmatch "[^\n]+" do
    local fact, words = line:match "^# (%l+): (.+)$"
    local name, value, instructions = line:match "^([^\t#]+)\t([%d.]+)\t[^\t]+\t([%d.-]+)$"
    if fact then
      baseline.about[fact] = words
    elseif name then
      baseline.rows[name] = { value = tonumber(value), instructions = tonumber(instructions) }
    else
      error("not a line of a baseline: " .. line, 0)
    end
  end
  return baseline
end

local FACTS = { "machine", "tools", "telegrams" }

local function figure(value)
  if not value then return "-" end
  local digits = value >= 1000 and 0 or value >= 100 and 1 or value >= 10 and 2 or 3
  return (("%." .. digits .. "f"):format(value))
end

---@param about table<string, string>
---@param rows mbus.bench.Row[]
---@return string
function M.format(about, rows)
  local lines = {}
  for _, fact in ipairs(FACTS) do lines[#lines + 1] = ("# %s: %s"):format(fact, about[fact]) end
  for _, row in ipairs(rows) do
    lines[#lines + 1] = table.concat({ row.name, figure(row.value), row.unit, figure(row.instructions) }, "\t")
  end
  return table.concat(lines, "\n") .. "\n"
end

--- Table ------------------------------------------------------------------------------------------------------------

local function change(now, before)
  return now and before and before > 0 and ("%+.1f %%"):format((now / before - 1) * 100) or "-"
end

local HEAD = { "", "value", "unit", "lowest .. highest", "a second", "baseline", "change", "instructions", "baseline", "change" }
local RIGHT = { false, true, false, false, true, true, true, true, true, true }

local function cells(row, before)
  local spread = row.remark or row.low and figure(row.low) .. " .. " .. figure(row.high) or "-"
  return { row.name, figure(row.value), row.unit, spread, row.rate and ("%.0f"):format(row.rate) or "-", figure(before.value),
    change(row.value, before.value), figure(row.instructions), figure(before.instructions),
    change(row.instructions, before.instructions) }
end

---@param rows mbus.bench.Row[]
---@param baseline? mbus.bench.Baseline
---@return string
function M.table(rows, baseline)
  local list = { HEAD }
  for _, row in ipairs(rows) do list[#list + 1] = cells(row, baseline and baseline.rows[row.name] or {}) end
  local lines = {}
  for i, texts in ipairs(list) do
    local line = {}
    for column, text in ipairs(texts) do
      local width = 0
      for _, others in ipairs(list) do width = math.max(width, #others[column]) end
      line[column] = (RIGHT[column] and "%" or "%-") .. width .. "s"
      line[column] = line[column]:format(text)
    end
    lines[i] = table.concat(line, "  "):gsub(" +$", "")
  end
  return table.concat(lines, "\n")
end

---What keeps figures from being compared.
---@param about table<string, string>
---@param baseline mbus.bench.Baseline
---@return string[] remarks
function M.remarks(about, baseline)
  local remarks = {}
  local function differs(fact, consequence)
    if about[fact] ~= baseline.about[fact] then
      remarks[#remarks + 1] = ("The baseline is of other %s (%s): %s."):format(fact, baseline.about[fact] or "unknown", consequence)
    end
  end
  differs("machine", "the change of times tells of the machine too")
  differs("tools", "the change of instructions tells of them too")
  return remarks
end

---The rows that need more instructions than the baseline allows.
---@param rows mbus.bench.Row[]
---@param baseline mbus.bench.Baseline
---@param percent number
---@return string[] complaints
function M.worse(rows, baseline, percent)
  local complaints = {}
  for _, row in ipairs(rows) do
    local before = (baseline.rows[row.name] or {}).instructions
    if row.instructions and before and row.instructions > before * (1 + percent / 100) then
      complaints[#complaints + 1] = ("%s: %s instructions, %s in the baseline"):format(row.name, figure(row.instructions), figure(before))
    end
  end
  return complaints
end

return M
