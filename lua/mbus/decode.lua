---From the bytes of a frame to a telegram: plain ones by the core alone, encrypted ones with their key, compact ones with
---the record headers that an earlier telegram of the same meter showed.
local core = require "mbus.core"
local Error = require "mbus.error"

local M = {}

---@class mbus.DecodeOptions
---@field keys? string|table|function  AES-128 key: 16 bytes or 32 hex digits; or by meter, see security.lua
---@field address? string              secondary address of the meter, for encrypted telegrams that do not carry it
---@field formats? table<integer, string>  record headers by format signature: looked up for compact frames, and filled from
---every full and format frame that is decoded

local problems = setmetatable({}, { __mode = "k" })

local AFL = 0x90 -- CI of the authentication and fragmentation layer

local function is_secured(bytes, options) return options.keys ~= nil or bytes:byte(7) == AFL and bytes:byte(1) == 0x68 end

local function learn(telegram, formats)
  local signature, headers = telegram:format()
  if signature and headers ~= "" then formats[signature] = headers end
end

-- The full telegram that a compact one stands for, if its format is known.
local function expand(telegram, formats)
  local signature = telegram.format_signature
  local headers = formats[signature]
  if not headers then
    local message = ("the format %04X of this compact frame is not known yet"):format(signature)
    return telegram, Error.new("unsupported", message, { code = "unknown_format" })
  end
  local bytes, err = telegram:expand(headers)
  if not bytes then return telegram, err end
  return core.telegram(bytes)
end

local function decode(bytes, options)
  local telegram, err
  if is_secured(bytes, options) then
    telegram, err = require("mbus.security").telegram(bytes, options.keys, options)
  else
    telegram, err = core.telegram(bytes)
  end
  if err then return telegram, Error.wrap(err) end
  if not options.formats then return telegram end
  if telegram.format_signature then return expand(telegram, options.formats) end
  learn(telegram, options.formats)
  return telegram
end

---Why a telegram is not good to its end.
---@param telegram mbus.Telegram
---@return mbus.Error?
function M.problem(telegram) return problems[telegram] or telegram.error end

---@param bytes string  exactly one frame
---@param options? mbus.DecodeOptions
---@return mbus.Telegram? telegram  nil if the frame itself is bad
---@return mbus.Error? err  why the telegram could not be decrypted or expanded; its header is good
function M.telegram(bytes, options)
  local telegram, err = decode(bytes, options or {})
  if telegram then problems[telegram] = err end
  return telegram, err
end

return M
