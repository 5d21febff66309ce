-- Prints what the C core takes on a microcontroller, and fails where that is more than it may be.
--
--   lua size.lua FLASH_LIMIT FLASH_LIMIT_WITHOUT_NAMES STACK_LIMIT FOLDER...
--
-- A folder, of one target, holds what size.mk has made: sizes.txt (of each object, then of all linked), *.ci (gcc's call
-- graph with the stack of each function), core.dis (the code, for the stack of what libgcc and libc add), symbols.txt (of that
-- code), public.txt.

local flash_limit, flash_limit_without_names, stack_limit = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
local folders = table.move(arg, 4, #arg, 1, {})

---@return string
local function read(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

-- --- flash -----------------------------------------------------------------------------------------------------

---@return table<string, integer> sizes, string[] names  code and constants of each file, of the libraries, and of all
local function flash(folder)
  local sizes, names, sum = {}, {}, 0
  for text, data, path in read(folder .. "/sizes.txt"):gmatch("(%d+)%s+(%d+)%s+%d+%s+%d+%s+%x+%s+(%S+)") do
    local name = path:match("([^/]+)%.o$") or "total"
    sizes[name], names[#names + 1] = text + data, name
    if name ~= "total" then sum = sum + sizes[name] end
  end
  sizes["libgcc, libc"] = sizes.total - sum -- texts that two files share are counted once: it may be a few bytes too little
  table.insert(names, #names, "libgcc, libc")
  return sizes, names
end

-- --- stack -----------------------------------------------------------------------------------------------------

---@class node
---@field bytes integer
---@field calls table<string, boolean>

---@return table<string, node>
local function nodes_of_source(folder)
  local nodes = {}
  for name in read(folder .. "/public.txt"):gmatch("file (%S+)") do
    local graph = read(("%s/%s.ci"):format(folder, name))
    for title, label in graph:gmatch('node: { title: "([^"]+)" label: "([^"]+)"') do
      local bytes, kind = label:match("(%d+) bytes %(([%a,]+)%)")
      if bytes then
        if kind ~= "static" then error(title .. ": its stack depends on the input (" .. kind .. ")", 0) end
        nodes[title] = { bytes = tonumber(bytes), calls = {} }
      end
    end
    for from, to in graph:gmatch('edge: { sourcename: "([^"]+)" targetname: "([^"]+)"') do nodes[from].calls[to] = true end
  end
  return nodes
end

---What an instruction takes of the stack; of all in a function the sum is never too small.
local function taken_by(operation, operands)
  if operation:match("^push") or (operation:match("^stmdb") and operands:match("^sp!")) then
    local _, commas = operands:match("{.*}"):gsub(",", "")
    return 4 * (commas + 1)
  end
  if operation:match("^sub") then return tonumber(operands:match("^sp, #(%d+)") or operands:match("^sp, sp, #(%d+)")) or 0 end
  return tonumber(operands:match("%[sp, #%-(%d+)%]!")) or 0
end

---Adds the functions that have no source here.
local function add_libraries(nodes, folder)
  local node, name
  local at = {} -- node by address, as a function may have several names
  for line in read(folder .. "/core.dis"):gmatch("[^\n]+") do
    local address, start = line:match("^(%x+) <(.-)>:$")
    if start then
      name, node = start, { bytes = 0, calls = {} }
      if nodes[name] then node = nil else nodes[name], at[address] = node, node end
    elseif node then
      local operation, operands = line:match("^%s*%x+:\t[%x ]+\t([%a.]+)\t?(.*)$")
      if operation then
        node.bytes = node.bytes + taken_by(operation, operands)
        local target = operation:match("^b") and operands:match("<([^+>]+)")
        if target and target ~= name then node.calls[target] = true end
        if operation == "blx" and not target then error(name .. " calls through a pointer", 0) end
      end
    end
  end
  for address, symbol in read(folder .. "/symbols.txt"):gmatch("(%x+) %a (%S+)") do
    nodes[symbol] = nodes[symbol] or at[address]
  end
end

---The most that a call can take, with all that it calls.
local function worst(nodes, name, path)
  local node = nodes[name] or error("nothing is known of the stack of " .. name, 0)
  if path[name] then error("recursion through " .. name, 0) end
  if not node.worst then
    path[name] = true
    local deepest = 0
    for target in pairs(node.calls) do deepest = math.max(deepest, worst(nodes, target, path)) end
    node.worst, path[name] = node.bytes + deepest, nil
  end
  return node.worst
end

---@return table<string, integer>  by public function
local function stack(folder)
  local nodes, result = nodes_of_source(folder), {}
  add_libraries(nodes, folder)
  for name in read(folder .. "/public.txt"):gmatch("function (%S+)") do result[name] = worst(nodes, name, {}) end
  return result
end

-- --- tables ----------------------------------------------------------------------------------------------------

---A line for each name, a column for each folder.
local function print_table(title, names, values)
  local heads = {}
  for i, folder in ipairs(folders) do heads[i] = folder:match("[^/]+$") end
  local layout = "%-26s" .. (" %22s"):rep(#folders)
  print(layout:format(title, table.unpack(heads)))
  for _, name in ipairs(names) do
    local cells = {}
    for i = 1, #folders do cells[i] = values[i][name] or "-" end
    print(layout:format(name, table.unpack(cells)))
  end
  print()
end

local over = {}
local function check(folder, what, bytes, limit)
  if bytes > limit then over[#over + 1] = ("%s: %s takes %d bytes, more than %d"):format(folder, what, bytes, limit) end
end

local flashes, stacks, most, functions, files = {}, {}, {}, {}, nil
for i, folder in ipairs(folders) do
  flashes[i], files = flash(folder)
  check(folder, "the core", flashes[i].total, folder:match("no%-names$") and flash_limit_without_names or flash_limit)
  stacks[i] = stack(folder)
  for name, bytes in pairs(stacks[i]) do
    if not most[name] then functions[#functions + 1] = name end
    most[name] = math.max(most[name] or 0, bytes)
    check(folder, "the stack of " .. name, bytes, stack_limit)
  end
end
table.sort(functions, function(a, b)
  if most[a] ~= most[b] then return most[a] > most[b] end
  return a < b
end)
print_table("flash, bytes", files, flashes)
print_table("stack at most, bytes", functions, stacks)
if #over > 0 then
  io.stderr:write(table.concat(over, "\n"), "\n")
  os.exit(1)
end
