---mbus decode: telegrams from arguments, files or standard input; no bus, no port, no network.
local console = require "mbus.cli.console"
local keys = require "mbus.cli.keys"
local output = require "mbus.cli.output"
local signals = require "mbus.cli.signals"

local M = {}

M.summary = "Decode telegrams from hex digits, files or standard input."

function M.define(command)
  command:argument("input", "Hex digits (with or without blanks, 0x, colons), files in hex or binary, or - for standard input.")
    :args("*"):argname("<file|hex|->")
  output.define(command)
  keys.define(command)
  command:option("--replay", "Print a capture that mbus monitor --record, or --trace, has written."):argname("<file>")
  command:epilog [[
Text holds one telegram a line; # begins a comment line. Binary input may hold any number of telegrams.
With --format jsonl every line of text gives exactly one line of JSON, also an empty or a bad one.

Examples:
  mbus decode 68 03 03 68 08 05 70 7D 16
  mbus decode meter.hex captured.bin
  mbus decode --format jsonl < telegrams.txt | jq .header.id
  mbus decode --replay bus.cap]]
end

---The frame of a telegram whose content cannot be read.
local function frame_of(bytes)
  local frame = bytes and require("mbus.core").frame(bytes)
  return frame or nil
end

---@return boolean  the telegram is good from beginning to end
local function show(out, args, options, bytes, where, err)
  local telegram
  if bytes then telegram, err = require("mbus").decode(bytes, options) end
  if telegram then
    out.telegram(telegram)
    err = err or telegram.error
  else
    out.failure(err, frame_of(bytes), bytes)
  end
  if err and not args.format:find "^json" then
    console.flush()
    console.complain(("%s: %s"):format(where, err))
  end
  return err == nil
end

local function replay(args)
  local heard, damaged = require "mbus.cli.heard", {}
  local captured, err = require("mbus.capture").read(args.replay, damaged)
  if captured and #captured.entries == 0 then err = damaged[1] end
  if err then
    console.complain(err)
    return console.USAGE
  end
  local key, wrong = keys.parse(args)
  if wrong then return console.USAGE end
  local out = heard.new(args.format, key)
  for entry in heard.entries(captured) do out.show(entry) end
  out.finish()
  for _, one in ipairs(damaged) do console.complain(one) end
  return #captured.entries > 0 and #damaged == 0 and console.OK or console.INCOMPLETE
end

function M.run(args)
  if args.replay then
    if #args.input == 0 then return replay(args) end
    console.complain("--replay goes without other input")
    return console.USAGE
  end
  local input = require "mbus.cli.input"
  if #args.input == 0 and console.is_terminal(0) then
    signals.default()
    io.stderr:write("Telegrams in hex, one a line; Ctrl-D ends. (mbus decode --help tells what else can be decoded.)\n")
  end
  local sources, message = input.sort(#args.input > 0 and args.input or { "-" })
  if not sources then
    console.complain(message .. ", and these are no hex digits")
    return console.USAGE
  end
  local out = output.new(args.format)
  local key, wrong = keys.parse(args)
  if wrong then return console.USAGE end
  local options = { keys = key, formats = {} }
  local count, good = 0, 0
  for bytes, where, err in input.telegrams(sources, { lines = args.format == "jsonl" }) do
    count = count + 1
    if show(out, args, options, bytes, where, err) then good = good + 1 end
    console.flush()
  end
  out.finish()
  if count == 0 then console.complain("no telegram in the input") end
  return count > 0 and good == count and console.OK or console.INCOMPLETE
end

return M
