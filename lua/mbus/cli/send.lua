---mbus send: any frame, and what comes back.
local bus_options = require "mbus.cli.bus"
local console = require "mbus.cli.console"
local keys = require "mbus.cli.keys"
local manage = require "mbus.cli.manage"
local output = require "mbus.cli.output"

local M = {}

M.summary = "Send any frame and print what comes."

local function seconds(text)
  local value = tonumber(text)
  if not value or value < 0 or value == math.huge then return nil, ("'%s' is no number of seconds"):format(text) end
  return value
end

function M.define(command)
  bus_options.define(command)
  command:argument("hex", "The frame in hex digits, with or without blanks."):args("+"):argname("<hex>")
  command:flag("-c --checksum", "Fill in length, checksum and stop byte, if they are wrong or missing.")
  command:option("--listen", "Seconds to listen, instead of the answer window."):convert(seconds):argname("<s>")
  output.define(command)
  manage.define_dry_run(command)
  command:epilog [[
Examples:
  mbus send /dev/ttyUSB0 "10 5B 01 5C 16"
  mbus send /dev/ttyUSB0 10 5B 01 --checksum
  mbus send /dev/ttyUSB0 "68 03 03 68 53 FE BD" --checksum]]
end

local function parse(args)
  local bytes, err = require("mbus").unhex(table.concat(args.hex, " "))
  if not bytes then return nil, tostring(err) end
  if bytes == "" then return nil, "there is nothing to send" end
  if not args.checksum then return bytes end
  local whole = require("mbus.encode").complete(bytes)
  if not whole then return nil, "this is no beginning of a frame: 10 C A, or 68 L L 68 C A CI ..." end
  return whole
end

local function nobody_answers(bytes)
  local frame = require("mbus.core").frame(bytes)
  return frame and frame.a == 255
end

function M.run(args)
  local bytes, message = parse(args)
  if not bytes then
    console.complain(message)
    return console.USAGE
  end
  local heard, code = manage.perform(args, "send", bytes, { listen = args.listen })
  if not heard then return code end
  local out = require("mbus.cli.heard").new(args.format, (keys.parse(args)))
  local frames = 0
  for _, entry in ipairs(heard) do
    entry.direction = entry.frame and "RECV" or "NOISE"
    if entry.frame then frames = frames + 1 end
    out.show(entry)
  end
  out.finish()
  if #heard == 0 and not nobody_answers(bytes) then console.complain("no answer") end
  return (frames > 0 or nobody_answers(bytes)) and console.OK or console.INCOMPLETE
end

return M
