---Telegrams with every byte explained: where it is, what it is, and how it makes the value what it is.
---
---    local annotated = require "mbus.format.annotated"
---    io.write(annotated.telegram(mbus.decode(bytes), { width = 80 }))
---    io.write(annotated.bytes(anything))                     -- also what is no good frame
---
---      19  0C                 DIF       8-digit BCD, instantaneous
---      20  05                 VIF       energy in 10^2 Wh
---      21  31 84 74 01        data      BCD 01748431 × 10^2 = 174843100 Wh
---
---First the offset from the start of the frame, then bytes in hex, up to two blanks. All bytes are there, in order.
local anatomy = require "mbus.format.anatomy"
local core = require "mbus.core"
local Error = require "mbus.error"
local text = require "mbus.format.text"

local M = {}

---@class mbus.format.annotated.Options
---@field width? integer   columns to fit into, default 80
---@field colour? boolean  default false
---@field title? string    put above, with the number of bytes

--- Page: bytes are taken from its start to its end ---------------------------------------------------------------

local DEFAULT_WIDTH, LEAST_WIDTH = 80, 60
local ROW, ROLE_WIDTH, DUMP_ROW = 6, 8, 16
local MARGIN = 4 + 2 + (3 * ROW - 1) + 2 + ROLE_WIDTH + 2 -- columns before a meaning

local COLOUR = {
  frame = "\27[36m", header = "\27[94m", dib = "\27[33m", vib = "\27[32m", data = "\27[35m", filler = "\27[2m",
  bad = "\27[31m", heading = "\27[1m",
}

local Page = {}
Page.__index = Page

local function new_page(bytes, options)
  return setmetatable({
    bytes = bytes, at = 0, stop = #bytes, lines = {}, colour = options and options.colour,
    width = math.max(options and options.width or DEFAULT_WIDTH, LEAST_WIDTH),
  }, Page)
end

function Page:line(line) self.lines[#self.lines + 1] = (line:gsub("%s+$", "")) end

function Page:paint(kind, part) return self.colour and part ~= "" and COLOUR[kind] .. part .. "\27[0m" or part end

function Page:heading(heading)
  if #self.lines > 0 then self:line "" end
  for _, part in ipairs(text.wrap(heading, self.width)) do self:line(self:paint("heading", part)) end
end

-- At most `size` bytes, with their offset in front.
function Page:take(size)
  local first = self.at
  local bytes = self.bytes:sub(first + 1, math.min(first + size, self.stop))
  self.at = first + #bytes
  return bytes, ("%4d  "):format(first)
end

---The next bytes with role and meaning; a remark on the bytes before if `size` is 0.
function Page:put(size, role, kind, meaning)
  local left = math.min(size, self.stop - self.at)
  if left <= 0 and size > 0 then return end
  local notes = text.wrap(meaning, self.width - MARGIN)
  for row = 1, math.max(#notes, math.ceil(left / ROW)) do
    local bytes, offset = self:take(math.min(ROW, left))
    left = left - #bytes
    local shown = text.pad(core.hex(bytes), 3 * ROW - 1) .. "  " .. text.pad(row == 1 and role or "", ROLE_WIDTH)
    if #bytes == 0 then offset = (" "):rep(#offset) end
    self:line(offset .. self:paint(kind, shown) .. "  " .. (notes[row] or ""))
  end
end

---The next bytes as hex and characters.
function Page:dump(size, kind)
  local stop = math.min(self.at + size, self.stop)
  while self.at < stop do
    local bytes, offset = self:take(math.min(DUMP_ROW, stop - self.at))
    local characters = bytes:gsub("[^\x20-\x7E]", ".")
    self:line(offset .. self:paint(kind, text.pad(core.hex(bytes), 3 * DUMP_ROW - 1)) .. "  " .. characters)
  end
end

function Page:peek() return self.at < self.stop and self.bytes:byte(self.at + 1) or nil end

function Page:text() return table.concat(self.lines, "\n") .. "\n" end

--- Words of the link layer (EN 13757-2) -------------------------------------------------------------------------

local function words(name) return (name:gsub("_", " ")) end

local REQUEST = {
  [0x0] = "SND_NKE, resets the link", [0x3] = "SND_UD, sends data", [0xA] = "REQ_UD1, asks for alarms",
  [0xB] = "REQ_UD2, asks for data",
}
local ANSWER = { [0x0] = "ACK", [0x8] = "RSP_UD, the meter's answer" }

local function control_words(c)
  if c & 0x40 ~= 0 then
    local name = REQUEST[c & 0x0F] or "unknown request"
    return c & 0x10 ~= 0 and ("%s, frame count bit %d"):format(name, c >> 5 & 1) or name
  end
  local name = ANSWER[c & 0x0F] or "unknown answer"
  if c & 0x20 ~= 0 then name = name .. ", has urgent data" end
  return c & 0x10 ~= 0 and name .. ", can take no more" or name
end

local ADDRESS = {
  [0] = "address 0, not set up yet", [253] = "address 253, the meter selected before",
  [254] = "address 254, any meter", [255] = "address 255, all meters, none answers",
}

local function address_words(a)
  return ADDRESS[a] or ("address %d%s"):format(a, a > 250 and ", reserved" or "")
end

local function sum(bytes, first, last)
  local total = 0
  for i = first + 1, last + 1 do total = total + bytes:byte(i) end
  return total & 0xFF
end

--- Words of the application layer (EN 13757-7) ------------------------------------------------------------------

local CI = {
  [0x50] = "application reset", [0x51] = "data for the meter", [0x52] = "selects meters", [0x53] = "application reset",
  [0x54] = "synchronize", [0x55] = "data for the meter, high byte first", [0x56] = "selects meters, high byte first",
  [0x5A] = "command", [0x5B] = "command", [0x5C] = "synchronize", [0x6C] = "sets the clock", [0x6D] = "corrects the clock",
  [0x69] = "format frame", [0x6A] = "format frame", [0x6B] = "format frame",
  [0x6E] = "application error", [0x6F] = "application error", [0x70] = "application error",
  [0x71] = "alarm", [0x74] = "alarm", [0x75] = "alarm", [0x72] = "variable data", [0x73] = "fixed data",
  [0x76] = "variable data, high byte first", [0x77] = "fixed data, high byte first", [0x78] = "variable data",
  [0x7A] = "variable data", [0x79] = "compact frame", [0x7B] = "compact frame",
  [0x80] = "header only", [0x84] = "header only", [0x85] = "header only", [0x8A] = "header only", [0x8B] = "header only",
}
local HEADER = { long = ", long header", short = ", short header", none = ", no header", fixed = "" }

local function ci_words(telegram)
  if telegram.set_baud_rate then return ("sets %d baud"):format(telegram.set_baud_rate) end
  local err = telegram.error
  if err and err.code == "unsupported_ci" then return "not known here" end
  if err and err.code == "header_too_short" then return CI[telegram.ci] or "no data records" end
  return (CI[telegram.ci] or "no data records") .. HEADER[telegram.header or "none"]
end

local function configuration_words(telegram)
  local mode = telegram.security_mode
  if telegram.signature == 0 then return "not encrypted" end
  local is_encrypted = telegram.error and telegram.error.kind == "encrypted"
  return ("%04Xh, security mode %d%s"):format(telegram.signature, mode, is_encrypted and "" or ", not encrypted")
end

--- Headers ------------------------------------------------------------------------------------------------------

local function put_short_header(page, telegram)
  page:put(1, "access", "header", ("access number %d"):format(telegram.access_no))
  page:put(1, "status", "header", text.status(telegram.status))
  page:put(2, "config", "header", configuration_words(telegram))
end

local function medium_words(telegram) return ("medium %02Xh: %s"):format(telegram.medium, words(telegram.medium_name)) end

local PUT_HEADER = {
  none = function() end,
  short = put_short_header,
  long = function(page, telegram)
    page:put(4, "ident", "header", "identification number " .. telegram.id)
    page:put(2, "maker", "header", ("%04Xh: %s"):format(telegram.manufacturer_code, text.printable(telegram.manufacturer)))
    page:put(1, "version", "header", ("version %d"):format(telegram.version))
    page:put(1, "medium", "header", medium_words(telegram))
    put_short_header(page, telegram)
  end,
  fixed = function(page, telegram)
    page:put(4, "ident", "header", "identification number " .. telegram.id)
    page:put(1, "access", "header", ("access number %d"):format(telegram.access_no))
    page:put(1, "status", "header", text.status(telegram.status, true))
    for counter = 1, 2 do
      local code = page:peek() or 0
      page:put(1, "unit", "header", ("counter %d: unit code %02Xh; %s"):format(counter, code & 0x3F,
        counter == 1 and "low bits of " .. medium_words(telegram) or "high bits of it"))
    end
  end,
}

--- What is no record --------------------------------------------------------------------------------------------

local function put_selection(page, selection)
  page:put(4, "ident", "data", selection.id .. ", F is any digit")
  page:put(2, "maker", "data", ("%04Xh%s"):format(selection.manufacturer_code,
    selection.manufacturer_code == 0xFFFF and ", any" or ""))
  page:put(1, "version", "data", ("%02Xh%s"):format(selection.version, selection.version == 0xFF and ", any" or ""))
  page:put(1, "medium", "data", ("%02Xh%s"):format(selection.medium, selection.medium == 0xFF and ", any" or ""))
end

-- What stands before the records, or instead of them.
local function put_preamble(page, telegram)
  local is_damaged = telegram.error ~= nil
  if telegram.selection then
    put_selection(page, telegram.selection)
  elseif telegram.application_error then
    page:put(1, "error", "data", words(telegram.application_error.name))
  elseif telegram.alarm_status then
    page:put(1, "alarm", "data", ("%02Xh: bits that the manufacturer defines"):format(telegram.alarm_status))
  elseif (telegram.application_reset or "") ~= "" then
    page:put(page.stop - page.at, "subcode", "data", "which application")
  elseif telegram.format_signature and telegram.error.code ~= "fixed_length" then
    page:put(2, "format", "data", ("signature of the record headers, %04Xh"):format(telegram.format_signature))
    page:put(2, "CRC", "data", "of the full frame that this one stands for")
  elseif telegram.ci and telegram.ci >= 0x69 and telegram.ci <= 0x6B and not is_damaged then
    page:put(1, "length", "data", "bytes of signature and record headers")
    page:put(2, "format", "data", "signature of the record headers")
  end
end

local function put_fillers(page, stop)
  local count = 0
  while page.at + count < math.min(stop, page.stop) and page.bytes:byte(page.at + count + 1) == 0x2F do count = count + 1 end
  if count > 0 then
    page:heading "between records"
    page:put(count, "filler", "filler", "stands for nothing")
  end
end

--- Records ------------------------------------------------------------------------------------------------------

local function put_parts(page, record, telegram)
  for _, part in ipairs(anatomy.parts(record, telegram)) do page:put(part.size, part.role, part.kind, part.meaning) end
end

local function put_record(page, record, telegram)
  put_fillers(page, record.offset)
  page:heading(("record %d: %s"):format(record.position, anatomy.summary(record)))
  put_parts(page, record, telegram)
end

local function put_manufacturer_data(page, telegram)
  put_fillers(page, page.stop)
  local more = telegram.more_records_follow and "; more records follow in the next telegram" or ""
  page:heading("manufacturer's data")
  page:put(1, "DIF", "dib", "the rest is the manufacturer's" .. more)
  page:dump(page.stop - page.at, "data")
end

-- What the codes of an unfinished record promise, told by the decoder about the same bytes with zeros behind them.
local function put_unfinished(page, telegram)
  local start = page.bytes:sub(page.at + 1, page.stop)
  local whole = core.telegram(core.long(telegram.c, 0, 0x78, start .. ("\0"):rep(math.min(200, 252 - #start))))
  local record = whole and whole:record(0)
  if not record then return end
  for _, part in ipairs(anatomy.parts(record, telegram, true)) do
    local left = page.stop - page.at
    if part.size > left then
      return page:put(left, part.role, "bad", left == 0 and "missing" or ("%d of %d bytes"):format(left, part.size))
    end
    if part.kind == "data" and part.role ~= "LVAR" then return end
    page:put(part.size, part.role, part.kind, part.meaning)
  end
end

local NOT_READ = { encrypted = true, unsupported = true } -- kinds of errors that are no damage
local UNFINISHED = { premature_end_of_data = true, premature_end_of_vif = true, premature_end_of_dif = true }

local function put_rest(page, telegram)
  local err = telegram.error
  if err then
    local begun = UNFINISHED[err.code]
    if begun then put_fillers(page, page.stop) end
    page:heading((NOT_READ[err.kind] and "not read: " or "damaged: ") .. tostring(Error.wrap(err)))
    if begun then put_unfinished(page, telegram) end
    page:dump(math.max(err.offset - page.at, 0), "bad")
    page:dump(page.stop - page.at, "bad")
  elseif page:peek() == 0x7F then
    page:heading "global readout request"
    page:put(1, "DIF", "dib", "the meter shall send all that it has")
  end
  put_fillers(page, page.stop)
  if page.at < page.stop then
    page:heading("data of this CI, not records")
    page:dump(page.stop - page.at, "data")
  end
end

local function put_body(page, telegram)
  put_preamble(page, telegram)
  for _, record in telegram:records() do put_record(page, record, telegram) end
  if telegram.manufacturer_data then put_manufacturer_data(page, telegram) end
  put_rest(page, telegram)
end

--- Frames -------------------------------------------------------------------------------------------------------

local function put_end(page, first, last, notes)
  if page.at > last + 2 or page.at >= #page.bytes then return end
  page:heading "end of the frame"
  local right = sum(page.bytes, first, last)
  page:put(1, "checksum", notes.checksum and "bad" or "frame",
    notes.checksum or ("%02Xh, the sum of bytes %d to %d"):format(right, first, last))
  page:put(1, "stop", notes.stop and "bad" or "frame", notes.stop or "end of the frame")
end

local PUT_FRAME = {
  ack = function(page) page:put(1, "ACK", "frame", "acknowledged") end,
  short = function(page, telegram, notes)
    page:put(1, "start", "frame", "short frame")
    page:put(1, "C", "frame", control_words(telegram.c))
    page:put(1, "A", "frame", address_words(telegram.a))
    put_end(page, 1, 2, notes)
  end,
  long = function(page, telegram, notes)
    local last = #telegram.bytes - 3
    page:put(1, "start", "frame", telegram.type == "control" and "control frame" or "long frame")
    page:put(2, "length", notes.length and "bad" or "frame",
      notes.length or ("%d bytes from C up to the checksum, twice"):format(last - 3))
    page:put(1, "start", "frame", "again")
    page:put(1, "C", "frame", control_words(telegram.c))
    page:put(1, "A", "frame", address_words(telegram.a))
    page:put(1, "CI", "frame", ci_words(telegram))
    PUT_HEADER[telegram.header or "none"](page, telegram)
    page.stop = math.min(last + 1, #page.bytes)
    put_body(page, telegram)
    page.stop = #page.bytes
    put_end(page, 4, last, notes)
  end,
}
PUT_FRAME.control = PUT_FRAME.long

--- Frames that are not good -------------------------------------------------------------------------------------

local function long_frame(bytes, size)
  return core.long(bytes:byte(5), bytes:byte(6), bytes:byte(7), bytes:sub(8, size - 2))
end

-- The same frame with the end that it should have; more bytes may follow it.
local function with_good_end(bytes)
  if bytes:byte(1) == 0x10 then return core.short(bytes:byte(2), bytes:byte(3)) end
  return long_frame(bytes, bytes:byte(2) + 6)
end

-- Each gives a good frame that begins like `bytes`, and remarks on where they differ.
local MEND = {
  bad_checksum = function(bytes)
    local mended = with_good_end(bytes)
    return mended, { checksum = ("wrong: it should be %02Xh"):format(mended:byte(-2)) }
  end,
  bad_stop = function(bytes)
    return with_good_end(bytes), { stop = "wrong: it should be 16h" }
  end,
  truncated_frame = function(bytes)
    if bytes:byte(1) ~= 0x68 or #bytes < 7 then return nil end
    local wanted = bytes:byte(2)
    local there = math.min(#bytes - 4, wanted)
    local note = there < wanted and ("%d bytes from C up to the checksum, %d are there"):format(wanted, there) or nil
    return long_frame(bytes, there + 6), { length = note }
  end,
  trailing_bytes = function(bytes, err) return bytes:sub(1, err.offset), {} end,
}

---@param bytes string  of the frame; the page may have more
local function put_bad_frame(page, bytes, err)
  local mend = MEND[err.code]
  local mended, notes
  if mend then mended, notes = mend(bytes, err) end
  local telegram, worse
  if mended then telegram, worse = core.telegram(mended) end
  if telegram then
    -- An end that the frame does not have shows as the place where the bytes of the page run out.
    PUT_FRAME[telegram.type](page, telegram, notes)
  elseif worse then
    put_bad_frame(page, mended, worse)
  end
  page:heading("damaged: " .. tostring(Error.wrap(err)))
  if page.at < err.offset then page:dump(err.offset - page.at, "bad") end
  page:dump(#page.bytes - page.at, "bad")
end

--- What others call ---------------------------------------------------------------------------------------------

local function titled(page, options)
  local size = #page.bytes
  if options and options.title then page:heading(("%s, %d %s"):format(options.title, size, size == 1 and "byte" or "bytes")) end
  return page
end

---@param telegram mbus.Telegram
---@param options? mbus.format.annotated.Options
---@return string  several lines, each with its line end
function M.telegram(telegram, options)
  local page = titled(new_page(telegram.bytes, options), options)
  PUT_FRAME[telegram.type](page, telegram, {})
  return page:text()
end

---Any bytes: what is good of a frame, then where it breaks and the rest.
---@param bytes string
---@param options? mbus.format.annotated.Options
---@return string text  several lines, each with its line end
---@return mbus.Error? err  what is wrong with the frame or with its tail
function M.bytes(bytes, options)
  local telegram, err = core.telegram(bytes)
  if telegram then return M.telegram(telegram, options), telegram.error and Error.wrap(telegram.error) end
  local page = titled(new_page(bytes, options), options)
  put_bad_frame(page, bytes, err)
  return page:text(), Error.wrap(err)
end

---@param whole mbus.Readout
---@param options? mbus.format.annotated.Options
---@return string  several lines, each with its line end
function M.readout(whole, options)
  local texts, count = {}, #whole.telegrams
  for i, telegram in ipairs(whole.telegrams) do
    local title = ("address %s, telegram %d of %d"):format(whole.address, i, count)
    texts[i] = M.telegram(telegram, { width = options and options.width, colour = options and options.colour, title = title })
  end
  return table.concat(texts, "\n")
end

---Writes any number of telegrams and readouts, with an empty line between them.
---@param put fun(text: string)
---@param options? mbus.format.annotated.Options
---@return table  of functions: telegram(telegram), readout(readout), failure(err, frame, bytes), unread(), finish()
function M.stream(put, options)
  local separator = ""
  local function take(shown)
    put(separator .. shown)
    separator = "\n"
  end
  return {
    telegram = function(telegram) take(M.telegram(telegram, options)) end,
    readout = function(whole) take(M.readout(whole, options)) end,
    failure = function(_, _, bytes) if bytes then take((M.bytes(bytes, options))) end end,
    unread = function() end,
    finish = function() end,
  }
end

return M
