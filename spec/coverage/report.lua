---Lines covered, by file and room; fails where a room that must be covered is not.
---
---   lua spec/coverage/report.lua FOLDER
---
---FOLDER holds c/*.gcov (gcov's text) and hits/*.hits ("line file" of Lua). Lines of the limited rooms that were not reached
---must stand with a reason in unreached.txt, and what stands there must still be in the file.
local FOLDER = assert(arg[1], "usage: report.lua FOLDER")
local LEAST = 95
-- In order: a file belongs to the first room that it is under.
local ROOMS = { "csrc/core", "csrc/lua", "lua/mbus/procedure", "lua/mbus/gateway", "lua/mbus/freeclient", "lua/mbus/simulator", "lua/mbus/transport",
  "lua/mbus/format", "lua/mbus/cli", "lua/mbus" }
local LIMITED = { ["csrc/core"] = true, ["lua/mbus/procedure"] = true }

---@class Coverage
---@field active table<integer, boolean>  lines that have code
---@field hit table<integer, boolean>     those that ran

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local list = {}
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

-- ------------------------------------------------------------------ C

---A listing holds a C file and, after it, what it includes.
---@param files table<string, Coverage>
local function read_gcov(files)
  for _, path in ipairs(lines_of("ls " .. FOLDER .. "/c/*.gcov")) do
    local coverage
    for line in io.lines(path) do
      local count, number, text = line:match "^%s*([^:]+):%s*(%d+):(.*)$"
      number = math.tointeger(tonumber(number))
      local name = number == 0 and text:match "^Source:(.+)$"
      if name then
        coverage = { active = {}, hit = {} }
        if name:find "^csrc/.+%.c$" then files[name] = coverage end
      elseif number and number > 0 and count ~= "-" then
        coverage.active[number] = true
        coverage.hit[number] = count:find "^%d" and true or nil
      end
    end
  end
end

-- ------------------------------------------------------------------ Lua

---Lines that only close a block: what stands there is never what somebody meant to run.
local function is_closing(text)
  local word = text:match "^%s*(%a*)[%s%)%]},;]*$"
  return word == "" or word == "end" or word == "else"
end

---The lines with instructions in any function of a file, called or not, but for the return that ends each.
---@return table<integer, boolean>
local function active_lines(path)
  local active, text, last = {}, {}, nil
  for line in io.lines(path) do text[#text + 1] = line end
  for _, line in ipairs(lines_of("luac5.4 -l -l -p " .. path)) do
    if line:find "^main <" or line:find "^function <" then last = nil end
    local number, instruction = line:match "^\t%d+\t%[(%d+)%]\t(%u%w*)"
    if number then
      if last then active[last] = true end
      number = math.tointeger(tonumber(number))
      last = instruction ~= "VARARGPREP" and not is_closing(text[number]) and number or nil
    end
  end
  return active
end

---"/anywhere/lua/mbus/x.lua", "./lua/mbus/x.lua" and "lua/mbus/x.lua" are one.
local function own_name(source) return source:match "^(lua/mbus/.+)$" or source:match "[/^]?(lua/mbus/.+%.lua)$" end

---@param files table<string, Coverage>
local function read_hits(files)
  for _, path in ipairs(lines_of "find lua/mbus -name '*.lua' ! -name '*.meta.lua' | sort") do
    files[path] = { active = active_lines(path), hit = {} }
  end
  for _, path in ipairs(lines_of("find " .. FOLDER .. "/hits -name '*.hits'")) do
    for line in io.lines(path) do
      local number, source = line:match "^(%d+) (.+)$"
      local coverage = files[own_name(source) or ""]
      if coverage then coverage.hit[math.tointeger(tonumber(number))] = true end
    end
  end
end

-- ------------------------------------------------------------------ what may stay unreached

---Reads a file's name, then "- line" entries, each group after its reason in parentheses.
---@return table<string, table<string, boolean>>  lines by file; true until one of them is found
local function reasons()
  local list, file, reason = {}, nil, nil
  for line in io.lines "spec/coverage/unreached.txt" do
    if line:find "^%S+/%S+$" then
      file, reason = line, nil
      list[file] = list[file] or {}
    elseif line:find "^%(" then
      reason = line
    elseif line:find "^%- " then
      assert(reason, "no reason for: " .. line)
      list[file][line:sub(3)] = true
    end
  end
  return list
end

local function room_of(path)
  for _, room in ipairs(ROOMS) do
    if path:sub(1, #room + 1) == room .. "/" then return room end
  end
end

---Lines of a file that did not run, but for those with a reason.
local function unexplained(path, coverage, list)
  local found, number = {}, 0
  for line in io.lines(path) do
    number = number + 1
    local text = line:match "^%s*(.-)%s*$"
    local has_reason = list[path] and list[path][text] ~= nil
    if has_reason then list[path][text] = false end
    if coverage.active[number] and not coverage.hit[number] and not has_reason then
      found[#found + 1] = ("%s:%d: %s"):format(path, number, text)
    end
  end
  return found
end

local function percent(hit, active) return active > 0 and 100 * hit / active or 100 end

local function count(coverage)
  local active, hit = 0, 0
  for line in pairs(coverage.active) do
    active = active + 1
    if coverage.hit[line] then hit = hit + 1 end
  end
  return hit, active
end

local function main()
  local files, names, rooms, good = {}, {}, {}, true
  read_gcov(files)
  read_hits(files)
  for path in pairs(files) do names[#names + 1] = path end
  table.sort(names)
  local list, missing = reasons(), {}
  for _, path in ipairs(names) do
    local room = assert(room_of(path), path)
    local hit, active = count(files[path])
    rooms[room] = rooms[room] or { hit = 0, active = 0 }
    rooms[room].hit, rooms[room].active = rooms[room].hit + hit, rooms[room].active + active
    if LIMITED[room] then
      print(("%-40s %4d of %4d lines  %5.1f %%"):format(path, hit, active, percent(hit, active)))
      for _, line in ipairs(unexplained(path, files[path], list)) do missing[#missing + 1] = line end
    end
  end
  for _, room in ipairs(ROOMS) do
    local row = rooms[room]
    if row then
      local share = percent(row.hit, row.active)
      local low = LIMITED[room] and share < LEAST
      good = good and not low
      print(("Coverage: %-22s %5d of %5d lines  %5.1f %%%s"):format(room, row.hit, row.active, share, low and "  TOO LOW" or ""))
    end
  end
  for _, line in ipairs(missing) do
    good = false
    print("not reached, and no reason given: " .. line)
  end
  for path, lines in pairs(list) do
    for line, is_open in pairs(lines) do
      if is_open then
        good = false
        print(("unreached.txt has a line that is gone: %s: %s"):format(path, line))
      end
    end
  end
  os.exit(good and 0 or 1, true)
end

main()
