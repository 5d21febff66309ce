---Errors that the world can cause: what a wire, a port, a network, a file or a user's text did wrong.
---A function that meets one returns `nil, err`. Branch on `err.kind`, never on the text.
---
---    local readout, err = bus:read(5)
---    if not readout and err.kind == "timeout" then absent[5] = true end
---    print(err)   --> ttyUSB0: address 5: no answer (3 tries, 0.99 s)
---@class mbus.Error
---@field kind string        one of `Error.kinds`
---@field message string     what happened, without the place
---@field bus? string        name of the bus: "/dev/ttyUSB0", "tcp://10.0.0.5:10001"
---@field address? integer|string  primary address or 16 digits of a secondary one
---@field offset? integer    0-based position of the byte in the frame or text
---@field code? string       finer name within the kind: "premature_end_of_data", "ECONNREFUSED"
---@field tries? integer     how often the request was sent
---@field seconds? number    time from the first attempt to the last
---@field readout? mbus.Readout  what had been read, and is good, when a later telegram failed
local Error = require("mbus.core").Error
Error.__index = Error

---Every value that `kind` can have. The set is closed: `Error.new` raises on any other.
Error.kinds = {
  -- what came, or did not come, as an answer
  timeout = "nothing came within the answer window",
  truncated = "a frame or its content ends too early",
  checksum = "a whole frame came, but its checksum does not fit",
  framing = "what came has the shape of a frame, with a wrong length, start or stop byte",
  noise = "bytes came that are no frame at all",
  collision = "several meters answered at once",
  mismatch = "a valid answer came, of another address or meter than the one asked",
  rejected = "the meter answered that it cannot or will not",
  repeated = "the meter sent the same telegram again instead of the next one",
  limit = "more came than the settings allow",
  -- what a telegram holds
  malformed = "the content breaks the rules of its coding",
  unsupported = "a CI field, a data type or a request that is not known here",
  encrypted = "the content is encrypted",
  -- ports and networks
  not_found = "no such port or file",
  permission = "the port or file may not be opened by this user",
  busy = "somebody else uses the port",
  refused = "the host is there, and nobody listens at that port",
  unknown_host = "the name of the host is not known, or it cannot be reached",
  closed = "the connection or the bus is closed",
  io = "the operating system reports a failure",
  -- what somebody typed
  invalid = "a URL, an address, hex digits or a setting that cannot be right",
}

local KEPT = { "bus", "address", "offset", "code", "tries", "seconds", "readout" }

local function set(err, fields)
  for _, name in ipairs(KEPT) do
    if fields[name] ~= nil then err[name] = fields[name] end
  end
  return err
end

---@param kind string     one of `Error.kinds`; any other is a bug of the caller and raises
---@param message string  what happened; the place belongs into the fields
---@param fields? table   bus, address, offset, code, tries, seconds, readout
---@return mbus.Error
function Error.new(kind, message, fields)
  if not Error.kinds[kind] then error("unknown kind of error: " .. tostring(kind), 2) end
  if type(message) ~= "string" then error("an error needs a message", 2) end
  return set(setmetatable({ kind = kind, message = message }, Error), fields or {})
end

---Adds what is known by now to an Error; or makes one of a plain table.
---@param err table      an Error, which is changed in place, or {kind=, message=, code=, offset=}
---@param fields? table  as in `Error.new`; fields that the error has already are kept
---@return mbus.Error
function Error.wrap(err, fields)
  local wrapped = err
  if getmetatable(err) ~= Error then wrapped = Error.new(err.kind, err.message, err) end
  for name, value in pairs(fields or {}) do
    if wrapped[name] == nil then set(wrapped, { [name] = value }) end
  end
  return wrapped
end

---@param value any
---@return boolean
function Error.is(value) return getmetatable(value) == Error end

-- `require` says before it which file could not be loaded.
local function sift(ok, ...)
  local err = not ok and (...)
  if type(err) == "string" and err:find "not enough memory$" then error(err, 0) end
  return ok, ...
end

---Like `pcall`, for what is expected to fail: that memory has run out is not that, and is raised.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...
function Error.pcall(fn, ...) return sift(pcall(fn, ...)) end

local function effort(err)
  local parts = {}
  if err.tries then parts[#parts + 1] = ("%d %s"):format(err.tries, err.tries == 1 and "try" or "tries") end
  if err.seconds then parts[#parts + 1] = ("%.2f s"):format(err.seconds) end
  return #parts > 0 and " (" .. table.concat(parts, ", ") .. ")" or ""
end

---"ttyUSB0: address 5: wrong checksum at byte 98 (3 tries, 0.99 s)"
function Error:__tostring()
  local place = {}
  if self.bus then place[#place + 1] = (self.bus:gsub("^/dev/", "")) .. ": " end
  if self.address then place[#place + 1] = "address " .. self.address .. ": " end
  local byte = self.offset and " at byte " .. self.offset or ""
  return table.concat(place) .. self.message .. byte .. effort(self)
end

return Error
