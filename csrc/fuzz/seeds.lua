-- Writes the examples of a file in spec/robust as seeds: lua5.4 csrc/fuzz/seeds.lua FILE FOLDER
-- Examples are made by the modules of this tree; the C modules come from LUA_CPATH.
package.path = "lua/?.lua;lua/?/init.lua;./?.lua;" .. package.path
package.cpath = "build/?.so;" .. package.cpath
local name, folder = arg[1], arg[2]
for example, bytes in pairs(require("spec.robust." .. name).seeds) do
  local file = assert(io.open(folder .. "/" .. example, "wb"))
  assert(file:write(bytes))
  assert(file:close())
end
