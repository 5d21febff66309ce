---mbus poll: runs a gateway out of a config file until it is interrupted.
local console = require "mbus.cli.console"
local export = require "mbus.cli.export"

local M = {}

M.summary = "Poll meters as a config file says, for months."

local UNITS = { [""] = 1, k = 1024, m = 1024 * 1024, g = 1024 * 1024 * 1024 }

local LARGEST = 2 ^ 50

local function size(argument)
  local digits, unit = argument:lower():match("^(%d+)([kmg]?)b?$")
  local bytes = digits and tonumber(digits) * UNITS[unit]
  local good = bytes and bytes >= 1 and bytes <= LARGEST and #digits <= 15
  if not good then return nil, ("'%s' is no size such as 10M"):format(argument) end
  return bytes
end

local function whole(argument)
  local value = math.tointeger(tonumber(argument))
  if not value or value < 0 or value > 1000 then return nil, ("'%s' is no whole number from 0 to 1000"):format(argument) end
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
  command:option("--log", "Least level of the log on standard error: error, warning, info or debug.")
    :choices { "error", "warning", "info", "debug" }:default("warning"):argname("<level>")
  command:epilog [[
SIGINT and SIGTERM end it with the buses in order, SIGHUP loads the config
again and opens the output file anew, SIGUSR1 prints the diagnostics on
standard error.

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
---@return fun(): boolean lost  a value could not be written
local function destination(args, header)
  local lost = false
  local function has_lost() return lost end
  if not args.output then
    if header then to_stdout(header) end
    return to_stdout, nil, has_lost
  end
  local file, message = require("mbus.gateway.output").file(args.output,
    { limit = args.rotate, keep = args.keep, header = header })
  if not file then
    console.complain(message)
    return nil, nil, has_lost
  end
  local told
  return function(line)
    local ok, reason = file:write(line)
    if reason and reason ~= told then console.complain(reason) end
    told, lost = reason, lost or not ok
  end, file, has_lost
end

local NOTES = 3 -- lines of the log below a screen

-- What fits between the top and the notes.
local function page(lines, notes, columns, rows)
  local cut = require("mbus.gateway.output").cut
  local count = math.min(#notes, NOTES, (rows - 1) // 4)
  local room = rows - 1 - (count > 0 and count + 1 or 0)
  local hidden = #lines - room
  if hidden > 0 then
    for _ = 0, hidden do table.remove(lines) end
    lines[#lines + 1] = cut(("... %d more rows: a taller terminal or --format csv shows them"):format(hidden + 1), columns)
  end
  if count > 0 then lines[#lines + 1] = "" end
  for i = #notes - count + 1, #notes do lines[#lines + 1] = cut(notes[i], columns) end
  return lines
end

-- A screen that is painted anew, a few times a second at most.
---@param paint fun(columns: integer): string[]
---@param notes string[]  the newest lines of the log; `notes.screen` is this one as long as it is there
local function screen(paint, notes)
  local runtime = require "mbus.runtime"
  local waiting
  local uv = runtime.luv()
  local terminal, resized = uv.new_tty(1, false), uv.new_signal()
  local function show()
    waiting = nil
    local columns, rows = terminal:get_winsize()
    columns, rows = math.max(columns or 80, 40), math.max(rows or 24, 5)
    console.write("\27[H" .. table.concat(page(paint(columns), notes, columns, rows), "\27[K\n") .. "\27[K\n\27[J")
    console.flush()
  end
  local view = { touch = function() waiting = waiting or runtime.after(0.2, show) end }
  function view.close()
    if waiting then waiting() end
    notes.screen = nil
    runtime.close(resized)
    runtime.close(terminal)
  end
  pcall(resized.start, resized, "sigwinch", view.touch)
  console.write("\27[2J")
  show()
  notes.screen = view
  return view
end

local NARROW, WIDE = 28, 48

local function name_width(gateway)
  local text = require "mbus.format.text"
  local width = NARROW
  for _, connection in ipairs(gateway.connections) do
    for _, binding in ipairs(connection.bindings) do width = math.max(width, text.width(binding:full_name())) end
  end
  return math.min(width, WIDE)
end

-- One line a value.
local function renderer(gateway, format)
  local output = require "mbus.gateway.output"
  if format ~= "table" then return output[format] end
  local width = name_width(gateway)
  gateway:on("reload", function() width = name_width(gateway) end)
  return function(news) return output.line(news, width) end
end

---@return (fun(): boolean)? lost  whether values could not be written; nil: where they go is not there
local function tell_values(gateway, args, notes)
  local output = require "mbus.gateway.output"
  local format = args.format or "table"
  if format == "table" and not args.output and console.is_terminal(1) and not args.once then
    local view = screen(function(width) return output.values(gateway, width) end, notes)
    -- The last values stay: that everything is shut down is no news to who did it.
    gateway:on("value", function() if not gateway.is_stopping then view.touch() end end)
    gateway:on("reload", view.touch)
    gateway:on("stop", view.close)
    return function() return false end
  end
  local put, file, lost = destination(args, format == "csv" and output.csv_header() or nil)
  if not put then return nil end
  local render = renderer(gateway, format)
  gateway:on("value", function(_, _, _, _, news) put(render(news)) end)
  if file then
    gateway:on("reload", function() file:reopen() end)
    gateway:on("stop", function() file:close() end)
  end
  return lost
end

-- ------------------------------------------------------------------ diagnostics

local function status_text(gateway, args, width)
  local output = require "mbus.gateway.output"
  local status = gateway:status()
  if args.format == "jsonl" then return output.status_json(status) end
  return table.concat(output.status(status, width or 200), "\n") .. "\n"
end

local function tell_status(gateway, args, notes)
  if args.once then return end -- once, at the end
  local runtime = require "mbus.runtime"
  local output = require "mbus.gateway.output"
  local view
  if args.format ~= "jsonl" and console.is_terminal(1) then
    view = screen(function(width) return output.status(gateway:status(), width) end, notes)
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

-- On a screen the log stands below, where it is not painted over.
local function note(notes, line)
  local printable = require("mbus.format.text").printable
  line = line:gsub("[^\n]+", printable)
  table.insert(notes, os.date("%H:%M:%S  ") .. line:gsub("\n.*", ""))
  if #notes > NOTES then table.remove(notes, 1) end
  if notes.screen then notes.screen.touch() end
  if not (notes.screen and console.is_terminal(2)) then console.complain(line) end
end

local function tell_log(gateway, args, notes)
  gateway:on("log", function(connection, level, text)
    if LEVELS[level] > LEVELS[args.log] then return end
    note(notes, ("%s%s: %s"):format(connection and connection.name .. ": " or "", level, text))
  end)
end

-- As in the export of a bus that was not enabled yet.
local function disabled_of(gateway)
  local count = 0
  for _, connection in ipairs(gateway.connections) do count = count + (connection.settings.disabled and 1 or 0) end
  return count > 0 and (" (disabled: %d of %d connections)"):format(count, #gateway.connections) or ""
end

-- Ends the gateway when every binding has told something. Returns a function that gives the exit code, and whether there is
-- anything to poll.
local function end_after_once(gateway, at_end)
  local runtime = require "mbus.runtime"
  local left, count, bad, unreached = {}, 0, 0, 0
  for _, connection in ipairs(gateway.connections) do
    for _, binding in ipairs(connection.bindings) do
      if binding:is_read() and not connection.stopped then left[binding], count = true, count + 1 end
    end
  end
  local total = count
  gateway:on("value", function(binding, _, quality, _, news)
    if not left[binding] then return end
    left[binding], count = nil, count - 1
    if quality == "bad" then bad = bad + 1 end
    if news.error == "no connection" then unreached = unreached + 1 end
    if count == 0 then
      gateway.listeners.value = nil -- nothing of the end
      at_end()
      runtime.spawn(function() gateway:stop() end)
    end
  end)
  if total == 0 then console.complain("the config has no binding to poll" .. disabled_of(gateway)) end
  return function()
    if total > 0 and unreached == total then return console.NO_BUS end
    return count == 0 and bad == 0 and console.OK or console.INCOMPLETE
  end, total > 0
end

-- What would do nothing.
local function contradiction(args)
  if args.status and args.output then return "--output is for values, not for --status" end
  if args.status and args.format == "csv" then return "--status is a table or jsonl, not csv" end
  if args.interval and not args.status then return "--interval needs --status" end
  if args.rotate and not args.output then return "--rotate needs --output" end
  if args.keep and not args.rotate then return "--keep needs --rotate" end
end

---@return mbus.Gateway? gateway
---@return (fun(): boolean)? lost
local function prepare(args)
  local wrong = contradiction(args)
  if wrong then return console.complain(wrong) end
  local gateway, err = require("mbus.gateway").new(args.config, { tolerant = args.tolerant, ports = export.ports(args),
    log_level = args.log == "debug" and "debug" or nil })
  if not gateway then return export.complain(err) end
  local notes = {}
  tell_log(gateway, args, notes)
  local lost = function() return false end
  if args.status then tell_status(gateway, args, notes) else lost = tell_values(gateway, args, notes) end
  if not lost then return nil end
  on_usr1(gateway)
  return gateway, lost
end

local REST = 0.1 -- seconds for what closes by itself

-- Whoever stopped it does not wait for what cannot be called back, such as a connection that is being made.
local function leave_when_stopped(gateway, finish)
  local uv = require("mbus.runtime").luv()
  gateway:on("stop", function()
    local timer = uv.new_timer()
    timer:start(math.floor(REST * 1000), 0, function() os.exit(finish()) end)
    timer:unref()
  end)
end

function M.run(args)
  local gateway, lost = prepare(args)
  if not gateway then return console.USAGE end
  local status
  local code, has_work = function() return console.OK end, true
  if args.once then
    code, has_work = end_after_once(gateway, function() status = args.status and status_text(gateway, args) end)
  end
  if not has_work then
    for _, problem in ipairs(gateway.config.problems) do
      console.complain(("error: %s: %s"):format(problem.path, problem.message))
    end
    return console.INCOMPLETE
  end
  local function finish()
    if status then to_stdout(status) end
    return lost() and console.INCOMPLETE or code()
  end
  leave_when_stopped(gateway, finish)
  gateway:run()
  return finish()
end

return M
