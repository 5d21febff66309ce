---Shows frames one after another, with time and direction: what `send`, `monitor` and `decode --replay` print.
local capture = require "mbus.capture"
local console = require "mbus.cli.console"
local core = require "mbus.core"
local decode = require("mbus.decode").telegram

local M = {}

local MASTER, FCB = 0x40, 0x20
local REQUESTS = { [0x40] = "SND_NKE", [0x5A] = "REQ_UD1", [0x5B] = "REQ_UD2", [0x53] = "SND_UD", [0x43] = "SND_UD",
  [0x4A] = "REQ_UD1", [0x4B] = "REQ_UD2" }
local COMMANDS = { [0x50] = "application reset", [0x51] = "data", [0x52] = "selection", [0x56] = "selection (mode 2)",
  [0x54] = "synchronize", [0x5C] = "synchronize", [0xB8] = "300 baud", [0xB9] = "600 baud", [0xBA] = "1200 baud",
  [0xBB] = "2400 baud", [0xBC] = "4800 baud", [0xBD] = "9600 baud", [0xBE] = "19200 baud", [0xBF] = "38400 baud" }
local CONFIRMATIONS = { [0] = "acknowledgement", [1] = "refusal", [9] = "no data" }

local function of_master(frame)
  local text = ("%s to %d"):format(REQUESTS[frame.c & ~FCB] or ("C field %02X"):format(frame.c), frame.a)
  if frame.c & FCB ~= 0 then text = text .. ", FCB 1" end
  if frame.type == "short" then return text end
  return ("%s, %s"):format(text, COMMANDS[frame.ci] or ("CI %02X"):format(frame.ci))
end

---@param frame? mbus.Frame
---@return string? text  what the frame is
local function describe(frame)
  if not frame then return nil end
  if frame.type == "ack" then return "acknowledgement" end
  if frame.c & MASTER ~= 0 then return of_master(frame) end
  if frame.type == "short" then return ("%s of %d"):format(CONFIRMATIONS[frame.c & 0x0F] or "answer", frame.a) end
  return ("RSP_UD of %d"):format(frame.a)
end

local function is_telegram(frame)
  return frame and (frame.type == "long" or frame.type == "control") and frame.c & MASTER == 0
end

local function table_writer(options)
  local format = require "mbus.format.table"
  local style = console.style()
  return {
    show = function(entry)
      local line = capture.line(entry.direction, entry.bytes, entry.time):sub(1, -2)
      local what = describe(entry.frame)
      local errors = (entry.line_errors or 0) > 0 and "  (damaged characters)" or ""
      console.write(line .. (what and "   # " .. what or "") .. errors .. "\n")
      if is_telegram(entry.frame) then
        local telegram, err = decode(entry.bytes, options)
        if telegram then console.write(format.telegram(telegram, style) .. "\n") end
        if err then console.write(("# %s\n"):format(err)) end
      end
      console.flush()
    end,
    finish = console.flush,
  }
end

-- Other formats hold the telegrams alone.
local function telegram_writer(name, options)
  local out = require("mbus.cli.output").new(name)
  return {
    show = function(entry)
      if not is_telegram(entry.frame) then return end
      local telegram, err = decode(entry.bytes, options)
      if telegram then out.telegram(telegram) else out.failure(err, entry.frame) end
      console.flush()
    end,
    finish = out.finish,
  }
end

---@param name string  of a format
---@param keys? table  of encrypted meters
---@return { show: fun(entry: table), finish: fun() }  an entry has time, direction, bytes, and a frame if it is one
function M.new(name, keys)
  local options = { keys = keys, formats = {} }
  return name == "table" and table_writer(options) or telegram_writer(name, options)
end

---The frames of a capture, each an entry; what is no frame is one too.
---@param captured mbus.Capture
---@return fun(): table?
function M.entries(captured)
  return coroutine.wrap(function()
    for _, line in ipairs(captured.entries) do
      local frame = core.frame(line.bytes) or nil
      coroutine.yield { time = line.time, direction = line.direction, bytes = line.bytes, frame = frame }
    end
  end)
end

return M
