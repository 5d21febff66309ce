std = "lua54"
max_line_length = 130
include_files = {
  "lua/**/*.lua", "lua/bin/mbus", "csrc/**/*.lua", "spec/**/*.lua", "examples/**/*.lua", "*.rockspec", ".busted", ".luacheckrc",
}
exclude_files = {
  "lua_modules", "build",
  "spec/fixtures/sim_unfinished.lua", -- wrong on purpose
}

files["spec"] = { std = "+busted", max_line_length = 160 } -- telegrams in hex
files["csrc/check/specs.lua"] = { globals = { "pending" } } -- a busted of its own
files["**/*.rockspec"] = { std = "+rockspec" }
files[".luacheckrc"] = { std = "+luacheckrc" }
