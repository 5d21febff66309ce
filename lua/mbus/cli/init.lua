---The `mbus` command: one file a command beside this one, each with `summary`, `define(command)` and `run(args)`.
local argparse = require "argparse"
local console = require "mbus.cli.console"

local M = {}

M.version = "mbus scm"

local COMMANDS = { "decode", "explain", "read", "scan", "write", "select", "set-address", "set-baudrate", "set-clock", "reset",
  "synchronize", "alarms", "send", "monitor", "poll", "config", "ports", "simulate" }

---argparse ends with 255 on wrong usage; ours is 2, and says where help is.
local function usage_error(command, message)
  io.stderr:write(command:get_usage(), "\n\n")
  console.complain(message)
  io.stderr:write(("Try '%s --help'.\n"):format(command:_get_fullname()))
  os.exit(console.USAGE)
end

local function define(modules)
  local parser = argparse("mbus", "M-Bus (Meter-Bus, EN 13757) from the terminal: decode telegrams, read meters, simulate a bus.")
  parser:usage_max_width(80):help_max_width(80):command_target("command"):require_command(true)
  parser:flag("-V --version", "Print the version and exit."):action(function()
    print(M.version)
    os.exit(console.OK)
  end)
  parser:epilog [[
Exit codes: 0 done, 1 nothing or not everything found or read, 2 wrong usage, 3 the bus could not be opened.
Help on one command, with examples: mbus COMMAND --help]]
  parser.error = usage_error
  for _, name in ipairs(COMMANDS) do
    modules[name] = require("mbus.cli." .. name:gsub("-", "_"))
    local command = parser:command(name, modules[name].summary)
    modules[name].define(command)
    command.error = usage_error
  end
  return parser
end

---@param arguments string[]  as in the global `arg`
---@return integer  exit code
function M.main(arguments)
  local modules = {}
  local args = define(modules):parse(arguments)
  return modules[args.command].run(args)
end

return M
