---What specs share: the telegrams that everybody knows, and running the command as a user does.
local M = {}

---The heat meter of the project's demo: header, 14 records with three storages, two unset dates.
M.HYD = "68 5E 5E 68 08 00 72 47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01 0C 12 91 72 64 02 0C 2A 00 00 00 00 "
  .. "0B 3A 00 00 00 0A 5A 22 05 0A 5E 23 04 0A 62 99 00 04 6D 21 16 0A 39 4C 05 30 78 11 00 44 6D 00 00 1E 14 "
  .. "44 ED 7E 00 00 3F 1C 8C 01 05 20 30 69 01 84 01 6D 00 00 FF 2C 0B 26 02 03 16 F5 16"

---@param text string
---@return string  quoted for the shell
function M.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

---@return string  a fresh folder, gone after the `fn` that got it
local function with_folder(fn)
  local pipe = assert(io.popen("mkdir -p build && mktemp -d build/spec.XXXXXX"))
  local folder = pipe:read("l")
  pipe:close()
  local results = table.pack(pcall(fn, folder))
  os.execute("rm -rf " .. M.quote(folder))
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end
M.with_folder = with_folder

function M.read(name)
  local file <close> = assert(io.open(name, "rb"))
  return file:read("a")
end

function M.write(name, text)
  local file <close> = assert(io.open(name, "wb"))
  assert(file:write(text))
end

local function working_folder()
  local pipe = assert(io.popen("pwd"))
  local folder = pipe:read("l")
  pipe:close()
  return folder
end

---Assignments that make a shell command find this tree.
function M.environment()
  local root = working_folder()
  return ("LUA_PATH=%s LUA_CPATH=%s "):format(M.quote(root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;;"),
    M.quote(root .. "/build/?.so;;"))
end

---Runs a shell command.
---@param command string
---@param input? string  for its standard input
---@return integer code, string stdout, string stderr
function M.shell(command, input)
  return with_folder(function(folder)
    M.write(folder .. "/in", input or "")
    local _, _, code = os.execute(("(%s\n) <%s/in >%s/out 2>%s/err"):format(command, folder, folder, folder))
    return code, M.read(folder .. "/out"), M.read(folder .. "/err")
  end)
end

---Runs `mbus` out of this tree.
---@param arguments string  as on a shell's command line
---@param input? string
---@return integer code, string stdout, string stderr
function M.mbus(arguments, input)
  return M.shell(M.environment() .. "lua5.4 lua/bin/mbus " .. arguments, input)
end

---Memory runs out in a function that `fn` calls, and that is what `fn` raises.
---@param place table
---@param name string  of the function in it
---@param fn fun()
function M.without_memory(place, name, fn)
  local before = place[name]
  place[name] = function() error("not enough memory", 0) end
  local ok, err = pcall(fn)
  place[name] = before
  if ok or err ~= "not enough memory" then error("not raised: " .. tostring(err), 2) end
end

---Whoever runs the specs may have a hook, which collects garbage or counts lines.
---@return fun() restore  sets the hook of this thread again, if it is one of Lua
function M.keep_hook()
  local hook, mask, count = debug.gethook()
  return function()
    if type(hook) == "function" then debug.sethook(hook, mask, count) else debug.sethook() end
  end
end

return M
