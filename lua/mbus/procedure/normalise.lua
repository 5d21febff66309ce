---SND_NKE: resets the link of a meter; to 253 it deselects whoever is selected, to 255 it resets everybody.
local Address = require "mbus.address"
local arguments = require "mbus.procedure.arguments"
local exchange = require "mbus.procedure.exchange"
local judge = require "mbus.procedure.judge"
local request = require "mbus.request"
local Target = require "mbus.procedure.target"
local Error = require "mbus.error"

local function run(link, a)
  if a == Address.SELECTED then
    Target.deselect(link, false)
    return not link.broken or nil, link.broken
  end
  if a >= Address.TEST then link:forget_all_fcb() end
  if a == Address.BROADCAST then return exchange.broadcast(link, request.snd_nke(a)) end
  local ok, err = exchange.run(link, request.snd_nke(a), judge.ack(a))
  if err then
    link:forget_fcb(a)
    return nil, Error.wrap(err, { address = a })
  end
  link:reset_fcb(a)
  if not link.plan then link:rest() end
  return ok
end

local function prepare(level, a, options)
  if math.type(a) ~= "integer" then error("SND_NKE goes to an address from 0 to 255", level + 1) end
  if a < 0 or a > 255 or a == 251 or a == 252 then
    return arguments.refuse("bad address %d: 0 to 250, 253 for the selected meter, 254, or 255 for all", a)
  end
  return options or {}, a
end

return { prepare = prepare, run = run }
