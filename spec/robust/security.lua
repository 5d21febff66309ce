---Decryption: telegrams of our own making, encrypted here by the words of EN 13757-7, whole and damaged.
local aes = require "mbus.aes"
local choices = require "spec.robust.choices"
local core = require "mbus.core"
local promise = require "spec.robust.promise"
local security = require "mbus.security"

local ADDRESS = "\x78\x56\x34\x12\x24\x40\x01\x07"
local DIGITS = "1234567824400107"
local RECORDS = "\x0C\x13\x27\x04\x85\x02\x04\x6D\x32\x37\x1F\x15\x02\xFD\x17\x00\x00"
local MACS = { [3] = 2, [4] = 4, [5] = 8, [6] = 12, [7] = 16 }

local function derived(key, constant, counter, derivation)
  if derivation == 0 then return key end
  return aes.cmac(key, string.char(constant) .. counter .. ADDRESS:sub(1, 4) .. ("\7"):rep(7))
end

-- Header, encrypted body and what is not encrypted behind it.
local function encrypted(choose, message)
  local plain = "\x2F\x2F" .. RECORDS:rep(1 + choose:below(4))
  plain = plain .. ("\x2F"):rep(-#plain % 16)
  message.plain = plain .. choose:one_of { "", "\x01\xFD\x17\x05" }
  local tail = message.plain:sub(#plain + 1)
  local word = message.mode << 8 | #plain // 16 << 4
  local access_no = choose:below(256)
  local head = (message.short and "" or ADDRESS) .. string.char(access_no, 0)
  if message.mode == 5 then
    local iv = ADDRESS:sub(5, 6) .. ADDRESS:sub(1, 4) .. ADDRESS:sub(7, 8) .. string.char(access_no):rep(8)
    return head .. ("<I2"):pack(word) .. aes.cbc_encrypt(message.key, iv, plain) .. tail
  end
  local extension = string.char(message.derivation << 4)
  if not message.afl then
    word = word | 0x2000
    extension = extension .. message.counter
  end
  local key = derived(message.key, message.constant, message.counter, message.derivation)
  return head .. ("<I2"):pack(word) .. extension .. aes.cbc_encrypt(key, ("\0"):rep(16), plain) .. tail
end

-- The layer with its MAC in front: CI 90, fields of the AFL.
local function authenticated(choose, message, layer)
  local kind = 3 + choose:below(5)
  message.mac_size = MACS[kind]
  local fcl, mcl, ml = 0x2C00, string.char(0x20 | kind), ""
  if choose:below(2) == 1 then fcl, ml = fcl | 0x1000, ("<I2"):pack(#layer) end
  local key = derived(message.key, message.constant | 1, message.counter, message.mode == 7 and message.derivation or 1)
  local mac = aes.cmac(key, mcl .. message.counter .. ml .. layer):sub(1, MACS[kind])
  local fields = ("<I2"):pack(fcl) .. mcl .. message.counter .. mac .. ml
  return string.char(#fields) .. fields .. layer
end

---@return table message  key, plain, bytes
local function make(choose)
  local message = { mode = choose:one_of { 5, 7 }, short = choose:below(2) == 1, afl = choose:below(2) == 1,
    derivation = choose:below(2), counter = ("<I4"):pack(choose:below(1 << 20)), key = ("\1"):rep(15) .. string.char(choose:below(256)) }
  local command = choose:below(3) == 0
  message.constant = command and 0x10 or 0
  local ci = command and (message.short and 0x5A or 0x5B) or message.short and 0x7A or 0x72
  local c, data = command and 0x53 or 0x08, encrypted(choose, message)
  if message.afl then
    data = authenticated(choose, message, string.char(ci) .. data)
    ci = 0x90
  end
  message.size = #data
  if #data <= 252 then message.bytes = core.long(c, 5, ci, data) end
  return message
end

local function check_plain(bytes, plain, info)
  local before, after = core.frame(bytes), promise.that(core.frame(plain), "what was decrypted is no frame")
  promise.that(before.c == after.c and before.a == after.a, "another C or A field")
  if info then promise.that(type(info.mode) == "number" and type(info.encrypted) == "boolean", "no info") end
end

-- Any bytes: a frame, or nil and why; `telegram` and `decrypt` agree.
local function check(bytes, key, options)
  local plain, more = security.decrypt(bytes, key, options)
  if promise.result(plain, more) then check_plain(bytes, plain, more) end
  local telegram, err = security.telegram(bytes, key, options)
  promise.that((err == nil) == (plain ~= nil), "decrypt and telegram do not agree")
  if telegram then
    for _, record in telegram:records() do promise.that(record.quantity, "a record without a quantity") end
  end
  promise.result(security.decrypt(bytes, nil, options))
  return plain, more
end

local function damaged(choose, bytes)
  local frame = core.frame(bytes)
  local data = frame.data
  for _ = 1, 1 + choose:below(3) do
    local at, kind = 1 + choose:below(#data), choose:below(4)
    if kind == 0 then data = data:sub(1, at - 1) .. string.char(choose:below(256)) .. data:sub(at + 1) end
    if kind == 1 then data = data:sub(1, at - 1) .. string.char(data:byte(at) ~ 1 << choose:below(8)) .. data:sub(at + 1) end
    if kind == 2 then data = data:sub(1, at) end
    if kind == 3 then data = data:sub(1, at) .. data:sub(at) end
  end
  return core.long(frame.c, frame.a, frame.ci, data:sub(1, 252)), data ~= frame.data
end

local function run(input)
  local choose = choices.new(input)
  local way = choose:below(8)
  if way == 0 then -- a frame of anything
    local data = choose:rest():sub(1, 253)
    if #data < 1 then return false end
    check(core.long(0x08, 1, data:byte(), data:sub(2)), ("\1"):rep(16), { address = DIGITS })
    return #data > 20
  end
  local message = make(choose)
  if not message.bytes then return false end
  local options = { address = message.short and DIGITS or nil }
  if way <= 3 then
    local plain, info = check(message.bytes, message.key, options)
    promise.that(plain, "a good telegram is refused: %s", info)
    promise.that(core.frame(plain).data:sub(-#message.plain) == message.plain, "decrypted wrongly")
    promise.that(info.authenticated == message.afl, "authenticated or not")
  elseif way <= 6 then
    local bytes, changed = damaged(choose, message.bytes)
    local plain, info = check(bytes, message.key, options)
    -- A MAC covers what it authenticates; one of two bytes is right by chance once in a while.
    if changed and plain and info and info.authenticated and message.mac_size > 2 then
      promise.that(core.frame(plain).data:sub(-#message.plain) == message.plain, "an altered telegram is taken for authentic")
    end
  else
    local wrong = message.key:sub(1, 14) .. string.char(choose:below(256), choose:below(256))
    local plain = check(message.bytes, wrong, options)
    promise.that(not (plain and message.afl and wrong ~= message.key), "the wrong key is taken")
  end
  return true
end

local seeds = {}
for way = 0, 7 do
  for variant = 0, 7 do
    seeds["way-" .. way .. "-" .. variant] = string.char(way, variant & 1, variant >> 1 & 1, variant >> 2 & 1, 1, 0, 0, 1, 7, way, 2,
      1, 0, 42, 3, 1, 1, 2, 3, 4)
  end
end
seeds["way-0-afl"] = "\0\x90" .. core.unhex("0F002C25B30A0000AF5D74DF73A600D97278563412931533037500200710"
  .. "9058475F4BC91DF878B80A1B0F98B629024AAC727942BFC549233C0140829B93")

return { seeds = seeds, run = run, least = 0.7 }
