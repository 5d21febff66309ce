---What the commands that take a config share: the ports of a BACRouter's export, and what is wrong in a config.
local console = require "mbus.cli.console"

local M = {}

local function port(argument)
  local name, target = argument:match("^%s*([^=]-)%s*=%s*(.-)%s*$")
  if not name or name == "" or target == "" then return nil, ("'%s' is no NAME=URL"):format(argument) end
  return { name = name, target = target }
end

function M.define(command)
  command:option("--port", "What a port of a BACRouter's export is here, as in RS485-1=/dev/ttyUSB0; may be given several times.")
    :count("*"):argname("<name=url>"):convert(port)
end

---@param args table
---@return table<string, string> ports  by their name in the export
function M.ports(args)
  local ports = {}
  for _, one in ipairs(args.port) do ports[one.name] = one.target end
  return ports
end

---Names each problem: that of an export is a text with its place, that of a config has a path.
---@param err mbus.Error
---@param source? string  name of the file, to stand before a path
function M.complain(err, source)
  if not err.problems then return console.complain(err) end
  for _, problem in ipairs(err.problems) do
    if type(problem) == "table" then
      problem = ("%s%s: %s"):format(source and source .. ": " or "", problem.path, problem.message)
    end
    console.complain(problem)
  end
end

return M
