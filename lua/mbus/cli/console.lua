---What all commands share at the terminal: results to standard output, everything else to standard error.
local M = {}

---Exit codes of the command.
M.OK, M.INCOMPLETE, M.USAGE, M.NO_BUS = 0, 1, 2, 3

local EPIPE = 32

---@param message any  an error or text for standard error
function M.complain(message) io.stderr:write("mbus: ", tostring(message), "\n") end

local function check(ok, message, errno)
  if ok then return end
  -- A reader that has seen enough, as in `mbus decode … | head`, is no fault worth words.
  if errno ~= EPIPE then M.complain("standard output: " .. tostring(message)) end
  os.exit(M.INCOMPLETE)
end

---Writes a result. Ends the program where nobody reads it any more.
---@param text string
function M.write(text) check(io.stdout:write(text)) end

function M.flush() check(io.stdout:flush()) end

---@return table? uv  luv, if the descriptor is a terminal; without luv none is
local function tty(descriptor)
  local ok, uv = pcall(function() return require("mbus.runtime").luv() end)
  return ok and uv.guess_handle(descriptor) == "tty" and uv or nil
end

---@param descriptor 0|1|2
---@return boolean  a person is at the other end
function M.is_terminal(descriptor) return tty(descriptor) ~= nil end

---How a table may look on standard output: 80 columns and plain, or what the terminal offers.
---@return mbus.format.table.Options
function M.style()
  local uv = tty(1)
  if not uv then return {} end
  local terminal = uv.new_tty(1, false)
  local width = tonumber(os.getenv("COLUMNS")) or terminal:get_winsize()
  require("mbus.runtime").close(terminal)
  return {
    width = width and width >= 40 and math.min(width, 120) or nil,
    colour = not os.getenv("NO_COLOR") and os.getenv("TERM") ~= "dumb",
  }
end

return M
