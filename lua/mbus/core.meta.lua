---@meta mbus.core
-- luacheck: ignore 212 241

---What comes out of the core, which is written in C (csrc/lua). Absent fields are nil.
---@class mbus.core
local core = {}

---One frame.
---@class mbus.Frame
---@field kind "frame"
---@field type "ack"|"short"|"control"|"long"
---@field bytes string
---@field c? integer
---@field a? integer
---@field ci? integer
---@field data? string  behind CI

---A data record.
---@class mbus.Record
---@field index integer      from 0, over the whole readout
---@field telegram integer   number of the telegram in the readout, from 0
---@field position integer   from 0, in its telegram
---@field offset integer     of its first byte in the frame
---@field quantity? string   "energy", "volume", ...
---@field unit? string       "Wh", "m3", ...
---@field type "number"|"string"|"date"|"datetime"|"time"|"bytes"|"none"
---@field value? number|string  nil where there is no valid one
---@field text? string       what the meter's display would show, where there is no valid value
---@field function "instantaneous"|"maximum"|"minimum"|"error"
---@field storage integer
---@field tariff integer
---@field subunit integer
---@field modifiers string[]
---@field flags string[]     "bcd_invalid", "date_invalid", ...
---@field error? string      record error
---@field action? string     what a master commands
---@field raw? number        the integer on the wire (a real32: the number), of numbers
---@field exponent? integer  its power of ten
---@field factor? integer    that the raw number is multiplied with: 60, 3600, ... of times
---@field addend? integer    additive correction, in thousandths
---@field final_dife? boolean
---@field hundred_years? boolean
---@field mode2? boolean     most significant byte first
---@field time? string       of records out of a profile
---@field raw_dif_hex string
---@field raw_vif_hex string
---@field raw_data_hex string

---What a record is found by; what is absent may be anything. A name that is none of these raises.
---@class mbus.Query
---@field quantity? string
---@field unit? string
---@field storage? integer
---@field tariff? integer
---@field subunit? integer
---@field function? string
---@field modifiers? string[]  exactly these; {} means none

---A telegram and its header.
---@class mbus.Telegram
---@field type "ack"|"short"|"control"|"long"
---@field c? integer
---@field a? integer
---@field ci? integer
---@field bytes string               the whole frame
---@field header? "none"|"short"|"long"|"fixed"
---@field id? string                 8 hex digits
---@field manufacturer? string       three letters
---@field manufacturer_code? integer
---@field version? integer
---@field medium? integer
---@field medium_name? string
---@field access_no? integer
---@field status? integer
---@field signature? integer         the configuration field
---@field security_mode? integer
---@field secondary_address? string  16 digits
---@field more_records_follow? boolean  DIF 1F
---@field manufacturer_data? string  behind DIF 0F or 1F
---@field error? mbus.Error          why records are missing
---@field application_error? { code: integer, name: string }  of CI 70
---@field alarm_status? integer      of CI 71
---@field application_reset? string  subcode of CI 50 or 53 as hex text, "" without
---@field selection? { id: string, manufacturer_code: integer, version: integer, medium: integer }  of CI 52 or 56
---@field set_baud_rate? integer     of CI B8 to BF
---@field synchronize? boolean       CI 5C or 54
---@field global_readout_request? boolean  DIF 7F
---@field format_signature? integer  of a compact frame
---@field payload? string            all bytes behind the header
local telegram = {}

---@return fun(): integer?, mbus.Record?  position and record, in order
function telegram:records() end

---The records without tables of them.
---@return fun(): ...  position, quantity, value, unit, function, storage, tariff, subunit
function telegram:each() end

---@param position integer
---@return mbus.Record?
function telegram:record(position) end

---@param wanted mbus.Query
---@return mbus.Record? record  the first that fits
function telegram:find(wanted) end

---@param wanted mbus.Query
---@return any value  of the first that fits; nothing if there is none
---@return string? unit
function telegram:value(wanted) end

---@param wanted mbus.Query
---@return integer? position  of the first that fits
function telegram:position(wanted) end

---@param wanted mbus.Query
---@return mbus.Record[] records  all that fit
function telegram:select(wanted) end

---The records that a compact profile packs.
---@param position integer  of the profile
---@return mbus.Record[]? records  each with its `time`
---@return mbus.Error? err
function telegram:profile(position) end

---What compact frames of the same meter leave out.
---@return integer? signature
---@return string|mbus.Error headers_or_err
function telegram:format() end

---@param headers string  of `format`
---@return string? bytes  the full frame that a compact one stands for
---@return mbus.Error? err
function telegram:expand(headers) end

return core
