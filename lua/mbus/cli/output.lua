---How results leave a command: one writer a format, all with the same five functions.
---
---    local out = output.new(args.format)
---    out.telegram(telegram)   out.failure(err, frame, bytes)   out.readout(readout, err)   out.unread(address, err)
---    out.finish()
local console = require "mbus.cli.console"

local M = {}

M.formats = { "table", "json", "jsonl", "csv", "xml", "annotated" }

local function table_writer()
  local format = require "mbus.format.table"
  local style = console.style()
  local separator = ""
  local function put(text)
    console.write(separator .. text)
    separator = "\n"
  end
  return {
    telegram = function(telegram) put(format.telegram(telegram, style)) end,
    readout = function(readout, err) put(format.readout(readout, style, err)) end,
    -- What has no table is told on standard error by the command.
    failure = function() end,
    unread = function() end,
    finish = console.flush,
  }
end

---@param put fun(text: string)  takes one JSON document
local function json_functions(put, options)
  local format = require "mbus.format.json"
  return {
    telegram = function(telegram) put(format.telegram(telegram, options)) end,
    failure = function(err, frame) put(format.failure(err, frame, options)) end,
    readout = function(readout, err) put(format.readout(readout, options, err)) end,
    unread = function(address, err) put(format.unread(address, err, options)) end,
    finish = console.flush,
  }
end

local function jsonl_writer()
  return json_functions(function(text) console.write(text .. "\n") end)
end

---One document: an object for one result, an array for several. So the first one waits for the second.
local function json_writer()
  local count, waiting = 0, nil
  local writer = json_functions(function(text)
    count = count + 1
    if count == 1 then
      waiting = text
    else
      console.write(count == 2 and "[" .. waiting .. ",\n" .. text or ",\n" .. text)
    end
  end, { indent = true })
  function writer.finish()
    console.write(count == 0 and "[]\n" or count == 1 and waiting .. "\n" or "]\n")
    console.flush()
  end
  return writer
end

---Formats whose module puts any number of results together by itself.
local function stream_writer(name, options)
  return function()
    local writer = require("mbus.format." .. name).stream(console.write, options())
    local finish = writer.finish
    function writer.finish()
      finish()
      console.flush()
    end
    return writer
  end
end

local function none() end

local WRITERS = {
  table = table_writer, json = json_writer, jsonl = jsonl_writer,
  csv = stream_writer("csv", none), xml = stream_writer("xml", none), annotated = stream_writer("annotated", console.style),
}

---@param format string  one of `M.formats`
function M.new(format) return WRITERS[format]() end

---Adds `--format` to a command.
function M.define(command)
  command:option("-f --format", "How results are printed: table, json (one document), jsonl (one object a line), csv (one "
    .. "row a record), xml (as libmbus) or annotated (every byte explained).")
    :choices(M.formats):default("table"):argname("<format>")
end

return M
