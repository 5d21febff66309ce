-- Run first by every Lua process of a coverage run (LUA_INIT_5_4): counts its lines, and loads the instrumented C modules.
local folder = os.getenv "COVERAGE"

table.insert(package.searchers, 2, function(name)
  local path = name:find "^mbus%." and package.searchpath(name, folder .. "/?.so")
  if not path then return nil end
  return assert(package.loadlib(path, "luaopen_" .. name:gsub("%.", "_"))), path
end)

assert(package.loadlib(folder .. "/counter.so", "luaopen_counter"))()
