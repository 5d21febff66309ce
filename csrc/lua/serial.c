/* serial.c - module mbus.serial: serial ports and pseudo-terminals, never blocking.
 *
 *   local serial = require "mbus.serial"
 *   local port, message, kind = serial.open("/dev/ttyUSB0", { baudrate = 2400, parity = "even", databits = 8,
 *                                                             stopbits = 1, rts = true, dtr = nil, rs485 = nil })
 *   local bytes, line_errors = port:read(max)     "" when nothing waits; nil, message, kind
 *   local count = port:write(bytes)               how many were taken; nil, message, kind
 *   port:flush()                                  throws away what was received and not read
 *   port:set_baudrate(9600)
 *   port:fd()                                     for poll; nil on Windows
 *   port:name()
 *   port:close()                                  also __close and __gc; may be called twice
 *   local master, path = serial.pty()             a pseudo-terminal: our end, and the name of the other
 *   for _, port in ipairs(serial.ports()) do print(port.name, port.vid, port.pid, port.serial) end
 *
 * kind: not_found permission busy io invalid closed unsupported. libserialport opens and configures real ports.
 * What it cannot do (marking of line errors, locking, RS-485 direction, pseudo-terminals) is in the one POSIX part below.
 */
#if !defined _WIN32 && !defined _GNU_SOURCE
#define _GNU_SOURCE 1 /* CRTSCTS, flock, posix_openpt under -std=c99 */
#endif
#if !defined _WIN32 && !defined _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE 1 /* the same on macOS */
#endif

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <libserialport.h>

#include "lua.h"
#include "lauxlib.h"

#define PORT "mbus.serial.port"
#define LIST "mbus.serial.list"
#define NAME_MAX_LENGTH 4096

typedef struct port {
    struct sp_port *sp;   /* libserialport's part of a real port, else NULL */
    int fd;               /* what is read and written; -1 on Windows */
    int hold;             /* second descriptor: a real port's until it is open, a pseudo-terminal's far end; or -1 */
    bool open;            /* false: nothing to release */
    bool pty;             /* the far end of a pseudo-terminal, which libserialport refuses */
    bool marked;          /* the driver escapes FF and marks damaged characters (PARMRK) */
    unsigned char escape; /* how much of FF 00 x has been seen: 0, 1, 2 */
} port;

/* Who drives the direction of an RS-485 transceiver: as it is, nobody, RTS (high while sending), RTS (low while sending) */
enum rs485 { RS485_LEAVE, RS485_OFF, RS485_ON, RS485_INVERTED };

typedef struct settings {
    int baudrate, databits, stopbits;
    enum sp_parity parity;
    enum sp_rts rts;
    enum sp_dtr dtr;
    enum rs485 rs485;
} settings;

/* Why something failed: collected in C, turned into Lua values when nothing is left to release. */
typedef struct problem {
    const char *kind;
    char text[256];
} problem;

static bool fail(problem *why, const char *kind, const char *text)
{
    why->kind = kind;
    snprintf(why->text, sizeof why->text, "%s", text);
    return false;
}

/* ---------------------------------------------------------------- the system's part: Windows, else POSIX */

#ifdef _WIN32

static const char *sys_kind(int code)
{
    switch (code) {
    case 2:
    case 3: return "not_found"; /* ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND */
    case 5:
    case 32: return "busy"; /* ERROR_ACCESS_DENIED is what a port in use answers; ERROR_SHARING_VIOLATION */
    default: return "io";
    }
}

static bool sys_claim(port *p, const char *path, char real[NAME_MAX_LENGTH], problem *why)
{
    (void)p, (void)why;
    snprintf(real, NAME_MAX_LENGTH, "%s", path); /* CreateFile gives a port to one program only */
    return true;
}

static bool sys_open_pty(port *p, const settings *s, problem *why)
{
    (void)p, (void)s;
    return fail(why, "unsupported", "this system has no pseudo-terminals");
}

static void sys_yield(const port *p)
{
    (void)p;
}

static bool sys_adopt(port *p, problem *why)
{
    (void)p, (void)why;
    return true;
}

static bool sys_mark(port *p, int baudrate, problem *why)
{
    (void)p, (void)baudrate, (void)why;
    return true;
}

static bool sys_exclusive(port *p, problem *why)
{
    (void)p, (void)why;
    return true;
}

static bool sys_rs485(port *p, enum rs485 mode, problem *why)
{
    (void)p, (void)mode;
    return fail(why, "unsupported", "this system does not drive the direction of RS-485");
}

static bool sys_pty_baudrate(port *p, int baudrate, problem *why)
{
    (void)p, (void)baudrate;
    return fail(why, "unsupported", "this system has no pseudo-terminals");
}

static bool sys_master(port *p, char path[NAME_MAX_LENGTH], problem *why)
{
    (void)p, (void)path;
    return fail(why, "unsupported", "this system has no pseudo-terminals");
}

static int sys_read(port *p, void *bytes, size_t max, problem *why)
{
    int got = (int)sp_nonblocking_read(p->sp, bytes, max);
    if (got < 0) fail(why, "closed", "the device is gone");
    return got;
}

static int sys_write(port *p, const void *bytes, size_t count, problem *why)
{
    int done = (int)sp_nonblocking_write(p->sp, bytes, count);
    if (done < 0) fail(why, "closed", "the device is gone");
    return done;
}

static bool sys_flush(port *p, problem *why)
{
    return sp_flush(p->sp, SP_BUF_INPUT) == SP_OK || fail(why, "io", "the received bytes cannot be discarded");
}

static void sys_close(port *p)
{
    (void)p;
}

#else

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#ifdef __linux__
#include <ctype.h>
#include <dirent.h>
#include <linux/serial.h>
#include <sys/sysmacros.h>
#endif

static const struct {
    int baudrate;
    speed_t speed;
} speeds[] = {
    {300, B300},   {600, B600},   {1200, B1200},   {2400, B2400},
    {4800, B4800}, {9600, B9600}, {19200, B19200}, {38400, B38400},
};

static const char *sys_kind(int code)
{
    switch (code) {
    case ENOENT:
    case ENOTDIR:
    case ENXIO:
    case ENODEV: return "not_found";
    case EACCES:
    case EPERM: return "permission";
    case EWOULDBLOCK: /* libserialport did not get its lock */
    case EBUSY: return "busy";
    default: return "io";
    }
}

static bool sys_fail(problem *why, const char *doing)
{
    int code = errno;
    why->kind = sys_kind(code);
    snprintf(why->text, sizeof why->text, "%s: %s", doing, strerror(code));
    return false;
}

/* An error while reading or writing: when the adapter was pulled out or the other end went, the port is closed. */
static int sys_lost(problem *why, int code)
{
    if (code == EAGAIN || code == EWOULDBLOCK || code == EINTR) return 0;
    why->kind =
        code == 0 || code == EIO || code == ENXIO || code == ENODEV || code == EPIPE || code == EBADF ? "closed" : "io";
    snprintf(why->text, sizeof why->text, "the device is gone (%s)", code ? strerror(code) : "hang-up");
    return -1;
}

/* Names what gives access: on most systems that is membership in the device's group. */
static bool sys_denied(const char *path, problem *why)
{
    struct stat st;
    const struct group *group = NULL;
    why->kind = "permission";
    if (stat(path, &st) == 0 && (st.st_mode & S_IRGRP) && (st.st_mode & S_IWGRP)) group = getgrgid(st.st_gid);
    if (group)
        snprintf(
            why->text, sizeof why->text,
            "permission denied; members of the group \"%s\" may use it (sudo usermod -aG %s USER, then log in again)",
            group->gr_name, group->gr_name);
    else
        snprintf(why->text, sizeof why->text, "permission denied; only its owner may use it");
    return false;
}

#ifdef __linux__

static bool same_device(const char *path, const struct stat *device)
{
    struct stat st;
    return stat(path, &st) == 0 && st.st_dev == device->st_dev && st.st_ino == device->st_ino;
}

/* The process with a lock on the port, as flock sets it; 0 if the system does not tell. */
static long lock_holder(const struct stat *device)
{
    char line[256];
    long pid = 0;
    FILE *locks = fopen("/proc/locks", "re");
    if (!locks) return 0;
    while (pid == 0 && fgets(line, sizeof line, locks)) {
        unsigned int high, low;
        unsigned long long inode;
        long holder; /* "1: FLOCK  ADVISORY  WRITE 1234 00:18:5 0 EOF" */
        /* NOLINTNEXTLINE(cert-err34-c): the kernel writes these numbers */
        if (sscanf(line, "%*s FLOCK %*s %*s %ld %x:%x:%llu", &holder, &high, &low, &inode) == 4 && holder > 0 &&
            inode == device->st_ino && makedev(high, low) == device->st_dev)
            pid = holder;
    }
    fclose(locks);
    return pid;
}

static bool has_open(const char *pid, const struct stat *device)
{
    char path[64 + sizeof((struct dirent *)0)->d_name * 2];
    bool found = false;
    const struct dirent *entry;
    DIR *fds;
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    fds = opendir(path);
    while (fds && !found && (entry = readdir(fds))) {
        snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
        found = entry->d_name[0] != '.' && same_device(path, device);
    }
    if (fds) closedir(fds);
    return found;
}

/* The first other process that has the port open, of those that we may look into; else 0. */
static long open_holder(const struct stat *device)
{
    long pid = 0;
    const struct dirent *entry;
    DIR *proc = opendir("/proc");
    while (proc && pid == 0 && (entry = readdir(proc))) {
        if (!isdigit((unsigned char)entry->d_name[0]) || strtol(entry->d_name, NULL, 10) == (long)getpid()) continue;
        if (has_open(entry->d_name, device)) pid = strtol(entry->d_name, NULL, 10);
    }
    if (proc) closedir(proc);
    return pid;
}

static bool sys_busy(const char *path, bool locked, problem *why)
{
    struct stat st;
    long pid = 0;
    char name[64] = "";
    FILE *comm;
    if (stat(path, &st) == 0) {
        pid = lock_holder(&st);
        if (pid == 0) pid = open_holder(&st);
    }
    if (pid == 0) return fail(why, "busy", locked ? "it is in use already" : "another program uses it");
    if (pid == (long)getpid()) return fail(why, "busy", "this program has it open already");
    snprintf(name, sizeof name, "/proc/%ld/comm", pid);
    comm = fopen(name, "re");
    if (!comm || !fgets(name, sizeof name, comm)) snprintf(name, sizeof name, "another program");
    if (comm) fclose(comm);
    name[strcspn(name, "\n")] = '\0';
    why->kind = "busy";
    snprintf(why->text, sizeof why->text, "%s (process %ld) uses it", name, pid);
    return false;
}

/* The kernel lowers and raises RTS around each transmission; a program would be too late (4.6 ms at 2400 baud). */
static bool sys_rs485(port *p, enum rs485 mode, problem *why)
{
    const unsigned int direction = SER_RS485_ENABLED | SER_RS485_RTS_ON_SEND | SER_RS485_RTS_AFTER_SEND;
    unsigned int asked;
    struct serial_rs485 rs485;
    memset(&rs485, 0, sizeof rs485);
    if (mode == RS485_ON) rs485.flags = SER_RS485_ENABLED | SER_RS485_RTS_ON_SEND;
    if (mode == RS485_INVERTED) rs485.flags = SER_RS485_ENABLED | SER_RS485_RTS_AFTER_SEND;
    asked = rs485.flags;
    if (ioctl(p->fd, TIOCSRS485, &rs485) != 0)
        return fail(why, "unsupported", "the driver of this port does not drive the direction of RS-485");
    /* A driver that cannot do what was asked does the opposite, and says so. */
    return (rs485.flags & direction) == asked ||
           fail(why, "unsupported", "the driver of this port does not drive the direction of RS-485 this way");
}

#else

static bool sys_busy(const char *path, bool locked, problem *why)
{
    (void)path, (void)locked;
    return fail(why, "busy", "another program uses it");
}

static bool sys_rs485(port *p, enum rs485 mode, problem *why)
{
    (void)p, (void)mode;
    return fail(why, "unsupported", "this system does not drive the direction of RS-485");
}

#endif

static bool sys_is_pty(int fd, const char *path)
{
#ifdef __linux__
    struct stat st; /* Unix98 pseudo-terminals, wherever they are mounted */
    if (fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && major(st.st_rdev) >= 136 && major(st.st_rdev) <= 143) return true;
#endif
    (void)fd;
    if (strncmp(path, "/dev/pts/", 9) == 0) return true;
    return strncmp(path, "/dev/ttys", 9) == 0 && strspn(path + 9, "0123456789") == 3 && strlen(path) == 12; /* macOS */
}

/* Resolves links, opens a first descriptor and locks it: before anything is changed on a port that another master uses.
 */
static bool sys_claim(port *p, const char *path, char real[NAME_MAX_LENGTH], problem *why)
{
    char *resolved = realpath(path, NULL);
    if (!resolved) return errno == EACCES ? sys_denied(path, why) : sys_fail(why, "no such port");
    snprintf(real, NAME_MAX_LENGTH, "%s", resolved);
    free(resolved);
    p->hold = open(real, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (p->hold < 0) {
        switch (errno) {
        case EACCES:
        case EPERM: return sys_denied(real, why);
        case EISDIR: return fail(why, "invalid", "not a serial port, but a folder");
        case EBUSY: return sys_busy(real, false, why);
        default: return sys_fail(why, "cannot be opened");
        }
    }
    p->open = true;
    if (!isatty(p->hold)) /* EIO: a name that the kernel keeps for a port that the machine does not have */
        return errno == EIO ? fail(why, "not_found", "no device behind this name")
                            : fail(why, "invalid", "not a serial port");
    if (flock(p->hold, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) /* not every system can lock a device */
        return sys_busy(real, true, why);
    p->pty = sys_is_pty(p->hold, real);
    return true;
}

/* Every error must reach us: a damaged character or a break (FF 00 x) is how a collision looks. libserialport sets
 * IGNPAR without parity, HUPCL always, and VMIN 0, which makes a hang-up look like silence; so this comes after it. */
static void sys_mark_flags(struct termios *t)
{
    t->c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | IGNPAR | ISTRIP | INLCR | IGNCR | ICRNL | IXON | IXOFF | IXANY);
    t->c_iflag |= (tcflag_t)(INPCK | PARMRK);
    t->c_cflag &= ~(tcflag_t)(HUPCL | CRTSCTS); /* HUPCL would cut the power of a converter fed from DTR */
    t->c_cflag |= (tcflag_t)(CLOCAL | CREAD);
    t->c_cc[VMIN] = 1;
    t->c_cc[VTIME] = 0;
}

static bool sys_apply(port *p, const struct termios *t, problem *why)
{
    struct termios now;
    /* A pseudo-terminal has no parity, which glibc reports as EINVAL after all the rest has been set. */
    if (tcsetattr(p->fd, TCSANOW, t) != 0 && !(p->pty && errno == EINVAL)) return sys_fail(why, "cannot be configured");
    if (tcgetattr(p->fd, &now) != 0) return sys_fail(why, "cannot be configured");
    p->marked = (now.c_iflag & PARMRK) != 0;
    /* A driver that cannot do a speed takes another one, without an error. */
    return cfgetospeed(&now) == cfgetospeed(t) ||
           fail(why, "unsupported", "the driver of this port sets another baud rate");
}

static bool sys_speed(struct termios *t, int baudrate, problem *why)
{
    for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++)
        if (speeds[i].baudrate == baudrate)
            return (cfsetispeed(t, speeds[i].speed) == 0 && cfsetospeed(t, speeds[i].speed) == 0) ||
                   sys_fail(why, "baud rate");
    return fail(why, "invalid", "baud rate not supported");
}

static bool sys_mark(port *p, int baudrate, problem *why)
{
    struct termios t;
    if (tcgetattr(p->fd, &t) != 0) return sys_fail(why, "cannot be configured");
    sys_mark_flags(&t);
    return sys_speed(&t, baudrate, why) && sys_apply(p, &t, why);
}

/* What libserialport does for a real port, for a pseudo-terminal. */
static bool sys_open_pty(port *p, const settings *s, problem *why)
{
    struct termios t;
    p->fd = p->hold;
    p->hold = -1;
    if (tcgetattr(p->fd, &t) != 0) return sys_fail(why, "cannot be configured");
    cfmakeraw(&t);
    t.c_cflag &= ~(tcflag_t)(CSIZE | CSTOPB | PARENB | PARODD);
    t.c_cflag |= (tcflag_t)(s->databits == 7 ? CS7 : CS8);
    if (s->stopbits == 2) t.c_cflag |= (tcflag_t)CSTOPB;
    if (s->parity != SP_PARITY_NONE) t.c_cflag |= (tcflag_t)PARENB;
    if (s->parity == SP_PARITY_ODD) t.c_cflag |= (tcflag_t)PARODD;
    sys_mark_flags(&t);
    return sys_speed(&t, s->baudrate, why) && sys_apply(p, &t, why);
}

static bool sys_pty_baudrate(port *p, int baudrate, problem *why)
{
    struct termios t;
    if (tcgetattr(p->fd, &t) != 0) return sys_fail(why, "cannot be configured");
    return sys_speed(&t, baudrate, why) && sys_apply(p, &t, why);
}

/* Later versions of libserialport than 0.1.1 lock the descriptor that they open, which a lock of ours would prevent. */
static void sys_yield(const port *p)
{
    flock(p->hold, LOCK_UN);
}

/* Takes over the descriptor that libserialport opened, with the lock. It cannot switch off RTS/CTS flow control that
 * another program left on while it sets RTS, so that is done here, before. */
static bool sys_adopt(port *p, problem *why)
{
    struct termios t;
    if (sp_get_port_handle(p->sp, &p->fd) != SP_OK) return fail(why, "io", "no descriptor");
    if (flock(p->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return sys_busy(sp_get_port_name(p->sp), true, why);
    close(p->hold);
    p->hold = -1;
    fcntl(p->fd, F_SETFD, FD_CLOEXEC);
    if (tcgetattr(p->fd, &t) != 0) return sys_fail(why, "cannot be configured");
    t.c_cflag &= ~(tcflag_t)(HUPCL | CRTSCTS);
    return tcsetattr(p->fd, TCSANOW, &t) == 0 || sys_fail(why, "cannot be configured");
}

/* flock keeps other masters away; TIOCEXCL everybody but root. On a pseudo-terminal, whose other end may outlive us,
 * it would outlive us as well. */
static bool sys_exclusive(port *p, problem *why)
{
    if (!p->pty && ioctl(p->fd, TIOCEXCL) != 0) return sys_fail(why, "cannot be locked");
    tcflush(p->fd, TCIFLUSH);
    return true;
}

/* Our end of a pseudo-terminal. The other end is held open too: else reading fails whenever no client is there. */
static bool sys_master(port *p, char path[NAME_MAX_LENGTH], problem *why)
{
    struct termios t;
    const char *slave;
    p->open = true;
    p->fd = posix_openpt(O_RDWR | O_NOCTTY);
    if (p->fd < 0 || grantpt(p->fd) != 0 || unlockpt(p->fd) != 0 || !(slave = ptsname(p->fd)))
        return sys_fail(why, "no pseudo-terminal");
    snprintf(path, NAME_MAX_LENGTH, "%s", slave);
    fcntl(p->fd, F_SETFD, FD_CLOEXEC);
    fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK);
    p->hold = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (p->hold < 0 || tcgetattr(p->hold, &t) != 0) return sys_fail(why, "no pseudo-terminal");
    cfmakeraw(&t);
    return tcsetattr(p->hold, TCSANOW, &t) == 0 || sys_fail(why, "no pseudo-terminal");
}

static int sys_read(port *p, void *bytes, size_t max, problem *why)
{
    ssize_t got = read(p->fd, bytes, max);
    if (got > 0) return (int)got;
    return sys_lost(why, got < 0 ? errno : 0);
}

static int sys_write(port *p, const void *bytes, size_t count, problem *why)
{
    ssize_t done = write(p->fd, bytes, count);
    return done >= 0 ? (int)done : sys_lost(why, errno);
}

static bool sys_flush(port *p, problem *why)
{
    return tcflush(p->fd, TCIFLUSH) == 0 || sys_fail(why, "the received bytes cannot be discarded");
}

static void sys_close(port *p)
{
    if (p->fd >= 0 && !p->sp) close(p->fd);
    if (p->hold >= 0) close(p->hold);
    p->fd = p->hold = -1;
}

#endif

/* ---------------------------------------------------------------- libserialport */

static bool sp_fail(problem *why, enum sp_return result, const char *doing)
{
    if (result == SP_ERR_FAIL) {
        int code = sp_last_error_code();
        char *message = sp_last_error_message();
        why->kind = sys_kind(code);
        snprintf(why->text, sizeof why->text, "%s: %s", doing, message ? message : "unknown error");
        sp_free_error_message(message);
        return false;
    }
    why->kind = result == SP_ERR_MEM ? "io" : "invalid";
    snprintf(why->text, sizeof why->text, "%s: %s", doing,
             result == SP_ERR_MEM    ? "out of memory"
             : result == SP_ERR_SUPP ? "not supported"
                                     : "not a serial port");
    return false;
}

static bool sp_configure(port *p, const settings *s, problem *why)
{
    struct sp_port_config *config;
    enum sp_return result = sp_new_config(&config);
    if (result != SP_OK) return sp_fail(why, result, "cannot be configured");
    if ((result = sp_set_config_baudrate(config, s->baudrate)) == SP_OK &&
        (result = sp_set_config_bits(config, s->databits)) == SP_OK &&
        (result = sp_set_config_parity(config, s->parity)) == SP_OK &&
        (result = sp_set_config_stopbits(config, s->stopbits)) == SP_OK &&
        (result = sp_set_config_flowcontrol(config, SP_FLOWCONTROL_NONE)) == SP_OK &&
        (result = sp_set_config_rts(config, s->rts)) == SP_OK && (result = sp_set_config_dtr(config, s->dtr)) == SP_OK)
        result = sp_set_config(p->sp, config);
    if (result != SP_OK) sp_fail(why, result, "cannot be configured"); /* before the error is lost */
    sp_free_config(config);
    return result == SP_OK;
}

static bool open_real(port *p, const char *name, const settings *s, problem *why)
{
    enum sp_return result = sp_get_port_by_name(name, &p->sp);
    p->open = true;
    if (result != SP_OK) {
        p->sp = NULL;
        return sp_fail(why, result, "no such port");
    }
    sys_yield(p);
    if ((result = sp_open(p->sp, SP_MODE_READ_WRITE)) != SP_OK) return sp_fail(why, result, "cannot be opened");
    return sys_adopt(p, why) && sp_configure(p, s, why) && sys_mark(p, s->baudrate, why);
}

static bool open_port(port *p, const char *path, const settings *s, problem *why)
{
    char real[NAME_MAX_LENGTH];
    if (!sys_claim(p, path, real, why)) return false;
    if (!(p->pty ? sys_open_pty(p, s, why) : open_real(p, real, s, why))) return false;
    if (s->rs485 != RS485_LEAVE && !sys_rs485(p, s->rs485, why)) return false;
    return sys_exclusive(p, why);
}

static void close_port(port *p)
{
    if (!p->open) return;
    p->open = false;
    sys_close(p); /* leaves libserialport's descriptor alone */
    if (p->sp) {
        sp_close(p->sp);
        sp_free_port(p->sp);
        p->sp = NULL;
    }
}

/* ---------------------------------------------------------------- line errors */

/* Undoes PARMRK in place: FF FF is FF, FF 00 x is a damaged character x (a break: 00). Never longer than before.
 * The state is kept in the port since a read may end anywhere. */
static size_t unescape(port *p, unsigned char *bytes, size_t count, lua_Integer *errors)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned char c = bytes[i];
        if (p->escape == 0 && c == 0xFF) {
            p->escape = 1;
        } else if (p->escape == 1 && c == 0x00) {
            p->escape = 2;
        } else {
            if (p->escape == 2 || (p->escape == 1 && c != 0xFF)) ++*errors;
            p->escape = 0;
            bytes[kept++] = c;
        }
    }
    return kept;
}

/* ---------------------------------------------------------------- Lua */

static port *new_port(lua_State *L)
{
    port *p = lua_newuserdatauv(L, sizeof *p, 1); /* user value: the name */
    *p = (port){.sp = NULL, .fd = -1, .hold = -1};
    luaL_setmetatable(L, PORT); /* closed, so __gc is safe from here on */
    return p;
}

static port *check_port(lua_State *L)
{
    return luaL_checkudata(L, 1, PORT);
}

/* nil, "name: text", kind; the name is at the given index. */
static int push_problem(lua_State *L, int name, const problem *why)
{
    name = lua_absindex(L, name);
    luaL_pushfail(L);
    lua_pushfstring(L, "%s: %s", lua_tostring(L, name), why->text);
    lua_pushstring(L, why->kind);
    return 3;
}

static int push_port_problem(lua_State *L, const problem *why)
{
    lua_getiuservalue(L, 1, 1);
    return push_problem(L, -1, why);
}

static int push_closed(lua_State *L)
{
    problem why;
    fail(&why, "closed", "the port is closed");
    return push_port_problem(L, &why);
}

static int integer_field(lua_State *L, const char *name, int standard)
{
    lua_Integer value = standard;
    int is_integer = 1;
    if (lua_getfield(L, 2, name) != LUA_TNIL) value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer || value < 0 || value > 1000000) luaL_error(L, "bad option '%s'", name);
    lua_pop(L, 1);
    return (int)value;
}

/* 1, 0, or -1 when the level is to be left as it is */
static int level_field(lua_State *L, const char *name)
{
    int level = -1, type = lua_getfield(L, 2, name);
    if (type == LUA_TBOOLEAN)
        level = lua_toboolean(L, -1);
    else if (type != LUA_TNIL)
        luaL_error(L, "bad option '%s' (boolean or nil expected)", name);
    lua_pop(L, 1);
    return level;
}

/* which of the names it is, else the standard one */
static int choice_field(lua_State *L, const char *name, const char *const names[], int standard)
{
    const char *text;
    if (lua_getfield(L, 2, name) == LUA_TNIL) lua_pushstring(L, names[standard]);
    text = lua_tostring(L, -1);
    for (int i = 0; text && names[i]; i++) {
        if (strcmp(text, names[i]) != 0) continue;
        lua_settop(L, 2);
        return i;
    }
    return luaL_error(L, "bad option '%s'", name);
}

static void check_settings(lua_State *L, settings *s)
{
    static const char *const parities[] = {"none", "odd", "even", NULL}; /* in the order of enum sp_parity */
    static const char *const directions[] = {"leave", "off", "on", "inverted", NULL}; /* in the order of enum rs485 */
    lua_settop(L, 2);
    if (lua_isnil(L, 2)) {
        lua_settop(L, 1);
        lua_newtable(L);
    }
    luaL_checktype(L, 2, LUA_TTABLE);
    s->baudrate = integer_field(L, "baudrate", 2400);
    s->databits = integer_field(L, "databits", 8);
    s->stopbits = integer_field(L, "stopbits", 1);
    s->parity = (enum sp_parity)choice_field(L, "parity", parities, SP_PARITY_EVEN);
    s->rts = (enum sp_rts)level_field(L, "rts");
    s->dtr = (enum sp_dtr)level_field(L, "dtr");
    s->rs485 = (enum rs485)choice_field(L, "rs485", directions, RS485_LEAVE);
    if (s->databits != 7 && s->databits != 8) luaL_error(L, "bad option 'databits' (7 or 8 expected)");
    if (s->stopbits != 1 && s->stopbits != 2) luaL_error(L, "bad option 'stopbits' (1 or 2 expected)");
}

static int serial_open(lua_State *L)
{
    settings s;
    problem why;
    const char *path = luaL_checkstring(L, 1);
    port *p;
    check_settings(L, &s);
    p = new_port(L);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    if (open_port(p, path, &s, &why)) return 1;
    close_port(p);
    return push_problem(L, 1, &why);
}

static int serial_pty(lua_State *L)
{
    char path[NAME_MAX_LENGTH];
    problem why;
    port *p = new_port(L);
    if (!sys_master(p, path, &why)) {
        close_port(p);
        lua_pushliteral(L, "pty");
        return push_problem(L, -1, &why);
    }
    lua_pushstring(L, path);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, -3, 1);
    return 2;
}

/* ---------------------------------------------------------------- what ports there are */

static int list_free(lua_State *L)
{
    struct sp_port ***list = luaL_checkudata(L, 1, LIST);
    if (*list) sp_free_port_list(*list);
    *list = NULL;
    return 0;
}

static void text_field(lua_State *L, const char *name, const char *text)
{
    if (!text || !*text) return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, name);
}

static void push_port_info(lua_State *L, const struct sp_port *sp)
{
    static const char *const kinds[] = {"native", "usb", "bluetooth"}; /* in the order of enum sp_transport */
    enum sp_transport kind = sp_get_port_transport(sp);
    int vid, pid;
    lua_createtable(L, 0, 8);
    text_field(L, "name", sp_get_port_name(sp));
    text_field(L, "description", sp_get_port_description(sp));
    if (kind >= SP_TRANSPORT_NATIVE && kind <= SP_TRANSPORT_BLUETOOTH) text_field(L, "kind", kinds[kind]);
    if (kind != SP_TRANSPORT_USB) return;
    text_field(L, "manufacturer", sp_get_port_usb_manufacturer(sp));
    text_field(L, "product", sp_get_port_usb_product(sp));
    text_field(L, "serial", sp_get_port_usb_serial(sp));
    if (sp_get_port_usb_vid_pid(sp, &vid, &pid) != SP_OK) return;
    lua_pushinteger(L, vid);
    lua_setfield(L, -2, "vid");
    lua_pushinteger(L, pid);
    lua_setfield(L, -2, "pid");
}

static int serial_ports(lua_State *L)
{
    struct sp_port ***list = lua_newuserdatauv(L, sizeof *list, 0);
    enum sp_return result;
    *list = NULL;
    luaL_setmetatable(L, LIST); /* frees the list even if memory runs out below */
    result = sp_list_ports(list);
    if (result == SP_OK && !*list) result = SP_ERR_MEM; /* libserialport 0.1.1 says OK when it has run out of it */
    if (result != SP_OK) {
        problem why;
        *list = NULL;
        sp_fail(&why, result, "the ports cannot be listed");
        luaL_pushfail(L);
        lua_pushstring(L, why.text);
        lua_pushstring(L, why.kind);
        return 3;
    }
    lua_newtable(L);
    for (lua_Integer i = 0; (*list)[i]; i++) {
        push_port_info(L, (*list)[i]);
        lua_rawseti(L, -2, i + 1);
    }
    sp_free_port_list(*list);
    *list = NULL;
    return 1;
}

/* ---------------------------------------------------------------- an open port */

static int port_read(lua_State *L)
{
    port *p = check_port(L);
    lua_Integer max = luaL_optinteger(L, 2, 4096), errors = 0;
    size_t kept = 0;
    problem why;
    luaL_Buffer buffer;
    char *bytes;
    luaL_argcheck(L, max >= 1 && max <= 65536, 2, "1 to 65536 expected");
    if (!p->open) return push_closed(L);
    bytes = luaL_buffinitsize(L, &buffer, (size_t)max);
    while (kept == 0) { /* a read may have brought no more than the beginning of an escape */
        int got = sys_read(p, bytes, (size_t)max, &why);
        if (got < 0) return push_port_problem(L, &why);
        if (got == 0) break;
        kept = p->marked ? unescape(p, (unsigned char *)bytes, (size_t)got, &errors) : (size_t)got;
    }
    luaL_pushresultsize(&buffer, kept);
    lua_pushinteger(L, errors);
    return 2;
}

static int port_write(lua_State *L)
{
    port *p = check_port(L);
    size_t count;
    const char *bytes = luaL_checklstring(L, 2, &count);
    problem why;
    int done;
    luaL_argcheck(L, count <= 65536, 2, "too long");
    if (!p->open) return push_closed(L);
    done = count ? sys_write(p, bytes, count, &why) : 0;
    if (done < 0) return push_port_problem(L, &why);
    lua_pushinteger(L, done);
    return 1;
}

static int port_flush(lua_State *L)
{
    port *p = check_port(L);
    problem why;
    if (!p->open) return push_closed(L);
    p->escape = 0;
    if (!sys_flush(p, &why)) return push_port_problem(L, &why);
    lua_pushboolean(L, true);
    return 1;
}

static int port_set_baudrate(lua_State *L)
{
    port *p = check_port(L);
    lua_Integer baudrate = luaL_checkinteger(L, 2);
    problem why;
    enum sp_return result;
    luaL_argcheck(L, baudrate >= 1 && baudrate <= 1000000, 2, "baud rate out of range");
    if (!p->open) return push_closed(L);
    if (p->sp) {
        result = sp_set_baudrate(p->sp, (int)baudrate);
        if (result != SP_OK) {
            sp_fail(&why, result, "baud rate");
            return push_port_problem(L, &why);
        }
        /* libserialport changed the flags again */
        if (!sys_mark(p, (int)baudrate, &why)) return push_port_problem(L, &why);
    } else if (p->pty && !sys_pty_baudrate(p, (int)baudrate, &why)) {
        return push_port_problem(L, &why);
    }
    lua_pushboolean(L, true);
    return 1;
}

static int port_fd(lua_State *L)
{
    const port *p = check_port(L);
    if (p->fd < 0) return luaL_pushfail(L), 1;
    lua_pushinteger(L, p->fd);
    return 1;
}

static int port_name(lua_State *L)
{
    check_port(L);
    lua_getiuservalue(L, 1, 1);
    return 1;
}

static int port_close(lua_State *L)
{
    close_port(check_port(L));
    return 0;
}

static int port_tostring(lua_State *L)
{
    const port *p = check_port(L);
    lua_getiuservalue(L, 1, 1);
    lua_pushfstring(L, "serial port (%s%s)", luaL_tolstring(L, -1, NULL), p->open ? "" : ", closed");
    return 1;
}

static const luaL_Reg methods[] = {
    {"read", port_read}, {"write", port_write}, {"flush", port_flush}, {"set_baudrate", port_set_baudrate},
    {"fd", port_fd},     {"name", port_name},   {"close", port_close}, {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", port_close},
    {"__close", port_close},
    {"__tostring", port_tostring},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"open", serial_open},
    {"pty", serial_pty},
    {"ports", serial_ports},
    {NULL, NULL},
};

LUAMOD_API int luaopen_mbus_serial(lua_State *L);

LUAMOD_API int luaopen_mbus_serial(lua_State *L)
{
    luaL_newmetatable(L, PORT);
    luaL_setfuncs(L, metamethods, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    luaL_newmetatable(L, LIST);
    lua_pushcfunction(L, list_free);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 2);
    luaL_newlib(L, functions);
    return 1;
}
