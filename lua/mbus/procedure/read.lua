---Reads a meter: all telegrams of its class 2 data, by primary or secondary address.
---
---    primary    SND_NKE a -> E5, REQ_UD2 a -> RSP_UD, ... until no DIF 1F says that more follows
---    secondary  selection -> E5, REQ_UD2 253 -> RSP_UD, ..., SND_NKE 253; SND_NKE 253 before it where somebody could be
---               selected
---
---A meter that does not answer SND_NKE is asked nevertheless: some do not.
local Error = require "mbus.error"
local arguments = require "mbus.procedure.arguments"
local Target = require "mbus.procedure.target"

---@param link mbus.Link
---@param address mbus.Address
---@return mbus.Readout? readout  with `readout.error` if the tail of a telegram is damaged and records before it are good
---@return mbus.Error? err  `err.readout` holds the telegrams read before
local function run(link, address)
  local target, readout, err
  target, err = Target.open(link, address)
  if not target then return nil, Error.wrap(err, { address = address.text }) end
  readout, err = target:readout()
  target:close(err)
  local first = readout.telegrams[1]
  -- Some meters have one frame count for both of their addresses.
  if first and first.a and address.digits then link:forget_fcb(first.a) end
  err = err or #readout == 0 and readout.error or nil
  if not err then return readout end
  if first then err.readout = readout end
  return nil, Error.wrap(err, { address = address.text })
end

---@param level integer  of the caller, for `error`
---@param address integer|string
---@param options? mbus.BusOptions
local function prepare(level, address, options)
  local parsed, err = arguments.address(level + 1, address)
  if not parsed then return nil, err end
  return options or {}, parsed
end

return { prepare = prepare, run = run }
