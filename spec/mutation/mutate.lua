---Puts faults into copies of csrc/core, one at a time, and sees whether the tests notice.
---
---   lua spec/mutation/mutate.lua [--count N] [--seed N] [--file NAME] [--jobs N] [--seconds N] [--short] [--lua-include DIR]
---
---A fault is killed by the first that fails of the C checks, the specs of the core, and the C checks under the sanitizers.
---Not counted: what does not compile, what compiles to the same code, and survivors that equivalents.txt explains. Other
---survivors are shown; the run fails if fewer than 98 % are killed (95 % with --short, where each weighs more). After so many
---seconds no other fault is tried.
package.path = "spec/mutation/?.lua;" .. package.path
local seeds = require "seeds"

local ROOT, CORE, BINDING = "build/mutation", "csrc/core", { "core", "encode", "telegram" }
local SPECS = "spec/core spec/decode_spec.lua spec/encode_spec.lua spec/corpus_spec.lua"
local LEAST, LEAST_SHORT = 98, 95
-- An endless loop is stopped by the time that it computes, so many times what it takes without a fault: a busy machine must
-- not look like a fault that was noticed.
local PATIENCE = 4
-- Optimised, so that more of what means the same compiles to the same object.
local CC = "gcc -std=c99 -w -O1 -fPIC"
local SANITIZED = "gcc -std=c99 -w -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all"

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function run(command, ...) return (os.execute("exec >/dev/null 2>&1; " .. command:format(...))) end

---Seconds that a command computes; nil if it fails.
local function cost(command)
  local pipe <close> = assert(io.popen(("(%s) >/dev/null 2>&1 && times"):format(command)))
  local minutes, seconds = pipe:read("a"):match "\n(%d+)m([%d.]+)s"
  return minutes and minutes * 60 + seconds
end

local function must(command, ...)
  if not os.execute(command:format(...)) then error("failed: " .. command:format(...), 0) end
end

---@return string[]
local function lines(command)
  local pipe, list = assert(io.popen(command)), {}
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

local function arguments()
  local options = { count = 0, seed = 1, jobs = 2, part = 0, seconds = math.huge, ["lua-include"] = "/usr/include/lua5.4" }
  local i = 1
  while arg[i] do
    local name = arg[i]:match "^%-%-(.+)$"
    if name == "short" then
      options.short = true
      i = i + 1
    else
      assert(name and arg[i + 1], "unknown option " .. arg[i])
      options[name] = math.tointeger(tonumber(arg[i + 1])) or arg[i + 1]
      i = i + 2
    end
  end
  return options
end

-- ------------------------------------------------------------------ explained survivors

local function key(file, before, after) return table.concat({ file, before, after }, "\n") end

---Reads `file`, `- line`, `+ line with the fault` and a reason in parentheses before or between them. `+ *`: every fault of
---the line that nothing notices.
---@return table<string, string>  reason by key
local function explained()
  local list, file, before, reason = {}, nil, nil, nil
  for line in io.lines "spec/mutation/equivalents.txt" do
    if line:find "^- " then
      before = line:sub(3)
    elseif line:find "^%+ " then
      assert(reason, "no reason for: " .. line)
      list[key(file, before, line:sub(3))] = reason
    elseif line:find "^%S+%.%a+$" then
      file = line
    elseif line:find "^%(" then
      reason = line
    end
  end
  return list
end

local function is_explained(list, mutant)
  return (list[key(mutant.file, mutant.before, mutant.after)] or list[key(mutant.file, mutant.before, "*")]) ~= nil
end

---Entries that are no fault of this source any more.
local function stale(list, mutants)
  local known, old = {}, {}
  for _, mutant in ipairs(mutants) do
    known[key(mutant.file, mutant.before, mutant.after)] = true
    known[key(mutant.file, mutant.before, "*")] = true
  end
  for entry in pairs(list) do
    if not known[entry] then old[#old + 1] = entry end
  end
  return old
end

-- ------------------------------------------------------------------ building

local core_c, test_c

---Compiles `names` (without .c) of `from` into objects of `to`.
local function compile(compiler, from, to, names, include)
  local list = {}
  for _, name in ipairs(names) do list[#list + 1] = ("%s/%s.c"):format(from, name) end
  local root = ("../"):rep(select(2, to:gsub("[^/]+", "")))
  for i, path in ipairs(list) do list[i] = root .. path end
  return run("cd %s && %s -I%s%s -c %s", to, compiler, root, include, table.concat(list, " "))
end

local function objects(folder, names)
  local list = {}
  for _, name in ipairs(names) do list[#list + 1] = ("%s/%s.o"):format(folder, name) end
  return table.concat(list, " ")
end

local function names_in(folder)
  return lines(("cd %s && ls *.c | sed 's/\\.c$//'"):format(folder))
end

---A copy of the tree as it is now and all of its objects, which most faults leave as they are.
local function prepare(options)
  must("rm -rf %s && mkdir -p %s/plain %s/sanitized %s/lua && cp -R csrc %s/csrc", ROOT, ROOT, ROOT, ROOT, ROOT)
  local csrc = ROOT .. "/csrc"
  assert(compile(CC, csrc .. "/core", ROOT .. "/plain", core_c, csrc .. "/core"), "csrc/core does not compile")
  assert(compile(CC, csrc .. "/test", ROOT .. "/plain", test_c, csrc .. "/core"), "csrc/test does not compile")
  assert(compile(SANITIZED, csrc .. "/core", ROOT .. "/sanitized", core_c, csrc .. "/core"))
  assert(compile(SANITIZED, csrc .. "/test", ROOT .. "/sanitized", test_c, csrc .. "/core"))
  assert(compile(CC .. " -isystem " .. options["lua-include"], csrc .. "/lua", ROOT .. "/lua", BINDING, csrc .. "/core"))
end

---What has to be compiled again for a fault in this file. vif.def is read by vif.c: what mbus.h takes of it are names.
local function touched(file)
  if file:find "%.c$" then return { (file:gsub("%.c$", "")) }, false end
  if file == "vif.def" then return { "vif" }, false end
  return core_c, true
end

---@class Bench  where one worker builds
local Bench = {}
Bench.__index = Bench

local function new_bench(number)
  local bench = setmetatable({ folder = ("%s/worker%d"):format(ROOT, number) }, Bench)
  must("mkdir -p %s/plain %s/sanitized %s/lua %s/mbus", bench.folder, bench.folder, bench.folder, bench.folder)
  must("cp -R %s/csrc/core %s/core", ROOT, bench.folder)
  must("cp %s/plain/*.o %s/plain; cp %s/sanitized/*.o %s/sanitized; cp %s/lua/*.o %s/lua", ROOT, bench.folder, ROOT, bench.folder,
    ROOT, bench.folder)
  return bench
end

function Bench:compile(kind, compiler, mutant)
  local names, is_header = touched(mutant.file)
  local folder, core = self.folder .. "/" .. kind, self.folder .. "/core"
  return compile(compiler, core, folder, names, core)
    and (not is_header or compile(compiler, ROOT .. "/csrc/test", folder, test_c, core))
end

function Bench:restore(mutant)
  local names, is_header = touched(mutant.file)
  must("cp %s/csrc/core/%s %s/core", ROOT, mutant.file, self.folder)
  for _, kind in ipairs { "plain", "sanitized" } do
    must("cp %s %s/%s", objects(ROOT .. "/" .. kind, names), self.folder, kind)
    if is_header then must("cp %s %s/%s", objects(ROOT .. "/" .. kind, test_c), self.folder, kind) end
  end
  if is_header then must("cp %s/lua/*.o %s/lua", ROOT, self.folder) end
end

---Does every object that was compiled again equal what it was?
function Bench:is_same(mutant)
  local names, is_header = touched(mutant.file)
  if is_header then return false end
  for _, name in ipairs(names) do
    if not run("cmp -s %s/plain/%s.o %s/plain/%s.o", ROOT, name, self.folder, name) then return false end
  end
  return true
end

---Links the C checks; the command that runs them, or nil.
function Bench:checks(kind, compiler)
  local folder = self.folder .. "/" .. kind
  return run("%s -o %s/run %s %s", compiler, folder, objects(folder, core_c), objects(folder, test_c)) and folder .. "/run" or nil
end

---Links the module; the command that runs the specs, or nil.
function Bench:specs(mutant, include)
  local _, is_header = touched(mutant.file)
  local core = self.folder .. "/core"
  if is_header and not compile(CC .. " -isystem " .. include, ROOT .. "/csrc/lua", self.folder .. "/lua", BINDING, core) then return nil end
  must("gcc -shared -o %s/mbus/core.so %s %s", self.folder, objects(self.folder .. "/plain", core_c), objects(self.folder .. "/lua", BINDING))
  return ("MUTANT=%s %s \"$(command -v busted)\" -f spec/mutation/busted.lua --no-keep-going -o TAP %s"):format(self.folder, quote(arg[-1]),
    SPECS)
end

local function passes(command, options) return command ~= nil and run("ulimit -t %d; %s", options.limit, command) end

---Without a fault all must be well, or every fault would seem to be noticed. Returns how long a check may compute.
---@return integer seconds
function Bench:check_sound(options)
  local checks = assert(cost(self:checks("plain", CC)), "the C checks fail without a fault")
  local specs = assert(cost(self:specs({ file = "vif.c" }, options["lua-include"])), "the specs fail without a fault")
  local sanitizers = options.short and 0
    or assert(cost(self:checks("sanitized", SANITIZED)), "the C checks fail under the sanitizers without a fault")
  return math.ceil(math.max(checks, specs, sanitizers) * PATIENCE) + 1
end

---@return string  "broken", "same", "checks", "specs", "sanitizers" or "survived"
function Bench:fate(mutant, options)
  local source = read(ROOT .. "/csrc/core/" .. mutant.file)
  write(self.folder .. "/core/" .. mutant.file, source:sub(1, mutant.from - 1) .. mutant.new .. source:sub(mutant.to + 1))
  if not self:compile("plain", CC, mutant) then return "broken" end
  if self:is_same(mutant) then return "same" end
  if not passes(self:checks("plain", CC), options) then return "checks" end
  if not passes(self:specs(mutant, options["lua-include"]), options) then return "specs" end
  if options.short then return "survived" end
  if not (self:compile("sanitized", SANITIZED, mutant) and passes(self:checks("sanitized", SANITIZED), options)) then return "sanitizers" end
  return "survived"
end

-- ------------------------------------------------------------------ the run

local function all_mutants(folder, options)
  local sources = {}
  for _, file in ipairs(lines("ls " .. folder)) do
    if file:find "%.[ch]$" or file:find "%.def$" then sources[file] = read(folder .. "/" .. file) end
  end
  local list, wanted = seeds.all(sources), {}
  for _, mutant in ipairs(list) do
    if not options.file or mutant.file == options.file then wanted[#wanted + 1] = mutant end
  end
  return wanted, list
end

local function chosen_of(wanted, options)
  return options.count > 0 and seeds.sample(wanted, options.count, options.seed) or wanted
end

---As an entry of equivalents.txt.
local function describe(mutant) return ("%s\n- %s\n+ %s"):format(mutant.file, mutant.before, mutant.after) end

---One of `jobs` workers: every jobs-th mutant, while there is time; prints "index fate" a line.
local function work(options)
  local chosen = chosen_of(all_mutants(ROOT .. "/csrc/core", options), options)
  local bench, began = new_bench(options.part), os.time()
  for i = options.part, #chosen, options.jobs do
    if os.time() - began >= options.seconds then break end
    local fate = bench:fate(chosen[i], options)
    print(i, fate)
    io.stdout:flush()
    if fate == "survived" then io.stderr:write(describe(chosen[i]), "\n") end
    bench:restore(chosen[i])
  end
end

---Starts the workers and gathers what they found.
local function fates(options, limit)
  local own = table.concat(arg, " ")
  local pipes, list = {}, {}
  for part = 1, options.jobs do
    pipes[part] = assert(io.popen(("%s %s %s --part %d --jobs %d --limit %d"):format(quote(arg[-1]), quote(arg[0]), own, part, options.jobs,
      limit)))
  end
  for _, pipe in ipairs(pipes) do
    for line in pipe:lines() do
      local index, fate = line:match "^(%d+)%s+(%a+)$"
      list[tonumber(index)] = fate
    end
    assert(pipe:close(), "a worker failed")
  end
  return list
end

local KILLED = { checks = true, specs = true, sanitizers = true }

local function report(chosen, fate_of, reasons, least)
  local tally, by_file, order, survivors = {}, {}, {}, {}
  for i, mutant in ipairs(chosen) do
    local fate = fate_of[i] or "untried"
    if fate == "survived" and is_explained(reasons, mutant) then fate = "explained" end
    tally[fate] = (tally[fate] or 0) + 1
    local row = by_file[mutant.file]
    if not row then
      row = { killed = 0, counted = 0 }
      by_file[mutant.file] = row
      order[#order + 1] = mutant.file
    end
    if KILLED[fate] then row.killed = row.killed + 1 end
    if KILLED[fate] or fate == "survived" then row.counted = row.counted + 1 end
    if fate == "survived" then survivors[#survivors + 1] = mutant end
  end
  for _, mutant in ipairs(survivors) do print(describe(mutant)) end
  table.sort(order)
  local killed, counted = 0, 0
  for _, file in ipairs(order) do
    print(("%-14s %4d of %4d killed"):format(file, by_file[file].killed, by_file[file].counted))
    killed, counted = killed + by_file[file].killed, counted + by_file[file].counted
  end
  local function count(fate) return tally[fate] or 0 end
  local line = "Mutation: %d of %d faults killed (%.1f %%): %d by C checks, %d by specs, %d by sanitizers; "
    .. "%d more mean the same (%d of them explained), %d do not compile"
  print(line:format(killed, counted, counted > 0 and 100 * killed / counted or 100, count "checks", count "specs", count "sanitizers",
      count "same" + count "explained", count "explained", count "broken"))
  if count "untried" > 0 then print(("%d faults were not tried: no time left"):format(count "untried")) end
  return killed >= counted * least / 100
end

local function main()
  local options = arguments()
  core_c, test_c = names_in(CORE), names_in "csrc/test"
  if options.part > 0 then return work(options) end
  prepare(options)
  local wanted, all = all_mutants(ROOT .. "/csrc/core", options)
  local reasons = explained()
  local good = true
  for _, entry in ipairs(stale(reasons, all)) do
    good = false
    print("equivalents.txt explains what is no fault any more: " .. entry)
  end
  local limit = new_bench(0):check_sound(options)
  local chosen = chosen_of(wanted, options)
  good = report(chosen, fates(options, limit), reasons, options.short and LEAST_SHORT or LEAST) and good
  os.exit(good and 0 or 1, true)
end

main()
