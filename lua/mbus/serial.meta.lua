---@meta mbus.serial
-- luacheck: ignore 212 241

---Serial ports and pseudo-terminals; nothing in here waits. Written in C, over libserialport.
---What the world can cause is `nil, message, kind`; the message begins with the name of the port. A wrong argument raises.
---@class mbus.serial
local serial = {}

---@alias mbus.serial.Kind
---| "not_found"    # no such port, or nothing behind it
---| "permission"   # the message says which group may use it
---| "busy"         # another program uses it; the message names it where the system tells
---| "invalid"      # not a serial port, or a baud rate that it cannot do
---| "closed"       # closed by us, pulled out, or the other end of a pseudo-terminal has gone
---| "unsupported"  # no pseudo-terminals on this system, or nothing that drives the direction of RS-485
---| "io"           # anything else

---@class mbus.serial.Settings
---@field baudrate? integer                 2400
---@field parity? "even"|"odd"|"none"       "even"
---@field databits? 7|8                     8
---@field stopbits? 1|2                     1
---@field rts? boolean                      level of the line; nil leaves it (opening a port raises both lines)
---@field dtr? boolean                      many converters are powered from RTS or DTR
---@field rs485? "leave"|"on"|"inverted"|"off"  the kernel drives RTS as direction: high ("on") or low while sending; "leave"

---Opens a port for this program alone, and forgets what had been received. Links are followed.
---Characters with a parity or framing error and breaks are kept and counted; nothing is lowered on closing.
---@param path string  "/dev/ttyUSB0", "/dev/serial/by-id/...", "COM3", the far end of a pseudo-terminal
---@param settings? mbus.serial.Settings
---@return mbus.serial.Port? port
---@return string? message
---@return mbus.serial.Kind? kind
function serial.open(path, settings) end

---A new pseudo-terminal. Its far end stays open as long as ours, so that clients may come and go.
---@return mbus.serial.Port? master  our end
---@return string path_or_message    what clients open
---@return mbus.serial.Kind? kind
function serial.pty() end

---@class mbus.serial.Info
---@field name string           "/dev/ttyUSB0", "COM3"
---@field description? string   as the system names it
---@field kind? "native"|"usb"|"bluetooth"
---@field vid? integer          the rest of USB ports alone
---@field pid? integer
---@field manufacturer? string
---@field product? string
---@field serial? string

---The serial ports of this machine; none is opened.
---@return mbus.serial.Info[]? ports
---@return string? message
---@return mbus.serial.Kind? kind
function serial.ports() end

---Closed by `close`, at the end of a `<close>` variable's block, or by the collector.
---@class mbus.serial.Port
local Port = {}

---@param max? integer  1 to 65536, 4096 if absent
---@return string? bytes  "" when nothing waits
---@return integer|string line_errors_or_message  damaged characters and breaks (00) among the bytes
---@return mbus.serial.Kind? kind
function Port:read(max) end

---@param bytes string  up to 65536
---@return integer? count  how many the system took; 0 when its buffer is full
---@return string? message
---@return mbus.serial.Kind? kind
function Port:write(bytes) end

---Throws away what has been received and not read.
---@return boolean? ok
---@return string? message
---@return mbus.serial.Kind? kind
function Port:flush() end

---@param baudrate integer
---@return boolean? ok
---@return string? message
---@return mbus.serial.Kind? kind
function Port:set_baudrate(baudrate) end

---@return integer? fd  to wait on with poll; nil on Windows and when closed
function Port:fd() end

---@return string name  as given to `open`
function Port:name() end

---May be called twice.
function Port:close() end

return serial
