---mbus ports: the serial ports of this machine, and the names under which a bus can be opened.
local console = require "mbus.cli.console"

local M = {}

M.summary = "List serial ports."

function M.define(command)
  command:option("-f --format", "How the list is printed: table, json (one document) or jsonl (one object a line).")
    :choices({ "table", "json", "jsonl" }):default("table"):argname("<format>")
  command:epilog [[
The /dev name of a USB adapter may change at every boot. Its usb:// name and its stable name do not: both name a bus.

Examples:
  mbus ports
  mbus ports --format json
  mbus read "usb://1a86:55d5?serial=BC045EABCD&n=2" 5]]
end

local KEYS = { "name", "kind", "description", "vid", "pid", "manufacturer", "product", "serial", "location", "stable", "url" }

local function hex4(number) return number and ("%04x"):format(number) end

local function object(port)
  local result = {}
  for _, key in ipairs(KEYS) do result[key] = port[key] end
  result.vid, result.pid = hex4(port.vid), hex4(port.pid)
  return result
end

local function encode(port, indent)
  local quote = require("dkjson").quotestring
  local values, parts = object(port), {}
  for _, key in ipairs(KEYS) do
    if values[key] then parts[#parts + 1] = ('"%s": %s'):format(key, quote(values[key])) end
  end
  if not indent then return "{" .. table.concat(parts, ", ") .. "}" end
  return "  {\n    " .. table.concat(parts, ",\n    ") .. "\n  }"
end

local writers = {}

function writers.json(ports)
  local parts = {}
  for i, port in ipairs(ports) do parts[i] = encode(port, true) end
  console.write(#parts == 0 and "[]\n" or "[\n" .. table.concat(parts, ",\n") .. "\n]\n")
end

function writers.jsonl(ports)
  for _, port in ipairs(ports) do console.write(encode(port) .. "\n") end
end

function writers.table(ports)
  for _, port in ipairs(ports) do
    local what = {}
    for _, key in ipairs { "manufacturer", "product" } do what[#what + 1] = port[key] end
    if #what == 0 then what[1] = port.description end
    local lines = { port.name .. (what[1] and "  " .. table.concat(what, " ") or "") }
    if port.vid then
      lines[#lines + 1] = ("%04x:%04x%s"):format(port.vid, port.pid,
        port.serial and "  serial number " .. port.serial or "")
    end
    lines[#lines + 1] = port.url
    lines[#lines + 1] = port.stable
    console.write(table.concat(lines, "\n    ") .. "\n")
  end
end

function M.run(args)
  local ports, err = require("mbus.transport.usb").list()
  if not ports then
    console.complain(err)
    return console.INCOMPLETE
  end
  writers[args.format](ports)
  console.flush()
  if #ports > 0 then return console.OK end
  console.complain "no serial port is there"
  return console.INCOMPLETE
end

return M
