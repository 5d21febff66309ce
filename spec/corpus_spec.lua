-- Every telegram of the corpus beside the clone, compared with what a correct decoder reports (its FORMAT.md).
local core = require "mbus.core"
local json = require "dkjson"

local CORPUS = "../shared/corpus/"

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

--- Names of the telegrams in one folder, from the index.
local function names(folder)
  local list = {}
  for line in io.lines(CORPUS .. "index.csv") do
    local name, where = line:match "^([^,]+),([^,]+),"
    if where == folder then list[#list + 1] = name end
  end
  return list
end

local function has(list, item)
  for _, entry in ipairs(list) do
    if entry == item then return true end
  end
  return false
end

local function same_number(a, b)
  if a == b then return true end
  if math.type(a) == nil or math.type(b) == nil then return false end
  return math.abs(a - b) <= 1e-12 * math.max(math.abs(a), math.abs(b)) -- the files hold 15 digits or so
end

--- Is this value one that FORMAT.md does not compare?
local function is_lenient(want)
  return want.error or has(want.flags, "address_block") or has(want.flags, "data_field_mismatch")
end

local function same_value(got, want)
  if is_lenient(want) then return true end
  if want.type == "bytes" then return true end -- raw_data_hex decides
  if want.value == json.null or want.value == nil then return got.value == nil end
  if got.value == nil then return has(want.flags, "time_invalid") or has(want.flags, "value_invalid") end
  if want.type == "number" then return same_number(got.value, want.value) end
  return got.value == want.value
end

local COMPARED = { "function", "storage", "tariff", "subunit", "quantity", "unit", "type", "error", "action", "raw_dif_hex",
  "raw_vif_hex", "raw_data_hex" }

local function differences(got, want, where, list)
  for _, key in ipairs(COMPARED) do
    local expected = want[key]
    if expected == json.null then expected = nil end
    if got[key] ~= expected then list[#list + 1] = ("%s: %s is %s, not %s"):format(where, key, got[key], expected) end
  end
  if table.concat(got.modifiers, " ") ~= table.concat(want.modifiers, " ") then
    list[#list + 1] = ("%s: modifiers are %s, not %s"):format(where, table.concat(got.modifiers, " "), table.concat(want.modifiers, " "))
  end
  for _, flag in ipairs(want.flags) do
    if not has(got.flags, flag) then list[#list + 1] = where .. ": no flag " .. flag end
  end
  for _, flag in ipairs(got.flags) do
    if not has(want.flags, flag) then
      list[#list + 1] = where .. ": a flag " .. flag
    end
  end
  if not same_value(got, want) then
    list[#list + 1] = ("%s: value is %s, not %s"):format(where, got.value, want.value)
  end
end

local HEADER = { type = "header", id = "id", manufacturer = "manufacturer", version = "version", medium = "medium",
  access_no = "access_no", status = "status", signature = "signature" }

local function check_header(telegram, want, list)
  for key, field in pairs(HEADER) do
    local expected = want[key]
    if expected == json.null then expected = nil end
    if telegram[field] ~= expected then
      list[#list + 1] = ("header %s is %s, not %s"):format(key, telegram[field], expected)
    end
  end
end

--- What differs between a telegram and its expected values, as lines of text.
local function compare(bytes, want)
  local list = {}
  local telegram, err = core.telegram(bytes)
  if want.frame == nil then
    if telegram then list[1] = "accepted" elseif err.code ~= want.error.code then list[1] = "error " .. err.code end
    return list
  end
  if not telegram then return { "refused: " .. err.message } end
  if (telegram.error == nil) ~= want.valid then list[#list + 1] = "error: " .. tostring(telegram.error and telegram.error.message) end
  if not want.valid and telegram.error and telegram.error.code ~= want.error.code then
    list[#list + 1] = "error code " .. telegram.error.code .. ", not " .. want.error.code
  end
  if want.error and want.error.offset and telegram.error and telegram.error.offset ~= want.error.offset then
    list[#list + 1] = ("error at %d, not %d"):format(telegram.error.offset, want.error.offset)
  end
  for _, key in ipairs { "type", "c", "a", "ci" } do
    if telegram[key] ~= want.frame[key] then list[#list + 1] = "frame " .. key end
  end
  if want.header then check_header(telegram, want.header, list) end
  if #telegram ~= #want.records then list[#list + 1] = ("%d records, not %d"):format(#telegram, #want.records) end
  for position, record in telegram:records() do
    if want.records[position + 1] then differences(record, want.records[position + 1], "record " .. position, list) end
  end
  if telegram.more_records_follow ~= want.more_records_follow then list[#list + 1] = "more_records_follow" end
  local data = telegram.manufacturer_data
  if (data and core.hex(data, ""):lower()) ~= want.manufacturer_data_hex then list[#list + 1] = "manufacturer data" end
  for _, key in ipairs { "application_error", "selection", "set_baud_rate", "global_readout_request", "application_reset", "synchronize" } do
    if want[key] ~= nil then
      local ok = pcall(assert.same, want[key], telegram[key])
      if not ok then list[#list + 1] = key end
    end
  end
  return list
end

describe("corpus", function()
  if not read_file(CORPUS .. "index.csv") then
    pending("skipped: there is no " .. CORPUS)
    return
  end

  for _, folder in ipairs { "wired", "errors" } do
    it("has every telegram under " .. folder .. " right", function()
      local wrong, count = {}, 0
      for _, name in ipairs(names(folder)) do
        local bytes = assert(core.unhex(read_file(CORPUS .. folder .. "/" .. name .. ".hex")))
        local want = json.decode(read_file(CORPUS .. folder .. "/" .. name .. ".json"))
        local list = compare(bytes, want)
        count = count + 1
        if #list > 0 then wrong[#wrong + 1] = name .. ": " .. table.concat(list, "; ") end
      end
      print(("corpus: %d of %d telegrams under %s right"):format(count - #wrong, count, folder))
      assert.are.equal("", table.concat(wrong, "\n"))
      assert.is_true(count > 0)
    end)
  end
end)
