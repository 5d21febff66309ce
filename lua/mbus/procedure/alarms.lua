---Class 1 data: alarms (EN 13757-3, REQ_UD1). A meter with nothing to tell acknowledges; one with an alarm sends it.
local Error = require "mbus.error"
local arguments = require "mbus.procedure.arguments"
local exchange = require "mbus.procedure.exchange"
local judge = require "mbus.procedure.judge"
local request = require "mbus.request"
local Target = require "mbus.procedure.target"

local function nothing_or_telegram(link, address)
  local data = judge.data(address, nil, link:decoding())
  return function(frame)
    if frame.type == "ack" then return "take", judge.END end
    return data(frame)
  end
end

local function ask(target)
  local link, address = target.link, target.address
  target:let_late_ack_come()
  local bytes = request.req_ud1(address.a, link:fcb(address.a))
  local telegram, err = exchange.run(link, bytes, nothing_or_telegram(link, address), { acknowledged = target.acknowledged })
  if err and err.code == "no_data" then telegram = judge.END end
  if not telegram then
    if err.kind == "timeout" then err.message = "no answer to REQ_UD1" end
    return nil, err
  end
  if telegram == exchange.PLANNED then return {} end
  link:toggle_fcb(address.a)
  if telegram == judge.END then return { alarm = false } end
  return { alarm = true, status = telegram.alarm_status, telegram = telegram }
end

local function run(link, address)
  -- Alarms are asked for often: the link of the meter is reset only where its frame count is not known.
  if link.settings.nke == true then link.settings.nke = false end
  local result, err = Target.with(link, address, ask)
  return result, err and Error.wrap(err, { address = address.text })
end

local function prepare(level, address, options)
  local parsed, err = arguments.address(level + 1, address)
  if not parsed then return nil, err end
  return options or {}, parsed
end

return { prepare = prepare, run = run }
