---`--key` of the commands that show telegrams.
local console = require "mbus.cli.console"

local M = {}

function M.define(command)
  command:option("--key", "AES-128 key of encrypted meters, 32 hex digits; ADDRESS=KEY for one meter. May be repeated.")
    :count("*"):argname("<[address=]key>")
end

---@return table? keys  for `mbus.decode`; nil without `--key`
---@return boolean? wrong  what was typed is no key; that has been said
function M.parse(args)
  if #args.key == 0 then return nil end
  local keys, err = require("mbus.security").keys(args.key)
  if keys then return keys end
  console.complain(err)
  return nil, true
end

return M
