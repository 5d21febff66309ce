---Encrypted telegrams: security modes 5 and 7 of EN 13757-7, which are profiles A and B of OMS.
---
---    local security = require "mbus.security"
---    local plain = assert(security.decrypt(bytes, "000102030405060708090A0B0C0D0E0F"))
---    local plain = assert(security.decrypt(bytes, { ["5566778893445508"] = key, ["12345678"] = other }))
---    local telegram = assert(mbus.decode(plain))
---    local telegram, err = security.telegram(bytes, keys)     -- with its header also where it can't be decrypted
---
---    local frame = core.long(0x53, 0xFD, security.encrypt(records, key, { address = "1234567893153303", access_no = 43 }))
---
---`mbus.aes` (mbedTLS) is loaded when something is to be decrypted with a key, never before. No key is part of an error.
---Errors, by `code`, beside those of a bad frame:
---
---    no_key          encrypted    the telegram is encrypted, and there is no key for this meter
---    wrong_key       encrypted    what was decrypted does not begin with 2F 2F
---    no_address      encrypted    a short header, and `options.address` does not tell the meter's secondary address
---    bad_mac         checksum     the telegram was altered: its MAC does not fit
---    missing_blocks  truncated    fewer bytes than encrypted blocks announced
---    bad_afl         malformed    the AFL does not fit its length; truncated: the telegram ends inside it
---    no_counter      malformed    a derived key without a message counter
---    security        unsupported  DES, GCM, CCM, TLS, fragments, ...; the message names it
---    no_aes          unsupported  `mbus.aes` is not installed
---    bad_key         invalid      a key that has not 16 bytes
local core = require "mbus.core"
local Address = require "mbus.address"
local Error = require "mbus.error"

local M = {}

local BLOCK, MAX_BLOCKS = 16, 15
local MARK = "\x2F\x2F" -- two fillers that a right key brings forth
local ANY = "FFFFFFFF"
local CI_AFL, CI_COMMAND_SHORT, CI_COMMAND_LONG = 0x90, 0x5A, 0x5B
local FROM_MASTER = 0x40 -- PRM in the C field (EN 13757-2)
local HEADER_SIZES = { long = 12, short = 4 }
-- Whose payload is records, among which the fillers may stay.
local CARRIES_RECORDS = { [0x5A] = true, [0x5B] = true, [0x72] = true, [0x76] = true, [0x7A] = true }

-- Security modes of EN 13757-7. The others are reserved or the manufacturer's: wired meters of old have anything there.
local NAMES = {
  [1] = "manufacturer specific encryption", [2] = "DES-CBC", [3] = "DES-CBC with initialization vector",
  [4] = "AES-128-CBC with a static initialization vector", [5] = "AES-128-CBC", [7] = "AES-128-CBC with a derived key",
  [8] = "AES-128-CTR with CMAC", [9] = "AES-128-GCM", [10] = "AES-128-CCM", [13] = "TLS 1.2", [15] = "private encryption",
}

local function unsupported(message) return Error.new("unsupported", message, { code = "security" }) end

---@param mode integer  as in `telegram.security_mode`
---@return string? name  "AES-128-CBC"; nil for 0 and for reserved modes
function M.name(mode) return NAMES[mode] end

--- Keys ---------------------------------------------------------------------------------------------------------

---What the functions here take as keys: 16 bytes, 32 hex digits, a table of them by secondary address (16 digits) or
---identification number (8 digits; "FFFFFFFF" for any meter), or a function of telegram and secondary address (nil if not
---known) that returns one, or nil if there is none.
---@alias mbus.Keys string|table<string, string>|fun(telegram: mbus.Telegram?, address: string?): string?

local function bad_key(which)
  return nil, Error.new("invalid", which .. " is not 32 hex digits (16 bytes)", { code = "bad_key" })
end

local function hex_key(text)
  local bytes = core.unhex(text)
  return bytes and #bytes == BLOCK and bytes or nil
end

---Keys as somebody types them, for instance with `--key`.
---@param texts string[]  "HEX" for all meters, or "ADDRESS=HEX" with 8 or 16 digits of a meter
---@return table<string, string>? keys  for `decrypt`
---@return mbus.Error? err  kind `invalid`, says which and not what
function M.keys(texts)
  local keys = {}
  for number, text in ipairs(texts) do
    local address, hex = text:match("^%s*(%x+)%s*=(.*)$")
    local key = hex_key(hex or text)
    if not key then return bad_key("key " .. number) end
    address = address and address:upper():gsub("^(%x%x%x%x%x%x%x%x)FFFFFFFF$", "%1") or ANY
    if #address ~= 8 and (#address ~= 16 or Address.parse(address).wildcard) then
      return nil, Error.new("invalid", ("key %d: a meter is named by 8 digits, or by 16 without wildcards"):format(number),
        { code = "bad_key" })
    end
    keys[address] = key
  end
  return keys
end

local function look_up(keys, telegram, digits)
  if type(keys) == "function" then return keys(telegram, digits) end
  if type(keys) ~= "table" then return keys end
  local id = digits and digits:sub(1, 8)
  return digits and (keys[digits] or keys[digits:lower()] or keys[id] or keys[id:lower()]) or keys[ANY]
end

---@return string? key  16 bytes
---@return mbus.Error? err  there is one, and it is none
local function find_key(keys, telegram, digits)
  local key = look_up(keys, telegram, digits)
  if not key then return nil end
  if type(key) ~= "string" then error("a key is a string, not " .. type(key), 0) end
  if #key == BLOCK then return key end
  key = hex_key(key)
  if not key then return bad_key(digits and "the key of meter " .. digits or "the key") end
  return key
end

local function check_keys(keys, level)
  local kind = type(keys)
  if kind ~= "string" and kind ~= "table" and kind ~= "function" and kind ~= "nil" then
    error("a key, a table of keys or a function is needed, not " .. kind, level + 1)
  end
end

local function load_aes()
  local ok, aes = Error.pcall(require, "mbus.aes")
  if ok then return aes end
  return nil, Error.new("unsupported", "AES needs the module mbus.aes: " .. tostring(aes):match("[^\n]*"), { code = "no_aes" })
end

--- Addresses ----------------------------------------------------------------------------------------------------

---@return string? bytes  8, as in a long header; nil if the value does not tell them all
---@return mbus.Error? err
local function address_bytes(value)
  if type(value) ~= "string" then return nil end -- a primary address tells nothing
  if #value == 8 and value:find("%X") then return value end
  local parsed, err = Address.parse(value)
  if not parsed then return nil, err end
  return parsed.digits and not parsed.wildcard and Address.bytes(parsed.digits) or nil
end

local function address_digits(bytes) return core.hex(bytes:sub(1, 4):reverse() .. bytes:sub(5), "") end

-- The order of a radio frame: the manufacturer comes first, unlike in the header.
local function mode5_iv(address, access_no)
  return address:sub(5, 6) .. address:sub(1, 4) .. address:sub(7, 8) .. string.char(access_no):rep(8)
end

--- Authentication and fragmentation layer (EN 13757-7) ---------------------------------------------------------

local FCL_MORE, FCL_MCL, FCL_ML, FCL_MCR, FCL_MAC, FCL_KI = 0x4000, 0x2000, 0x1000, 0x0800, 0x0400, 0x0200
local MAC_SIZES = { [3] = 2, [4] = 4, [5] = 8, [6] = 12, [7] = 16 } -- CMAC-AES128, by authentication type
local AUTHENTICATED = 3 -- and above

---@class mbus.security.Afl
---@field size integer      bytes before the next CI
---@field mcl string        the fields as sent, "" if absent
---@field mcr string
---@field ml string
---@field ki string
---@field mac? string
---@field promised boolean  MCL tells of a MAC

local function afl_error(kind, message)
  return nil, Error.new(kind, message, { code = "bad_afl", offset = 7 })
end

-- How many bytes of MAC there are, or nil and why that can't be told.
local function mac_size(mcl)
  local authentication = (mcl:byte() or 0) & 0x0F
  if MAC_SIZES[authentication] then return MAC_SIZES[authentication] end
  local name = authentication == 8 and "GMAC" or "authentication type " .. authentication
  return nil, unsupported("AFL: " .. name .. " is not supported")
end

---@param data string  what follows CI 90
---@return mbus.security.Afl?
---@return mbus.Error? err
local function read_afl(data)
  local length = data:byte(1)
  if not length or #data < length + 2 then return afl_error("truncated", "the telegram ends inside the AFL") end
  if length < 2 then return afl_error("malformed", "the AFL has no room for its control field") end
  local fcl = ("<I2"):unpack(data, 2)
  if fcl & FCL_MORE ~= 0 or fcl & 0xFF > 1 then return nil, unsupported("a message in fragments is not supported") end
  local at = 4
  local function take(flag, size)
    if fcl & flag == 0 then return "" end
    at = at + size
    return data:sub(at - size, at - 1)
  end
  local afl = { size = length + 1, mcl = take(FCL_MCL, 1), ki = take(FCL_KI, 2), mcr = take(FCL_MCR, 4) }
  if fcl & FCL_MAC ~= 0 then
    local size, err = mac_size(afl.mcl)
    if not size then return nil, err end
    afl.mac = take(FCL_MAC, size)
  end
  afl.ml = take(FCL_ML, 2)
  if at ~= length + 2 then return afl_error("malformed", "the fields of the AFL do not fit its length") end
  afl.promised = (afl.mcl:byte() or 0) & 0x0F >= AUTHENTICATED
  return afl
end

--- Messages -----------------------------------------------------------------------------------------------------

---What a frame holds, with all that decryption needs.
---@class mbus.security.Message
---@field frame table             of `core.frame`
---@field afl? mbus.security.Afl
---@field bytes string            the frame without the AFL, and without the extension of a word that encrypts nothing
---@field layer string            CI and all behind it: what a MAC covers
---@field telegram mbus.Telegram  of `bytes`
---@field mode integer            0 if there is no configuration word
---@field blocks integer          encrypted blocks
---@field header string
---@field body string             behind header and extension of the configuration word
---@field offset integer          of the body in the frame
---@field address? string         8 bytes
---@field digits? string          the same as 16 digits
---@field counter string          4 bytes as sent, "" if there is none
---@field derivation? integer     mode 7: 0 persistent key, 1 KDF-A
---@field key_id? integer
---@field key_version? integer

-- Mode 7: CFE, message counter if Z, key version if V. Too few bytes for these are too few for the blocks, too.
local function read_extension(message, word)
  local body, size = message.body, 1
  local cfe = body:byte(1) or 0
  if word & 0x2000 ~= 0 then
    message.counter = body:sub(2, 5)
    size = 5
  end
  if cfe & 0x40 ~= 0 then
    message.key_version = body:byte(size + 1)
    size = size + 1
  end
  message.derivation, message.key_id = cfe >> 4 & 3, cfe & 0x0F
  message.body, message.offset = body:sub(size + 1), message.offset + size
end

-- The AFL proves mode 7, so that its extension stands before the records also where nothing is encrypted.
local function is_plain_extended(message) return message.afl ~= nil and message.mode == 7 and message.blocks == 0 end

-- A telegram of the same frame and header.
local function rewrite(message, body)
  local frame = message.frame
  return core.long(frame.c, frame.a, message.layer:byte(), message.header .. body)
end

local function read_header(message, data)
  local telegram = message.telegram
  local word = telegram.signature or 0
  local size = HEADER_SIZES[telegram.header] or 0
  message.mode = telegram.security_mode or 0
  message.header, message.body = data:sub(1, size), data:sub(size + 1)
  message.offset = message.offset + size
  if telegram.header == "long" then message.address = data:sub(1, 8) end
  message.digits = telegram.secondary_address or message.address and address_digits(message.address)
  message.blocks = word >> 4 & 0x0F
  if message.mode == 7 then read_extension(message, word) end
end

---@return mbus.security.Message?
---@return mbus.Error? err
local function read_message(bytes, options)
  local frame, err = core.frame(bytes)
  if not frame then return nil, Error.wrap(err) end
  local message = { frame = frame, bytes = bytes, offset = 7, counter = "" }
  message.address, err = address_bytes(options.address)
  if err then return nil, err end
  local ci, data = frame.ci, frame.data or ""
  if ci == CI_AFL then
    local afl
    afl, err = read_afl(data)
    if not afl then return nil, err end
    message.afl, message.counter = afl, afl.mcr
    ci, data = data:byte(afl.size + 1), data:sub(afl.size + 2)
    message.bytes, message.offset = core.long(frame.c, frame.a, ci, data), message.offset + afl.size + 1
  end
  message.layer = string.char(ci or 0) .. data
  message.telegram = assert(core.telegram(message.bytes)) -- the frame is good
  read_header(message, data)
  if is_plain_extended(message) then
    message.bytes = rewrite(message, message.body)
    message.telegram = assert(core.telegram(message.bytes))
  end
  return message
end

local function meter_name(message)
  if message.digits then return "meter " .. message.digits end
  return "the meter at address " .. message.frame.a
end

local function is_aes(message) return (message.mode == 5 or message.mode == 7) and message.blocks > 0 end

-- Encrypted in a way that is not known here. With DES, the low byte counts the encrypted bytes.
local function is_foreign(message)
  local mode = message.mode
  if mode ~= 2 and mode ~= 3 then return NAMES[mode] ~= nil and mode ~= 5 and mode ~= 7 end
  local count = message.telegram.signature & 0xFF
  return count > 0 and count % 8 == 0 and count <= #message.body
end

local function has_mac(message)
  local afl = message.afl
  return afl ~= nil and (afl.mac ~= nil or afl.promised)
end

-- Some meters announce encryption and send plain records behind the two fillers.
local function is_marked(message) return not message.afl and message.telegram.payload:sub(1, 2) == MARK end

-- Whether all of it makes sense as records, as one ciphertext of 32 bytes in 200 does: then the word is an old signature.
local function reads_well(telegram)
  if telegram.error or #telegram == 0 or telegram.manufacturer_data then return false end
  for _, record in telegram:records() do
    if record.quantity == "reserved" or record.error or #record.flags > 0 then return false end
  end
  return true
end

--- Modes 5 and 7 ------------------------------------------------------------------------------------------------

-- Derivation constants of KDF-A; +10h from master to meter.
local FOR_ENCRYPTION, FOR_MAC = 0x00, 0x01

local function no_address(message)
  return Error.new("encrypted", ("%s is encrypted (mode %d), and with a short header the key needs its secondary address")
    :format(meter_name(message), message.mode), { code = "no_address" })
end

-- KDF-A: CMAC of constant, message counter, identification and seven times 07.
local function derive(aes, key, constant, derivation, message)
  if derivation == 0 then return key end
  if derivation ~= 1 then return nil, unsupported(("key derivation function %d is not supported"):format(derivation)) end
  if not message.address then return nil, no_address(message) end
  if #message.counter ~= 4 then
    return nil, Error.new("malformed", meter_name(message) .. " sends no message counter for its key", { code = "no_counter" })
  end
  if message.frame.c & FROM_MASTER ~= 0 then constant = constant | 0x10 end
  return aes.cmac(key, string.char(constant) .. message.counter .. message.address:sub(1, 4) .. ("\7"):rep(7))
end

-- Takes as long wherever they differ.
local function equal(a, b)
  local difference = #a ~ #b
  for i = 1, math.min(#a, #b) do difference = difference | a:byte(i) ~ b:byte(i) end
  return difference == 0
end

local function bad_mac(message, text)
  return Error.new("checksum", meter_name(message) .. ": " .. text, { code = "bad_mac" })
end

-- Over MCL, MCR, ML and the layer behind, encrypted as it is.
---@return mbus.Error? err  with code `bad_mac`, or why it could not be verified
local function verify(aes, key, message)
  local afl = message.afl
  if not has_mac(message) then return nil end
  if not afl.mac then return bad_mac(message, "the telegram announces a MAC and has none") end
  local derivation = message.derivation or 1
  if afl.ki ~= "" then derivation = afl.ki:byte(1) >> 4 & 3 end
  local mac_key, err = derive(aes, key, FOR_MAC, derivation, message)
  if not mac_key then return err end
  local mac = aes.cmac(mac_key, afl.mcl .. afl.mcr .. afl.ml .. message.layer)
  if equal(mac:sub(1, #afl.mac), afl.mac) then return nil end
  return bad_mac(message, "the telegram was altered (its MAC does not fit)")
end

local function wrong_key(message, mac_error)
  local also = mac_error and ", and its MAC does not fit either" or ""
  return Error.new("encrypted", ("the key is not that of %s: mode %d does not give 2F 2F%s")
    :format(meter_name(message), message.mode, also), { code = "wrong_key" })
end

local function missing_blocks(message)
  return Error.new("truncated", ("%s announces %d encrypted blocks (%d bytes), more than the %d bytes left")
    :format(meter_name(message), message.blocks, message.blocks * BLOCK, #message.body),
    { code = "missing_blocks", offset = message.offset })
end

---@return string? plaintext  as many bytes as were encrypted
---@return mbus.Error? err
local function decipher(aes, key, message)
  local cipher = message.body:sub(1, message.blocks * BLOCK)
  if message.mode == 5 then
    if not message.address then return nil, no_address(message) end
    return aes.cbc_decrypt(key, mode5_iv(message.address, message.telegram.access_no), cipher)
  end
  local derived, err = derive(aes, key, FOR_ENCRYPTION, message.derivation, message)
  if not derived then return nil, err end
  return aes.cbc_decrypt(derived, ("\0"):rep(BLOCK), cipher)
end

-- The frame without what encryption added. The configuration word stays: the core takes 2F 2F for plain.
local function rebuild(message, plaintext)
  local body = plaintext .. message.body:sub(#plaintext + 1)
  if not CARRIES_RECORDS[message.layer:byte()] then body = body:sub(#MARK + 1) end
  return rewrite(message, body)
end

---What is known of a telegram that was encrypted or has a MAC.
---@class mbus.security.Info
---@field mode integer          as in `telegram.security_mode`
---@field encrypted boolean
---@field authenticated boolean  a MAC was there and fits
---@field counter? integer      message counter, which grows with each telegram
---@field key_id? integer       mode 7
---@field key_version? integer  mode 7, if sent

local function info(message, encrypted, authenticated)
  return {
    mode = message.mode, encrypted = encrypted, authenticated = authenticated,
    counter = #message.counter == 4 and ("<I4"):unpack(message.counter) or nil,
    key_id = message.key_id, key_version = message.key_version,
  }
end

---@return string? bytes, mbus.security.Info|mbus.Error
local function open(aes, key, message)
  if #message.body < message.blocks * BLOCK then
    if not message.afl and reads_well(message.telegram) then return message.bytes end
    return nil, missing_blocks(message)
  end
  local mac_error = verify(aes, key, message)
  if mac_error and mac_error.code ~= "bad_mac" then return nil, mac_error end
  local plaintext, err = decipher(aes, key, message)
  if not plaintext then return nil, err end
  -- A wrong key spoils both, and is likelier than an altered telegram with a good checksum.
  if plaintext:sub(1, #MARK) ~= MARK then return nil, wrong_key(message, mac_error) end
  if mac_error then return nil, mac_error end
  return rebuild(message, plaintext), info(message, true, message.afl ~= nil and message.afl.mac ~= nil)
end

--- Decryption ---------------------------------------------------------------------------------------------------

local function without_key(message)
  local err = message.telegram.error
  local is_sealed = err and err.code == "encrypted" or message.afl and is_aes(message)
  if not is_sealed then return message.bytes end
  return nil, Error.new("encrypted", ("%s is encrypted (mode %d, %s), and there is no key for it")
    :format(meter_name(message), message.mode, NAMES[message.mode]), { code = "no_key" })
end

local function with_foreign(message)
  if reads_well(message.telegram) then return message.bytes end
  return nil, unsupported(("%s is encrypted with %s (mode %d), which is not supported")
    :format(meter_name(message), NAMES[message.mode], message.mode))
end

local function with_key(message, key)
  if is_foreign(message) and not has_mac(message) then return with_foreign(message) end
  local aes, err = load_aes()
  if not aes then return nil, err end
  if is_aes(message) then return open(aes, key, message) end
  err = verify(aes, key, message)
  if err then return nil, err end
  if is_foreign(message) then return with_foreign(message) end
  return message.bytes, info(message, false, true)
end

---@class mbus.security.Options
---@field address? string|integer  the meter's secondary address: 16 digits without wildcard, or 8 bytes as transmitted.
---Needed for a short header; a primary address is accepted and tells nothing

local function decrypt(message, keys)
  if not (is_aes(message) or is_foreign(message) or has_mac(message)) then return message.bytes end
  local key, err = find_key(keys, message.telegram, message.digits)
  if err then return nil, err end
  if not key then return without_key(message) end
  local plain, more = with_key(message, key)
  if not plain and is_marked(message) then return message.bytes end
  return plain, more
end

local function check_bytes(bytes)
  if type(bytes) ~= "string" then error("bytes are a string, not " .. type(bytes), 3) end
end

---Decrypts a telegram. One that is not encrypted comes back as it was, so that all telegrams can be given to it.
---
---2F 2F is all that tells a right key in mode 5. It depends on manufacturer and key, not on the rest of the address: with a
---short header, the wrong `options.address` of another meter with the same key gives wrong values.
---@param bytes string    exactly one frame
---@param keys? mbus.Keys
---@param options? mbus.security.Options
---@return string? bytes  a frame with the same header and plain records, which begin with 2F 2F; AFL and the extension of
---the configuration word are left out, and the word still tells the mode
---@return mbus.security.Info|mbus.Error|nil info_or_err  info if there was encryption or a MAC, the error if `bytes` is nil
function M.decrypt(bytes, keys, options)
  check_bytes(bytes)
  check_keys(keys, 2)
  local message, err = read_message(bytes, options or {})
  if not message then return nil, err end
  return decrypt(message, keys)
end

-- What is left of a telegram that was not opened: behind an AFL nothing that could be altered, or ciphertext.
local function unopened(message)
  local err = message.telegram.error
  if not message.afl or err and err.code == "encrypted" then return message.telegram end
  return core.telegram(rewrite(message, ""))
end

---As `core.telegram`, with keys. What can't be decrypted or verified still has its header; its `error` is then that of the
---core, and `err` knows more.
---@param bytes string    exactly one frame
---@param keys? mbus.Keys
---@param options? mbus.security.Options
---@return mbus.Telegram? telegram  nil if the frame itself is bad
---@return mbus.Error? err          why the telegram could not be decrypted
---@return mbus.security.Info? info
function M.telegram(bytes, keys, options)
  check_bytes(bytes)
  check_keys(keys, 2)
  local message, err = read_message(bytes, options or {})
  if not message then return core.telegram(bytes) or nil, err end
  local plain, more = decrypt(message, keys)
  if not plain then return unopened(message), more end
  return plain == message.bytes and message.telegram or core.telegram(plain), nil, more
end

--- Encryption ---------------------------------------------------------------------------------------------------

---@class mbus.security.CommandOptions
---@field address string      the meter's secondary address, as in `mbus.security.Options`
---@field access_no integer   0..255, the master's own. With the same number the same records look the same: count it up
---@field header? "long"|"short"  long if absent; short only for a meter that was selected by this address

local function check_command(records, options)
  if type(records) ~= "string" then error("records are a string, not " .. type(records), 3) end
  if #records > MAX_BLOCKS * BLOCK - #MARK then
    error(("at most %d bytes of records can be encrypted"):format(MAX_BLOCKS * BLOCK - #MARK), 3)
  end
  local number = type(options) == "table" and math.tointeger(options.access_no)
  if not number or number < 0 or number > 255 then error("options.access_no is needed, 0 to 255", 3) end
  if type(options.address) ~= "string" then error("options.address is needed, a secondary address", 3) end
  if options.header and not HEADER_SIZES[options.header] then error("options.header is long or short", 3) end
end

---Encrypts a command to a meter (mode 5): `core.long(0x53, a, security.encrypt(records, key, options))`.
---@param records string   data records, up to 238 bytes
---@param keys mbus.Keys   a function gets nil and the address
---@param options mbus.security.CommandOptions
---@return integer? ci     5B, or 5A with a short header
---@return string|mbus.Error data_or_err
function M.encrypt(records, keys, options)
  check_command(records, options)
  check_keys(keys, 2)
  local address, err = address_bytes(options.address)
  if err then return nil, err end
  if not address then return nil, Error.new("invalid", "encryption needs a whole secondary address, without wildcards") end
  local digits = address_digits(address)
  local key, aes
  key, err = find_key(keys, nil, digits)
  if not key then
    return nil, err or Error.new("encrypted", ("there is no key for meter %s"):format(digits), { code = "no_key" })
  end
  aes, err = load_aes()
  if not aes then return nil, err end
  local plain = MARK .. records
  plain = plain .. ("\x2F"):rep(-#plain % BLOCK)
  local access_no = math.tointeger(options.access_no)
  local header = string.char(access_no, 0) .. ("<I2"):pack(0x0500 | #plain // BLOCK << 4)
  local cipher = aes.cbc_encrypt(key, mode5_iv(address, access_no), plain)
  if options.header == "short" then return CI_COMMAND_SHORT, header .. cipher end
  return CI_COMMAND_LONG, address .. header .. cipher
end

return M
