---mbus poll: runs a gateway out of a config file until it is interrupted.
local console = require "mbus.cli.console"
local export = require "mbus.cli.export"

local M = {}

M.summary = "Poll meters as a config file says, for months."

local UNITS = { [""] = 1, k = 1024, m = 1024 * 1024, g = 1024 * 1024 * 1024 }

local function size(argument)
  local digits, unit = argument:lower():match("^(%d+)([kmg]?)b?$")
  local bytes = digits and math.tointeger(tonumber(digits)) * UNITS[unit]
  if not bytes or bytes < 1 then return nil, ("'%s' is no size such as 10M"):format(argument) end
  return bytes
end

local function whole(argument)
  local value = math.tointeger(tonumber(argument))
  if not value or value < 0 then return nil, ("'%s' is no whole number from 0"):format(argument) end
  return value
end

local function seconds(argument)
  local value = tonumber(argument)
  if not value or value < 0.1 or value > 1e6 then return nil, ("'%s' is no number of seconds"):format(argument) end
  return value
end

function M.define(command)
  command:argument("config", "The config: a Lua file that returns a table, or the bus export of a BACRouter."):argname("<config>")
  export.define(command)
  command:option("-f --format", "How values are printed: table (live on a terminal), jsonl or csv.")
    :choices { "table", "jsonl", "csv" }:argname("<format>")
  command:option("-o --output", "Append values to this file instead of standard output."):argname("<file>")
  command:option("--rotate", "Rename the file when it is this large, as in 10M, and begin anew."):argname("<size>"):convert(size)
  command:option("--keep", "How many renamed files stay (default 5)."):argname("<n>"):convert(whole)
  command:flag("--once", "Poll everything once and end; the exit code tells whether all values are there.")
  command:flag("--status", "Print diagnostics of connections and bindings instead of values.")
  command:option("--interval", "Seconds between two prints of the diagnostics (default 5)."):argname("<s>"):convert(seconds)
  command:flag("--tolerant", "Leave out what is wrong in the config instead of refusing it.")
  command:option("--log", "Least level of the log on standard error: error, warning (default), info or debug.")
    :choices { "error", "warning", "info", "debug" }:default("warning"):argname("<level>")
  command:epilog [[
SIGINT and SIGTERM end it with the buses in order, SIGHUP loads the config again and opens the output
file anew, SIGUSR1 prints the diagnostics on standard error.

Examples:
  mbus poll house.lua
  mbus poll house.lua --format jsonl --output values.jsonl --rotate 10M
  mbus poll house.lua --once --status
  mbus poll RS485-1_mbus.json --port RS485-1=/dev/ttyUSB0]]
end

-- ------------------------------------------------------------------ where values go

local LEVELS = { error = 1, warning = 2, info = 3, debug = 4 }

local function to_stdout(line)
  console.write(line)
  console.flush()
end

---@return fun(line: string)? put
---@return table? file
local function destination(args, header)
  if not args.output then
    if header then to_stdout(header) end
    return to_stdout
  end
  local file, message = require("mbus.gateway.output").file(args.output,
    { limit = args.rotate, keep = args.keep, header = header })
  if not file then
    console.complain(message)
    return nil
  end
  local failed
  return function(line)
    local ok, reason = file:write(line)
    if not ok and reason ~= failed then console.complain(reason) end
    failed = not ok and reason or nil
  end, file
end

-- A screen that is painted anew, a few times a second at most.
local function screen(paint)
  local runtime = require "mbus.runtime"
  local waiting
  local uv = runtime.luv()
  local terminal = uv.new_tty(1, false)
  local function show()
    waiting = nil
    local columns, rows = terminal:get_winsize()
    columns, rows = math.max(columns or 80, 40), math.max(rows or 24, 5)
    local lines = paint(columns)
    local hidden = #lines - (rows - 1)
    if hidden > 0 then
      for _ = 0, hidden do table.remove(lines) end
      lines[#lines + 1] = ("... %d more rows: a taller terminal or --format csv shows them"):format(hidden + 1)
    end
    console.write("\27[H" .. table.concat(lines, "\27[K\n") .. "\27[K\n\27[J")
    console.flush()
  end
  console.write("\27[2J")
  show()
  return {
    touch = function() waiting = waiting or runtime.after(0.2, show) end,
    close = function()
      if waiting then waiting() end
      runtime.close(terminal)
    end,
  }
end

local function tell_values(gateway, args)
  local output = require "mbus.gateway.output"
  local format = args.format or "table"
  if format == "table" and not args.output and console.is_terminal(1) and not args.once then
    local view = screen(function(width) return output.values(gateway, width) end)
    -- The last values stay: that everything is shut down is no news to who did it.
    gateway:on("value", function() if not gateway.is_stopping then view.touch() end end)
    gateway:on("stop", view.close)
    return true
  end
  local render = format == "table" and output.line or output[format]
  local put, file = destination(args, format == "csv" and output.csv_header() or nil)
  if not put then return false end
  gateway:on("value", function(_, _, _, _, news) put(render(news)) end)
  if file then
    gateway:on("reload", function() file:reopen() end)
    gateway:on("stop", function() file:close() end)
  end
  return true
end

-- ------------------------------------------------------------------ diagnostics

local function status_text(gateway, args, width)
  local output = require "mbus.gateway.output"
  local status = gateway:status()
  if args.format == "jsonl" then return output.status_json(status) end
  return table.concat(output.status(status, width or 200), "\n") .. "\n"
end

local function tell_status(gateway, args)
  if args.once then return end -- once, at the end
  local runtime = require "mbus.runtime"
  local output = require "mbus.gateway.output"
  local view
  if args.format ~= "jsonl" and console.is_terminal(1) then
    view = screen(function(width) return output.status(gateway:status(), width) end)
    gateway:on("stop", view.close)
  end
  local cancel
  local function again()
    if view then view.touch() else to_stdout(status_text(gateway, args)) end
    cancel = runtime.after(args.interval or 5, again)
  end
  cancel = runtime.after(args.interval or 5, again)
  gateway:on("stop", function() cancel() end)
end

local function on_usr1(gateway)
  local runtime = require "mbus.runtime"
  local handle = runtime.luv().new_signal()
  local ok = pcall(handle.start, handle, "sigusr1", function() io.stderr:write(status_text(gateway, {})) end)
  if ok then gateway:on("stop", function() runtime.close(handle) end) else runtime.close(handle) end
end

-- ------------------------------------------------------------------ running

local function tell_log(gateway, args)
  gateway:on("log", function(connection, level, text)
    if LEVELS[level] > LEVELS[args.log] then return end
    io.stderr:write(("mbus: %s%s: %s\n"):format(connection and connection.name .. ": " or "", level, text))
  end)
  if LEVELS[args.log] <= 3 then return end
  for _, connection in ipairs(gateway.connections) do connection.log:set_level(args.log) end
end

-- Ends the gateway when every binding has told something. Returns a function that gives the exit code, and whether there is
-- anything to poll.
local function end_after_once(gateway, at_end)
  local runtime = require "mbus.runtime"
  local left, count, bad = {}, 0, 0
  for _, connection in ipairs(gateway.connections) do
    for _, binding in ipairs(connection.bindings) do
      if binding:is_read() and not connection.stopped then left[binding], count = true, count + 1 end
    end
  end
  gateway:on("value", function(binding, _, quality)
    if not left[binding] then return end
    left[binding], count = nil, count - 1
    if quality == "bad" then bad = bad + 1 end
    if count == 0 then
      gateway.listeners.value = nil -- nothing of the end
      at_end()
      runtime.spawn(function() gateway:stop() end)
    end
  end)
  if count == 0 then console.complain("the config has no binding to poll") end
  return function() return count == 0 and bad == 0 and console.OK or console.INCOMPLETE end, count > 0
end

local function prepare(args)
  local gateway, err = require("mbus.gateway").new(args.config, { tolerant = args.tolerant, ports = export.ports(args) })
  if not gateway then
    export.complain(err)
    return nil
  end
  tell_log(gateway, args)
  if args.status then
    tell_status(gateway, args)
  elseif not tell_values(gateway, args) then
    return nil
  end
  on_usr1(gateway)
  return gateway
end

function M.run(args)
  local gateway = prepare(args)
  if not gateway then return console.USAGE end
  if not args.once then
    gateway:run()
    return console.OK
  end
  local status
  local code, has_work = end_after_once(gateway, function() status = args.status and status_text(gateway, args) end)
  if not has_work then return console.INCOMPLETE end
  gateway:run()
  if status then to_stdout(status) end
  return code()
end

return M
