---Gives a meter another primary address (EN 13757-3, record 01 7A). The meter is read first, so that it is known which one
---it is; then nobody may answer at the new address; at last the same meter must answer there.
local Address = require "mbus.address"
local Error = require "mbus.error"
local arguments = require "mbus.procedure.arguments"
local exchange = require "mbus.procedure.exchange"
local request = require "mbus.request"
local Target = require "mbus.procedure.target"

local CI_SEND = 0x51

-- Some meters answer only one of the two. Whatever comes means that somebody is there.
local function check_free(link, a)
  for _, bytes in ipairs { request.snd_nke(a), request.req_ud2(a, 1) } do
    local silent, err = exchange.probe(link, bytes)
    link:forget_fcb(a)
    if silent == nil then return nil, err end
    if not silent then
      return nil, Error.new("busy", ("address %d is in use"):format(a), { code = "address_in_use" })
    end
  end
  return true
end

local function is_same(one, other)
  if one.secondary_address or other.secondary_address then return one.secondary_address == other.secondary_address end
  return one.id == other.id
end

local function read_at(link, a)
  return Target.with(link, { a = a, text = a }, function(target) return target:first() end)
end

local function result_of(telegram, previous, new)
  return { address = new, previous = previous, secondary_address = telegram.secondary_address, telegram = telegram }
end

local function change(target, new)
  local link = target.link
  local before, free, err, read_error, after
  before, err = target:first()
  if not before then return nil, err end
  if before.a == new then return result_of(before, new, new) end
  free, err = check_free(link, new)
  if not free then return nil, err end
  err = select(2, target:command(CI_SEND, request.primary_address_record(new)))
  if link.broken or err and err.kind == "rejected" then return nil, err end
  if before.a then link:forget_fcb(before.a) end
  after, read_error = read_at(link, new)
  if link.plan then return {} end
  local found = after and is_same(before, after) and result_of(after, before.a, new)
  return Target.verdict(err, found, ("acknowledged, but the meter does not answer at address %d"):format(new), read_error)
end

local function run(link, address, new)
  return Target.with(link, address, function(target) return change(target, new) end)
end

local function prepare(level, address, new, options)
  local parsed, err = arguments.address(level + 1, address)
  if not parsed then return nil, err end
  if math.type(new) ~= "integer" then error("the new address is a whole number", level + 1) end
  if new < 0 or new > 250 then
    return arguments.refuse("bad new address %d: a meter may have 0 to 250", new)
  end
  if parsed.a == Address.TEST then parsed.text = "254" end
  return options or {}, parsed, new
end

return { prepare = prepare, run = run }
