---Captures, and whatever else `mbus decode` is given: files of text or bytes, read in whatever pieces.
local capture = require "mbus.capture"
local choices = require "spec.robust.choices"
local core = require "mbus.core"
local Description = require "mbus.simulator.description"
local input = require "mbus.cli.input"
local mbus = require "mbus"
local promise = require "spec.robust.promise"
local script = require "mbus.simulator.script"

local function check_capture(text)
  local parsed = promise.result(capture.parse(text))
  if not parsed then return false end
  local lines = { capture.head(parsed) }
  for _, entry in ipairs(parsed.entries) do
    promise.that(entry.time >= 0 and type(entry.bytes) == "string", "an entry without time or bytes")
    lines[#lines + 1] = capture.line(entry.direction, entry.bytes, entry.time)
  end
  local again = promise.that(capture.parse(table.concat(lines)), "a capture as it is printed cannot be read")
  promise.that(#again.entries == #parsed.entries, "a capture as it is printed has other entries")
  for i, entry in ipairs(again.entries) do
    local before = parsed.entries[i]
    promise.that(entry.bytes == before.bytes and entry.direction == before.direction, "another entry")
    promise.that(math.abs(entry.time - before.time) <= 0.0005 + before.time * 1e-15, "at another time")
  end
  local description = script.description(parsed)
  local described, err = Description.check(description)
  promise.that(described or description.baudrate, "a bus out of a capture is refused: %s", err)
  return #parsed.entries > 0
end

-- A file that gives no more than a piece at a time.
local function file_of(text, choose)
  local at, file = 1, {}
  function file.read(_, what)
    if at > #text and what ~= 0 then return nil end
    local stop
    if what == "L" then
      stop = text:find("\n", at, true) or #text
    elseif what == "a" then
      stop = #text
    else
      stop = at + math.min(what, choose and what > 4 and 1 + choose:below(40) or what) - 1
    end
    local piece = text:sub(at, stop)
    at = stop + 1
    return piece
  end
  function file.seek() return nil end -- as of a pipe
  function file.close() end
  return file
end

local FORMATS = { "json", "csv", "xml", "table" }

local function print_all(telegram)
  for _, name in ipairs(FORMATS) do
    local format = require("mbus.format." .. name)
    local text = format.telegram and format.telegram(telegram, {}) or ""
    promise.that(type(text) == "string" and utf8.len(text), "%s prints no UTF-8", name)
  end
end

local function telegrams(text, options, choose)
  local found = {}
  for bytes, where, err in input.telegrams({ { name = "x", file = file_of(text, choose) } }, options) do
    promise.that(type(where) == "string", "a telegram from nowhere")
    if not bytes then promise.result(nil, err) end
    found[#found + 1] = bytes or tostring(err)
    if bytes and not choose then
      local telegram = promise.result(mbus.decode(bytes, { formats = {} }))
      if telegram then print_all(telegram) end
      promise.that(type(require("mbus.format.annotated").bytes(bytes, {})) == "string", "no explanation")
    end
  end
  return found
end

local function check_input(text, options, choose)
  local whole = telegrams(text, options)
  local joined, cut = table.concat(whole, "|"), table.concat(telegrams(text, options, choose), "|")
  -- Noise of a stream is told as it comes.
  promise.that(cut:gsub("|", "") == joined:gsub("|", ""), "other telegrams when the file is read in pieces")
  if options.lines and not text:find("^[\x68\x80-\xFF]") and not text:find "[\0-\8\14-\31\127]" then
    local _, lines = text:gsub("\n", "")
    if text ~= "" and text:sub(-1) ~= "\n" then lines = lines + 1 end
    promise.that(#whole == lines, "%d answers for %d lines", #whole, lines)
  end
  return #whole > 0
end

local function run(bytes)
  local choose = choices.new(bytes)
  local way = choose:below(4)
  if way == 0 then return check_capture(choose:rest()) end
  local pieces = choices.new(choose:bytes(8))
  return check_input(choose:rest(), { lines = way == 1 }, pieces)
end

local HEAT = "68 5E 5E 68 08 00 72 47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01 0C 12 91 72 64 02 0C 2A 00 00 00 00 "
  .. "0B 3A 00 00 00 0A 5A 22 05 0A 5E 23 04 0A 62 99 00 04 6D 21 16 0A 39 4C 05 30 78 11 00 44 6D 00 00 1E 14 "
  .. "44 ED 7E 00 00 3F 1C 8C 01 05 20 30 69 01 84 01 6D 00 00 FF 2C 0B 26 02 03 16 F5 16"
local SHORT = "68 14 14 68 08 05 72 78 56 34 12 24 40 01 07 55 00 00 00 0B 61 18 00 F0 C8 16"
local LINES = "# mbus capture 1\n# baudrate 2400\n# start 2024-09-10T18:21:07\n     0.023 SEND (005) 10 7B 05 80 16\n     0.072 RECV (001) E5\n"
  .. "     0.120 NOISE (001) 00\n     0.560 - (002) 12 34\n     1.000 RECV (026) " .. SHORT .. "\n"

local seeds = {
  capture = "\0" .. LINES, ["capture-counts"] = "\0001 SEND 10 40 05 45 16\n2.5 recv (1) E5\n# a remark\n\n3 ECHO (005) 10 40 05 45 16",
  -- Found: a number of bytes that no integer holds.
  ["found-count"] = "\0000.1 SEND (99999999999999999999) E5\n",
  -- A real32 in minutes, which the table could not show.
  ["found-duration"] = "\2\3\7\1\5\9\2\4\6" .. core.long(0x08, 1, 0x72, core.unhex "78 56 34 12 24 40 01 07 55 00 00 00 05 21 0A 4C 37 04"),
  ["found-baudrate"] = "\0# baudrate 1\n1 RECV " .. SHORT .. "\n",
}
for way = 1, 2 do
  local head = string.char(way) .. "\3\7\1\5\9\2\4\6"
  seeds["text-" .. way] = head .. SHORT .. "\n# remark\n\nE5\nxyz\n10 40 0A 4A 16\n"
  seeds["split-" .. way] = head .. HEAT:sub(1, 120) .. "\n" .. HEAT:sub(121) .. "\nE5"
  seeds["binary-" .. way] = head .. core.unhex(SHORT .. " 00 12 E5 68 03" .. HEAT)
  seeds["mark-" .. way] = head .. "\xEF\xBB\xBF" .. SHORT .. "\r\n"
end

return { seeds = seeds, run = run, least = 0.5 }
