---@meta mbus.aes
-- luacheck: ignore 212 241

---AES-128 for `mbus.security`. Written in C, over mbedTLS; decoding does not need it.
---Wrong sizes raise. Key schedules are wiped; the Lua strings that hold keys live until the collector frees them.
---@class mbus.aes
local aes = {}

---CBC without padding (NIST SP 800-38A).
---@param key string    16 bytes
---@param iv string     16 bytes
---@param bytes string  whole blocks of 16 bytes, or ""
---@return string  as long as `bytes`
function aes.cbc_encrypt(key, iv, bytes) end

---@param key string    16 bytes
---@param iv string     16 bytes
---@param bytes string  whole blocks of 16 bytes, or ""
---@return string  as long as `bytes`
function aes.cbc_decrypt(key, iv, bytes) end

---CMAC (RFC 4493).
---@param key string    16 bytes
---@param bytes string  of any length
---@return string  16 bytes
function aes.cmac(key, bytes) end

return aes
