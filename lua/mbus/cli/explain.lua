---mbus explain: every byte of a telegram with its role and its meaning; no bus, no port, no network.
local console = require "mbus.cli.console"
local keys = require "mbus.cli.keys"

local M = {}

M.summary = "Explain telegrams byte by byte."

function M.define(command)
  command:argument("input", "Hex digits (with or without blanks, 0x, colons), files in hex or binary, or - for standard input.")
    :args("*"):argname("<file|hex|->")
  command:option("--colour --color", "Colours by role: auto (on a terminal, unless NO_COLOR is set), always or never.")
    :choices { "auto", "always", "never" }:default("auto"):argname("<when>")
  keys.define(command)
  command:epilog [[
Shows where each byte stands, what it is and what it contributes to the value,
also of what is damaged or no good frame: what of it makes sense, then where it
breaks.

Examples:
  mbus explain 68 03 03 68 08 05 70 7D 16
  mbus explain meter.hex --colour always | less -R
  mbus read /dev/ttyUSB0 5 --format annotated]]
end

local COLOUR = { always = true, never = false }

---@return mbus.format.annotated.Options
local function style(args)
  local options = console.style()
  if COLOUR[args.colour] ~= nil then options.colour = COLOUR[args.colour] end
  return options
end

---@param separator string
---@return boolean  the telegram is good from beginning to end
local function show(bytes, where, err, options, separator)
  if bytes and options.keys then
    local plain, more = require("mbus.security").decrypt(bytes, options.keys)
    if not plain then err = more end
    bytes = plain or bytes
  end
  if err then console.complain(("%s: %s"):format(where, err)) end
  if not bytes then return false end
  options.title = where
  local explained, problem = require("mbus.format.annotated").bytes(bytes, options)
  console.write(separator .. explained)
  return not (problem or err)
end

function M.run(args)
  local input = require "mbus.cli.input"
  if #args.input == 0 and console.is_terminal(0) then
    io.stderr:write("Telegrams in hex, one a line; Ctrl-D ends. (mbus explain --help tells what else can be explained.)\n")
  end
  local sources, message = input.sort(#args.input > 0 and args.input or { "-" })
  if not sources then
    console.complain(message .. ", and these are no hex digits")
    return console.USAGE
  end
  local key, wrong = keys.parse(args)
  if wrong then return console.USAGE end
  local options, count, good = style(args), 0, 0
  options.keys = key
  for bytes, where, err in input.telegrams(sources) do
    if show(bytes, where, err, options, count > 0 and "\n" or "") then good = good + 1 end
    count = count + 1
    console.flush()
  end
  if count == 0 then console.complain("no telegram in the input") end
  return count > 0 and good == count and console.OK or console.INCOMPLETE
end

return M
