---What the commands share that talk to a bus: options, opening, tracing.
local console = require "mbus.cli.console"
local keys = require "mbus.cli.keys"
local signals = require "mbus.cli.signals"
local trace = require "mbus.cli.trace"

local M = {}

local function number(text)
  local value = tonumber(text)
  if not value or value < 0 or value == math.huge then return nil, ("'%s' is no number"):format(text) end
  return value
end

local function whole(least)
  return function(text)
    local value = math.tointeger(tonumber(text))
    if not value or value < least then return nil, ("'%s' is no whole number from %d"):format(text, least) end
    return value
  end
end

---Adds the bus to a command: its URL and how to talk there.
function M.define(command)
  command:argument("url", "The bus: /dev/ttyUSB0, COM3, usb://VID:PID, tcp://host:port, udp://host:port, "
    .. "rfc2217://host:port, sim:FILE."):argname("<url>")
  command:option("-b --baudrate", "Line speed in baud (default 2400)."):convert(whole(1)):argname("<n>")
  command:option("--timeout", "Seconds to wait for an answer, instead of what the line speed asks for."):convert(number)
    :argname("<s>")
  command:option("--retries", "How often an unanswered request is repeated (default 2)."):convert(whole(0)):argname("<n>")
  command:option("--margin", "Seconds added to the answer window for slow converters and networks."):convert(number)
    :argname("<s>")
  command:option("--gap", "Seconds of silence that end an unfinished answer."):convert(number):argname("<s>")
  command:option("--max-telegrams", "Telegrams taken from one meter at most (default 32)."):convert(whole(1)):argname("<n>")
  command:flag("--no-nke", "Do not reset the link of a meter before reading it.")
  keys.define(command)
  trace.define(command)
end

local OPTIONS = { "baudrate", "timeout", "retries", "margin", "gap", "max_telegrams" }

---@return mbus.Bus? bus
---@return integer? code  exit code; the reason is told already
function M.open(args)
  local options = { trace = args.trace and trace.new() or nil }
  for _, name in ipairs(OPTIONS) do options[name] = args[name] end
  if args.no_nke then options.nke = "never" end
  local key, wrong = keys.parse(args)
  if wrong then return nil, console.USAGE end
  options.keys = key
  if args.url:find("^manual:") then
    console.complain("manual: is for programs that carry the bytes themselves")
    return nil, console.USAGE
  end
  signals.default()
  local bus, err = require("mbus").open(args.url, options)
  if bus then return bus end
  console.complain(err)
  return nil, err.kind == "invalid" and console.USAGE or console.NO_BUS
end

---@param texts string[]
---@return (integer|string)[]? addresses  as messages show them; nil: there are wrong ones, and all are told
function M.addresses(texts)
  local addresses = {}
  for _, text in ipairs(texts) do
    local parsed, err = require("mbus.address").parse(text)
    if parsed then addresses[#addresses + 1] = parsed.text else console.complain(err) end
  end
  return #addresses == #texts and addresses or nil
end

return M
