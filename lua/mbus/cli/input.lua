---Telegrams from what a person has: hex digits as arguments, files and standard input, in hex or binary.
---
---    for bytes, where, err in input.telegrams(args.inputs) do … end
---
---Gives the bytes of one telegram, or of what should be one, and where they came from; or nil, where, and what is
---wrong with the text.
local mbus = require "mbus"
local core = require "mbus.core"

local M = {}

local CHUNK = 65536
local MAX_NOISE = 4096
local MAX_LOOK = 4096

---@class mbus.cli.input.Options
---@field lines? boolean  every line is a telegram, also an empty or incomplete one

--- Text ---------------------------------------------------------------------------------------------------------

local function is_cut(bytes)
  local _, err = core.frame(bytes)
  return err ~= nil and err.code == "truncated_frame"
end

local function is_blank(line) return line:find("^%s*$") or line:find("^%s*#") end

---Every line as it stands.
local function each_line(name, next_line, yield)
  local number = 0
  for line in next_line do
    number = number + 1
    local bytes, err = mbus.unhex(line)
    yield(bytes, ("%s:%d"):format(name, number), err)
  end
end

---Blank lines and # comments are skipped; a telegram may go on over several lines, as dumps print it.
local function joined_lines(name, next_line, yield)
  local number, waiting, since = 0, nil, nil
  local function give_up()
    if waiting then yield(waiting, since) end
    waiting = nil
  end
  local function take(bytes, where)
    if #bytes > 1 and core.frame(bytes) then give_up() end -- a good one goes on with nothing
    local whole = waiting and waiting .. bytes
    if whole and not core.frame(whole) and not is_cut(whole) then
      give_up()
      whole = nil
    end
    since = whole and since or where
    waiting = whole or bytes
    if not is_cut(waiting) then give_up() end
  end
  for line in next_line do
    number = number + 1
    local where = ("%s:%d"):format(name, number)
    if not is_blank(line) then
      local bytes, err = mbus.unhex(line)
      if bytes then
        take(bytes, where)
      else
        give_up()
        yield(nil, where, err)
      end
    end
  end
  give_up()
end

---@param rest string  what has been read of `file` already
local function lines_of(file, rest)
  return function()
    local stop = rest:find("\n", 1, true)
    if not stop then
      rest = rest .. (file:read("L") or "")
      stop = rest:find("\n", 1, true) or #rest + 1
    end
    if rest == "" then return nil end
    local line = rest:sub(1, stop - 1)
    rest = rest:sub(stop + 1)
    return line
  end
end

local function read_text(name, file, head, options, yield)
  local read = options.lines and each_line or joined_lines
  read(name, lines_of(file, head), yield)
end

--- Binary -------------------------------------------------------------------------------------------------------

---Frames out of a stream; what lies between them is told as it is.
local function read_binary(name, file, head, yield, size)
  local deframer, noise, position = core.deframer(), "", 0
  local function give_noise()
    if noise ~= "" then yield(noise, ("%s, byte %d"):format(name, position - #noise)) end
    noise = ""
  end
  local function take(events)
    for _, event in ipairs(events) do
      if event.kind == "noise" then
        noise = noise .. event.bytes
        position = position + #event.bytes
        if #noise >= MAX_NOISE then give_noise() end
      else
        give_noise()
        yield(event.bytes, ("%s, byte %d"):format(name, position))
        position = position + #event.bytes
      end
    end
  end
  local bytes = head
  while bytes do
    take(deframer:feed(bytes))
    bytes = file:read(size)
  end
  take(deframer:flush())
  give_noise()
end

--- Which of the two ---------------------------------------------------------------------------------------------

local MARK = "\xEF\xBB\xBF" -- of UTF-8, which some editors put before a text

-- What is in every frame but E5, at least at its end, and in no text: control characters other than line ends and blanks, the
-- end mark of DOS, and ESC of colours.
local NO_TEXT = "[\0-\8\14-\25\28-\31\127]"

-- Begins as a long frame, or with what begins no character of UTF-8.
local function is_no_text(head)
  return head:find "^\x68(.)%1\x68" or head:find "^[\x80-\xC1\xF5-\xFF]" or head:find "^[\xC2-\xF4][^\x80-\xBF]"
end

local function without_mark(head) return (head:gsub("^" .. MARK, "")) end

local function is_hex(text) return (core.unhex(text) or "") ~= "" end

---Reads as far as it takes to know: never behind the first frame or the first line of hex digits, since standard input may be
---a live line. A line that is neither may be noise.
---@param is_hasty boolean  who writes waits for what is said to the first line, whatever it is
---@return string head
---@return boolean is_binary
local function look(file, is_hasty)
  local head, line = "", 1
  while #head < MAX_LOOK do
    local byte = file:read(1)
    if not byte then return head, not utf8.len(head) end
    head = head .. byte
    if byte:find(NO_TEXT) or is_no_text(head) then return head, true end
    if byte == "\n" then
      if is_hasty or is_hex(without_mark(head:sub(line))) then break end
      line = #head + 1
    end
  end
  return head, false
end

local function read_stream(name, file, size, options, yield)
  local is_pipe = not file:seek()
  local head, is_binary = look(file, options.lines and is_pipe)
  if head == "" then return end
  if is_binary then return read_binary(name, file, head, yield, size) end
  read_text(name, file, without_mark(head), options, yield)
end

--- Arguments ----------------------------------------------------------------------------------------------------

local function open(name)
  local file, message, code = io.open(name, "rb")
  if not file then return nil, message, code end
  -- A folder opens, and fails at the first read.
  local _, read_message, read_code = file:read(0)
  if read_code then
    file:close()
    return nil, read_message and name .. ": " .. read_message, read_code
  end
  return file
end

-- Bytes typed one by one, as in `mbus decode 10 40 05 45 16`.
local function is_byte(argument) return argument:find("^0?[xX]?%x?%x$") ~= nil end

---Sorts the arguments: files, "-", telegrams in hex.
---@param arguments string[]
---@return table[]? sources, string? message  what is neither a file nor hex digits
function M.sort(arguments)
  local sources, run = {}, nil
  for _, argument in ipairs(arguments) do
    local byte = is_byte(argument)
    local file, message = nil, nil
    if argument ~= "-" then file, message = open(argument) end
    if argument == "-" then
      sources[#sources + 1] = { stdin = true }
    elseif file then
      sources[#sources + 1] = { name = argument, file = file }
    elseif byte and run then
      run.hex = run.hex .. " " .. argument
    elseif is_hex(argument) then
      sources[#sources + 1] = { hex = argument }
    else
      return nil, message
    end
    run = byte and not file and (run or sources[#sources]) or nil
  end
  return sources
end

local function read_source(source, number, options, yield)
  if source.hex then
    local bytes, err = mbus.unhex(source.hex)
    yield(bytes, ("telegram %d"):format(number), err)
  elseif source.stdin then
    -- Byte by byte where it is binary, so that a live line is told at once.
    read_stream("standard input", io.stdin, 1, options, yield)
  else
    read_stream(source.name, source.file, CHUNK, options, yield)
    source.file:close()
  end
end

---@param sources table[]  of `sort`
---@param options? mbus.cli.input.Options
---@return fun(): string|nil|false, string, table?  iterator of bytes (false: no hex), where, err
function M.telegrams(sources, options)
  return coroutine.wrap(function()
    local function yield(bytes, where, err) coroutine.yield(bytes or false, where, err) end
    for number, source in ipairs(sources) do read_source(source, number, options or {}, yield) end
  end)
end

return M
