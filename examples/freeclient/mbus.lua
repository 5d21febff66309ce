-- M-Bus 1.0, a free-client script: reads meters, by primary or secondary address, all their telegrams.
-- luacheck: read globals swg mbus
-- Tags:
-- bus:    update_interval   ms from poll to poll, default 10000
--         offline_interval  ms until a meter that does not answer is tried again, default twice update_interval
--         force_reset       true: SND_NKE before each readout by primary address
--         timeout           ms until an answer begins, default 500
--         debug             true: prints packets
-- device: addr              1 to 250, or 8 or 16 hex digits of a secondary address, f is a wildcard
-- point:  id                number of the record, from 0 over all telegrams of the meter
--         scale             value = number on the wire * scale, default 1

local TRIES <const>, TELEGRAMS <const>, ANSWER <const> = 3, 32, 261
local SELECTED <const> = 253
local COMMUNICATION_FAILURE <const>, UNRELIABLE <const> = 12, 7

local function read_tag(text, what)
  local tag, message = load("return {" .. text .. "\n}", "tag of " .. what, "t", {})
  return (tag or error(message, 0))()
end

-- --- one packet and its answer: done(ctx, what `check` made of it, or nil)

local received

local function transmit(ctx)
  ctx.data = ""
  if ctx.debug then print("Tx: " .. mbus.hex(ctx.packet)) end
  if ctx.type == swg.interface_rs485 then
    swg.sndrcv485(ctx.packet, 33000 / ctx.baudrate, ctx.timeout, ANSWER, received)
  else
    swg.sndrcvtcp(ctx.packet, 1, ANSWER, ctx.timeout, received)
  end
end

local function exchange(ctx, packet, check, done, tries)
  ctx.packet, ctx.check, ctx.done, ctx.tries = packet, check, done, tries
  transmit(ctx)
end

local function missing(data) return (data:byte() == 0x68 and (data:byte(2) or 3) + 6 or 1) - #data end

function received(ctx, result, data)
  if ctx.debug then print(("Rx(%d): %s"):format(result, mbus.hex(data))) end
  ctx.data = ctx.data .. data
  if result > 0 and ctx.type == swg.interface_tcp and missing(ctx.data) > 0 then
    return swg.sndrcvtcp(nil, missing(ctx.data), missing(ctx.data), ctx.timeout, received)
  end
  local answer = result > 0 and ctx.check(ctx, ctx.data) or nil
  ctx.tries = ctx.tries - 1
  if answer or ctx.tries == 0 then return ctx.done(ctx, answer) end
  transmit(ctx)
end

local function is_ack(_, data) return data == mbus.ACK end

-- --- one meter

local next_device

-- A value that the point can have, or nil.
local converters = {
  a = function(scaled) return scaled end,
  b = function(scaled) return scaled ~= 0 end,
  m = function(scaled, point)
    local state = math.tointeger(scaled)
    return state and state >= 1 and state <= (point.max_value or state) and state or nil
  end,
}

-- 3 * 0.1 is 0.30000000000000004.
local function times(raw, scale)
  local product = (raw + 0.0) * scale
  return scale % 1 == 0 and product or tonumber(("%.15g"):format(product)) + 0.0
end

local function convert(point, record)
  local raw = record and record.type == "number" and (record.raw or record.value)
  if not raw or raw ~= raw then return nil end
  return converters[point.obj_type](times(raw, point.scale), point)
end

local function update(ctx, index, point, records)
  local value = records and convert(point, records[point.id])
  swg.updatepoint(ctx.at, index, value, value ~= nil and 0 or records and UNRELIABLE or COMMUNICATION_FAILURE)
end

local function finish(ctx, records)
  local device = ctx.device
  device.known = records ~= nil
  device.retry_at = not records and swg.now() + ctx.offline_interval or nil
  swg.onoff(ctx.at, records ~= nil)
  for index, point in ipairs(device.points) do update(ctx, index, point, records) end
  if device.a ~= SELECTED then return next_device(ctx) end
  exchange(ctx, mbus.short(0x40, SELECTED), is_ack, next_device, 1)
end

-- An answer of the meter that was asked.
local function decode(ctx, data)
  local device, telegram = ctx.device, mbus.decode(data)
  if not telegram or telegram.type ~= "long" then return nil end
  if device.a ~= SELECTED then return telegram.a == device.a and telegram or nil end
  local address = telegram.secondary_address
  return (not address or address:find(device.pattern)) and telegram or nil
end

local function request(ctx)
  local device = ctx.device
  exchange(ctx, mbus.short(0x5B | device.fcb << 5, device.a), decode, function(_, telegram)
    if not telegram then return finish(ctx, nil) end
    device.fcb, ctx.telegrams = 1 - device.fcb, ctx.telegrams + 1
    for position, record in ipairs(telegram.records) do ctx.records[ctx.count + position - 1] = record end
    -- Manufacturer's data count as a record.
    ctx.count = ctx.count + #telegram.records + (telegram.manufacturer_data and 1 or 0)
    if telegram.more_records_follow and ctx.telegrams < TELEGRAMS then return request(ctx) end
    finish(ctx, ctx.records)
  end, device.retry_at and 1 or TRIES)
end

local function begin(ctx)
  local device = ctx.device
  ctx.records, ctx.count, ctx.telegrams = {}, 0, 0
  if not device.selection and device.known and not ctx.force_reset then return request(ctx) end
  device.fcb = 1
  if not device.selection then return exchange(ctx, mbus.short(0x40, device.a), is_ack, request, 1) end
  exchange(ctx, device.selection, is_ack, function(_, ack)
    if ack then request(ctx) else finish(ctx, nil) end
  end, device.retry_at and 1 or TRIES)
end

-- --- one after another

local function poll(ctx)
  ctx.started, ctx.at = swg.now(), 0
  next_device(ctx)
end

function next_device(ctx)
  repeat
    ctx.at = ctx.at + 1
    ctx.device = ctx.devices[ctx.at]
    if not ctx.device then return swg.timer(0, ctx.update_interval - (swg.now() - ctx.started), poll) end
  until not ctx.device.retry_at or swg.now() >= ctx.device.retry_at
  begin(ctx)
end

local function init_device(device, what)
  local addr = read_tag(device.tag, what).addr
  device.a, device.fcb = math.tointeger(addr), 1
  if type(addr) == "string" and addr:find("^%x+$") and (#addr == 8 or #addr == 16) then
    addr = addr .. ("f"):rep(16 - #addr)
    device.pattern = "^" .. addr:upper():gsub("F", ".") .. "$"
    local a, b, c, d = addr:match("(..)(..)(..)(..)")
    -- Behind the identification number the bus knows whole bytes as wildcards alone.
    local behind = addr:sub(9):gsub("..", function(byte) return byte:find("[fF]") and "ff" or nil end)
    device.a, device.selection = SELECTED, mbus.long(0x53, SELECTED, 0x52, mbus.unhex(d .. c .. b .. a .. behind))
  elseif type(addr) == "string" or not device.a or device.a < 1 or device.a > 250 then
    error(what .. ": addr is 1 to 250, or 8 or 16 hex digits", 0)
  end
  for index, point in ipairs(device.points) do
    local tag = read_tag(point.tag, ("%s, point %d"):format(what, index))
    point.id, point.scale = math.tointeger(tag.id), tag.scale or 1
    if not point.id or type(point.scale) ~= "number" then
      error(("%s, point %d: id and scale are numbers"):format(what, index), 0)
    end
  end
end

local function init(ctx)
  local tag = read_tag(ctx.tag, "bus")
  ctx.update_interval, ctx.timeout = tag.update_interval or 10000, tag.timeout or 500
  ctx.offline_interval = tag.offline_interval or ctx.update_interval * 2
  ctx.force_reset, ctx.debug = tag.force_reset, tag.debug
  for index, device in ipairs(ctx.devices) do init_device(device, "device " .. index) end
  poll(ctx)
end

return swg.interface_rs485 | swg.interface_tcp, init
