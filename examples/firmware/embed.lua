-- Makes a C header of Lua files: lua5.4 embed.lua NAME=FILE... >modules.h
-- Lines of comment become empty ones, so that the numbers of the others stay.
print "/* Made by embed.lua. */"
local list = {}
for i, item in ipairs(arg) do
  local name, path = item:match("^([^=]+)=(.+)$")
  local file <close> = assert(io.open(path, "rb"))
  local text = ("\n" .. file:read("a")):gsub("\n[ \t]*%-%-[^\n]*", "\n"):sub(2)
  local bytes = text:gsub(".", function(character) return character:byte() .. (character == "\n" and ",\n" or ",") end)
  print(("static const unsigned char module_%d[] = {\n%s};"):format(i, bytes))
  list[i] = ('\t{ "=%s", module_%d, sizeof module_%d },'):format(name, i, i)
end
print "static const struct {\n\tconst char *name;\n\tconst unsigned char *text;\n\tsize_t size;\n} modules[] = {"
print(table.concat(list, "\n"))
print "};"
