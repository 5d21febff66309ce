---What the commands share that change something on a bus: address, --dry-run, doing it, telling how it went.
local bus_options = require "mbus.cli.bus"
local console = require "mbus.cli.console"

local M = {}

---Adds bus and meter to a command.
---@param command table
---@param all? boolean  255 is allowed: everybody, without an answer
function M.define(command, all)
  bus_options.define(command)
  command:argument("address", "The meter: primary address (0 to 250, 254 for the only meter), or 8 or 16 hex digits of a "
    .. "secondary one." .. (all and " 255 is for all meters, which do not answer it." or "")):argname("<address>")
  M.define_dry_run(command)
end

function M.define_dry_run(command)
  command:flag("--dry-run", "Print the frames that would be sent, and send nothing. Each is taken to be answered.")
end

---"5" is the number 5, everything else is text, also what only Lua takes for a number, such as 1e1.
function M.address(text) return text:find("^%s*%d%d?%d?%s*$") and math.tointeger(tonumber(text)) or text end

local function complain(err)
  console.complain(err)
  return nil, err.kind == "invalid" and console.USAGE or console.INCOMPLETE
end

local function plan(args, name, ...)
  local bus = require("mbus").open("manual:", { baudrate = args.baudrate, nke = args.no_nke and "never" or nil })
  local ok, err = bus:begin(name, ...)
  if not ok then return complain(err) end
  local _, frames, failure = bus:wants()
  if failure then return complain(failure) end
  local hex = require("mbus.core").hex
  for _, bytes in ipairs(frames) do console.write(("SEND (%03d) %s\n"):format(#bytes, hex(bytes))) end
  console.flush()
  return nil, console.OK
end

-- Puts --dry-run into the options, which are the last argument.
local function with_dry_run(...)
  local arguments = table.pack(...)
  arguments[arguments.n].dry_run = true
  return table.unpack(arguments, 1, arguments.n)
end

---Opens the bus, does one thing, closes it.
---@param args table
---@param name string  method of the bus
---@param ... any      its arguments, the last one a table of options
---@return any? result  nil: it failed, or was a dry run; all is told already
---@return integer? code  exit code
function M.perform(args, name, ...)
  if args.dry_run then return plan(args, name, with_dry_run(...)) end
  local bus, code = bus_options.open(args)
  if not bus then return nil, code end
  local result, err = bus[name](bus, ...)
  bus:close()
  if result == nil then return complain(err) end
  return result
end

---The same, with a sentence for what came of it.
---@param args table
---@param sentence fun(result: any): string
---@return integer code
function M.tell(args, sentence, ...)
  local result, code = M.perform(args, ...)
  if result == nil then return code end
  console.write(sentence(result) .. "\n")
  console.flush()
  return console.OK
end

return M
