/* mbus.h - the protocol core of mbus: M-Bus (EN 13757-2, -3, -7) frames and telegrams.
 *
 * C99 without malloc, stdio, clock or globals: the caller owns all memory. Bytes go in, views into them come out;
 * a view is valid as long as the bytes are. Every function returns MBUS_OK (or a count) or a negative mbus_error.
 *
 * Define MBUS_NO_NAMES for a small firmware: what gives or takes a name is left out, codes and enums stay.
 */
#ifndef MBUS_H
#define MBUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ errors */

/* X(name, number, code, kind, text): one list for C, for the codes that scripts compare, and for people. */
#define MBUS_ERRORS(X) \
    X(BAD_START,        -1,  "bad_start",              "framing",     "a frame begins with E5, 10 or 68") \
    X(LENGTH_MISMATCH,  -2,  "length_mismatch",        "framing",     "the two length bytes differ") \
    X(BAD_SECOND_START, -3,  "bad_second_start",       "framing",     "the second start byte is not 68") \
    X(LENGTH_TOO_SMALL, -4,  "length_too_small",       "framing",     "a length below 3 leaves no room for C, A and CI") \
    X(TRUNCATED_FRAME,  -5,  "truncated_frame",        "truncated",   "the frame ends early") \
    X(TRAILING_BYTES,   -6,  "trailing_bytes",         "framing",     "bytes follow the frame") \
    X(BAD_CHECKSUM,     -7,  "bad_checksum",           "checksum",    "the checksum is wrong") \
    X(BAD_STOP,         -8,  "bad_stop",               "framing",     "the frame does not end with 16") \
    X(HEADER_TOO_SHORT, -9,  "header_too_short",       "truncated",   "the telegram ends inside its header") \
    X(FIXED_LENGTH,     -10, "fixed_length",           "truncated",   "a fixed data structure has 16 bytes") \
    X(DIF_END,          -11, "premature_end_of_dif",   "truncated",   "the telegram ends inside a DIF/DIFE chain") \
    X(VIF_END,          -12, "premature_end_of_vif",   "truncated",   "the telegram ends inside a VIF/VIFE chain") \
    X(VAR_VIF_END,      -13, "premature_end_of_var_vif", "truncated", "the telegram ends inside a plain-text unit") \
    X(DATA_END,         -14, "premature_end_of_data",  "truncated",   "the telegram ends inside the data of a record") \
    X(TOO_MANY_DIFE,    -15, "too_many_dife",          "malformed",   "a record has more than 10 DIFE") \
    X(TOO_MANY_VIFE,    -16, "too_many_vife",          "malformed",   "a record has more than 10 VIFE") \
    X(RESERVED_DIF,     -17, "reserved_dif",           "malformed",   "a reserved DIF") \
    X(RESERVED_LVAR,    -18, "reserved_lvar",          "malformed",   "a reserved LVAR, so the length is unknown") \
    X(ENCRYPTED,        -19, "encrypted",              "encrypted",   "the telegram is encrypted") \
    X(UNSUPPORTED_CI,   -20, "unsupported_ci",         "unsupported", "a CI field that carries no records") \
    X(NO_SPACE,         -21, "no_space",               "limit",       "the result does not fit the buffer") \
    X(BAD_VALUE,        -22, "bad_value",              "invalid",     "the value does not fit the field") \
    X(UNKNOWN_FORMAT,   -23, "unknown_format",         "unsupported", "no format frame is known for this compact frame") \
    X(BAD_CRC,          -24, "bad_crc",                "checksum",    "the CRC of the full frame is wrong")

enum {
    MBUS_OK = 0,
#define X(name, number, code, kind, text) MBUS_E_##name = (number),
    MBUS_ERRORS(X)
#undef X
    MBUS_E_LAST = -24
};

#ifndef MBUS_NO_NAMES
const char *mbus_error_code(int error); /* "bad_checksum"; "ok" for 0 */
const char *mbus_error_kind(int error); /* "checksum" */
const char *mbus_error_text(int error); /* a clause for people */
#endif

/* ------------------------------------------------------------------ link layer (EN 13757-2, IEC 60870-5-2 FT1.2) */

enum {
    MBUS_ACK_BYTE = 0xE5,
    MBUS_FRAME_MAX = 261, /* 68 L L 68, L = 255, CS 16 */
    MBUS_DATA_MAX = 252   /* user data after CI */
};

typedef enum mbus_frame_type { MBUS_FRAME_ACK, MBUS_FRAME_SHORT, MBUS_FRAME_CONTROL, MBUS_FRAME_LONG } mbus_frame_type;

typedef struct mbus_frame {
    mbus_frame_type type;
    uint8_t c, a, ci;    /* 0 where the frame has none */
    uint8_t length;      /* bytes of user data after CI */
    const uint8_t *data; /* user data after CI, NULL if none */
    uint16_t size;       /* bytes of the whole frame */
} mbus_frame;

/* Reads exactly one frame from all `n` bytes. `*offset` (may be NULL) tells where an error is. */
int mbus_frame_read(const uint8_t *bytes, size_t n, mbus_frame *frame, size_t *offset);

/* Writes the frame that type, c, a, ci, length and data describe. Returns its size. `out` must not overlap `data`. */
int mbus_frame_write(const mbus_frame *frame, uint8_t *out, size_t capacity);

/* Bytes in, frames out. Zero it to begin. The frames do not depend on how the bytes are cut. A byte that can't begin or
 * continue a frame is dropped alone, so that a false 68 never eats the good frame behind it. */
typedef struct mbus_deframer {
    uint16_t have; /* bytes in buffer */
    uint16_t done; /* bytes of the frame or noise reported last, removed by the next call */
    uint8_t buffer[MBUS_FRAME_MAX];
} mbus_deframer;

typedef enum mbus_event {
    MBUS_MORE,  /* all input is taken, nothing is complete */
    MBUS_FRAME, /* `frame` is a view into the deframer, valid until the next call */
    MBUS_NOISE  /* buffer[0] belongs to no frame */
} mbus_event;

mbus_event mbus_deframe(mbus_deframer *deframer, const uint8_t **bytes, const uint8_t *end, mbus_frame *frame);

/* As above when no more bytes will come: an unfinished candidate is given up byte by byte. MBUS_MORE: it is empty. */
mbus_event mbus_deframe_end(mbus_deframer *deframer, mbus_frame *frame);

/* Size of the frame that the waiting bytes begin, 0 if not known yet. */
unsigned mbus_deframe_needs(const mbus_deframer *deframer);

/* ------------------------------------------------------------------ application layer (EN 13757-3, EN 13757-7) */

typedef enum mbus_header_type { MBUS_HEADER_NONE, MBUS_HEADER_SHORT, MBUS_HEADER_LONG, MBUS_HEADER_FIXED } mbus_header_type;

typedef struct mbus_header {
    mbus_header_type type;
    uint32_t id;           /* 8 BCD digits as hex: 0x12345678 is "12345678"; letters A..F are kept */
    uint16_t manufacturer; /* packed letters, see mbus_manufacturer_letters */
    uint8_t version;
    uint8_t medium; /* device type code; fixed structure: its own 0..15 */
    uint8_t access_number;
    uint8_t status;
    uint16_t configuration; /* "signature" of old: security mode in bits 8..12 */
} mbus_header;

enum { MBUS_LONG_HEADER_SIZE = 12, MBUS_SHORT_HEADER_SIZE = 4 };

/* What follows the header, by CI. */
typedef enum mbus_payload {
    MBUS_PAYLOAD_NONE,        /* frame without CI, or a CI without data */
    MBUS_PAYLOAD_RECORDS,     /* data records */
    MBUS_PAYLOAD_COMMAND,     /* data records from the master: VIFE 00..0F are actions */
    MBUS_PAYLOAD_FIXED,       /* fixed data structure, two counters */
    MBUS_PAYLOAD_ERROR,       /* application error, code in the first byte */
    MBUS_PAYLOAD_ALARM,       /* alarm status in the first byte */
    MBUS_PAYLOAD_RESET,       /* application reset, subcode in the first byte if any */
    MBUS_PAYLOAD_SELECTION,   /* secondary address with wildcards */
    MBUS_PAYLOAD_BAUDRATE,    /* no data: the CI tells */
    MBUS_PAYLOAD_SYNCHRONIZE, /* no data */
    MBUS_PAYLOAD_FORMAT,      /* format frame: record headers without data */
    MBUS_PAYLOAD_COMPACT,     /* compact frame: data without record headers */
    MBUS_PAYLOAD_RAW          /* known to the standard, but no records in it */
} mbus_payload;

/* Walks the records of a telegram. Copy it to remember a place. */
typedef struct mbus_cursor {
    const uint8_t *bytes; /* of the telegram; positions count from here */
    uint16_t position, end;
    uint8_t structure; /* mbus_payload: RECORDS, COMMAND, FIXED, FORMAT; others have no records */
    uint8_t count;     /* records taken so far; a frame holds up to 126 */
    bool msb_first;    /* mode 2 */
    bool more_records_follow;     /* DIF 1F was met */
    bool global_readout;          /* DIF 7F of a master was met */
    bool has_manufacturer_data;   /* DIF 0F or 1F was met */
    uint16_t manufacturer_data;   /* position of the bytes after it, up to end */
} mbus_cursor;

typedef struct mbus_telegram {
    mbus_frame frame;
    mbus_header header;
    struct {
        uint32_t id;
        uint16_t manufacturer;
    } selection; /* CI 52, 56: id and manufacturer with wildcards F; version and medium are the bytes after them */
    mbus_payload payload;
    uint16_t body;     /* position of the first byte after the header */
    uint16_t body_end; /* position of the checksum */
    mbus_cursor records;
    int error; /* why there are no records, MBUS_OK else */
    uint16_t error_offset;
} mbus_telegram;

/* Reads one whole frame and its header. A bad frame is an error; a frame that is good but carries nothing readable gives
 * MBUS_OK with telegram->error set, so that what was good can be shown. `bytes` must outlive the telegram. */
int mbus_telegram_read(const uint8_t *bytes, size_t n, mbus_telegram *telegram, size_t *offset);

/* ------------------------------------------------------------------ records */

enum {
#define QUANTITY(id, name) MBUS_QUANTITY_##id,
#include "vif.def"
    MBUS_QUANTITY_COUNT
};

enum {
#define UNIT(id, text, factor) MBUS_UNIT_##id,
#include "vif.def"
    MBUS_UNIT_COUNT
};

typedef enum mbus_type {
    MBUS_TYPE_NONE,     /* no data */
    MBUS_TYPE_NUMBER,   /* number: an integer and a power of ten */
    MBUS_TYPE_REAL,     /* real: IEEE 754 single, and a power of ten */
    MBUS_TYPE_STRING,   /* bytes: ISO 8859-1, last character first unless msb_first */
    MBUS_TYPE_DATE,     /* time */
    MBUS_TYPE_DATETIME, /* time */
    MBUS_TYPE_TIME,     /* time */
    MBUS_TYPE_BYTES     /* bytes */
} mbus_type;

/* How a VIB says that data is coded; PROFILE: a compact profile (Annex F). */
typedef enum mbus_coding {
    MBUS_CODING_NUM,      /* integers are signed (type B) */
    MBUS_CODING_UNSIGNED, /* type C */
    MBUS_CODING_BITS,     /* type D */
    MBUS_CODING_ID,       /* digits that are never scaled */
    MBUS_CODING_DATE,     /* type G */
    MBUS_CODING_DATETIME, /* types F, I, J, M by length */
    MBUS_CODING_ANYDATE,  /* types F, G, I, J, M by length */
    MBUS_CODING_DST_RULE, /* type K */
    MBUS_CODING_RAW,      /* bytes */
    MBUS_CODING_PROFILE
} mbus_coding;

/* X(bit, name): remarks on a value. Those marked "no value" leave the raw bytes as all there is. */
#define MBUS_FLAGS(X) \
    X(OPAQUE, 0, "opaque")                   /* meaning is the manufacturer's */ \
    X(BCD_NEGATIVE, 1, "bcd_negative") \
    X(BCD_INVALID, 2, "bcd_invalid")         /* no value: a digit A..F */ \
    X(NOT_A_NUMBER, 3, "not_a_number")       /* no value: NaN or infinity */ \
    X(TIME_INVALID, 4, "time_invalid")       /* no value: the meter says so */ \
    X(SUMMER_TIME, 5, "summer_time") \
    X(DATE_INVALID, 6, "date_invalid")       /* no value: unset, wildcard or impossible */ \
    X(VALUE_INVALID, 7, "value_invalid")     /* no value: the code for "not available" */ \
    X(BINARY_LVAR, 8, "binary_lvar") \
    X(ADDRESS_BLOCK, 9, "address_block")     /* fields of an address rather than a number */ \
    X(MISMATCH, 10, "data_field_mismatch")   /* a date VIF with a data field that is none */ \
    X(NOT_PRINTABLE, 11, "not_printable")    /* text with control characters */

enum {
#define X(id, bit, name) MBUS_FLAG_##id = 1 << (bit),
    MBUS_FLAGS(X)
#undef X
    /* About the coding, not the value. */
    MBUS_FLAG_FINAL_DIFE = 1 << 12,    /* a last DIFE 00: the storage number is an OBIS register number */
    MBUS_FLAG_HUNDRED_YEARS = 1 << 13, /* type F with its hundred-year bits in use */
    MBUS_FLAGS_NO_VALUE = MBUS_FLAG_BCD_INVALID | MBUS_FLAG_NOT_A_NUMBER | MBUS_FLAG_DATE_INVALID | MBUS_FLAG_TIME_INVALID |
                          MBUS_FLAG_VALUE_INVALID
};

/* value = (negative ? - : +) magnitude * factor * 10^exponent + offset / 1000. For a real, magnitude is not used. */
typedef struct mbus_number {
    uint64_t magnitude;
    uint32_t factor; /* 1, or what folds minutes, hours, days or 1/4096 into the unit */
    int32_t offset;  /* thousandths of the unit, from VIFE 78..7B */
    int16_t exponent;
    bool negative;
} mbus_number;

/* A local calendar time; the fields are those on the wire, with wildcards, the year is the full year where it is one. */
typedef struct mbus_time {
    uint16_t year; /* 127: every */
    uint8_t month, day, hour, minute, second;
    bool has_seconds;
} mbus_time;

typedef struct mbus_record {
    uint16_t position; /* of the DIF in the telegram */
    uint8_t dib_length, vib_length;
    const uint8_t *dib, *vib; /* dib is NULL in the fixed structure */
    const uint8_t *data;      /* with the LVAR byte */
    uint16_t data_length;

    uint8_t field; /* data field, the low nibble of the DIF */
    uint8_t function;
    uint64_t storage;
    uint32_t tariff;
    uint16_t subunit;

    uint8_t quantity, unit;
    uint8_t text_length;  /* plain-text unit */
    uint8_t vife_first, vife_end; /* where the combinable VIFEs stand in vib */
    uint16_t flags;       /* mbus_flag */
    uint8_t record_error; /* VIFE 01..1F of a slave, 0: none */
    bool command;         /* VIFE 00..0F are actions */
    bool msb_first;
    mbus_coding coding;
    const uint8_t *text; /* plain-text unit, as on the wire */

    mbus_type type;
    mbus_number number;
    float real;
    mbus_time time;
    const uint8_t *bytes; /* string or bytes, as on the wire */
    uint16_t length;      /* of these, or of a number of variable length */
} mbus_record;

/* Takes the next record: 1, or 0 at the end, or an error at cursor->position; then and after it there are no more. */
int mbus_next(mbus_cursor *cursor, mbus_record *record);

/* The combinable VIFE of a record, in order: 1 and a code (0x00..0x7F, or 0xFC00 + code of the FC table), or 0.
 * Begin with *state = 0. Those after a manufacturer specific VIFE are not reported. */
int mbus_next_vife(const mbus_record *record, unsigned *state, unsigned *code);

/* ------------------------------------------------------------------ compact profiles (Annex F) */

typedef struct mbus_profile {
    mbus_record record;
    const uint8_t *next, *end;
    uint8_t mode, spacing, spacing_unit, field;
    bool inverse, has_base;
    int64_t sum;         /* on the wire's scale */
    mbus_type time_type; /* NONE: no base time */
    mbus_time base_time;
    unsigned taken;
} mbus_profile;

/* Opens a record with VIFE 13, 1E or 1F; base value and base time are looked up in its telegram. */
int mbus_profile_open(const mbus_telegram *telegram, const mbus_record *record, mbus_profile *profile);

/* Takes the next element, with its storage number and, where there is a base time, its time: 1, 0 at the end, or an error. */
int mbus_profile_next(mbus_profile *profile, mbus_record *element, mbus_time *time, mbus_type *time_type);

/* ------------------------------------------------------------------ format and compact frames (Annex G) */

/* CRC-16 of EN 13757, as radio frames, format signatures and full-frame CRCs use it. */
uint16_t mbus_crc(const uint8_t *bytes, size_t n);

/* The record headers of a full or a format frame, one after another, and their signature. Returns their size. */
int mbus_format_of(const mbus_telegram *telegram, uint8_t *headers, size_t capacity, uint16_t *signature);

/* The format signature that a compact frame asks for, or MBUS_E_UNSUPPORTED_CI. */
int mbus_compact_signature(const mbus_telegram *telegram);

/* Writes the full frame that a compact frame and its record headers stand for. Returns its size. */
int mbus_compact_expand(const mbus_telegram *telegram, const uint8_t *headers, size_t n, uint8_t *out, size_t capacity);

/* ------------------------------------------------------------------ encoding */

/* Writes DIB, VIB and data of a record: field, function, storage, tariff, subunit, flags (FINAL_DIFE, HUNDRED_YEARS, SUMMER_TIME,
 * BINARY_LVAR),
 * msb_first, vib and vib_length, and by type the number, real, time, or bytes and length as on the wire. With field D, length is
 * the size of a number (0: as few bytes as hold it). Returns the size, MBUS_E_BAD_VALUE where something does not fit its
 * field (`*problem`, may be NULL, says what fits; "" without names), or MBUS_E_NO_SPACE. */
int mbus_record_write(const mbus_record *record, uint8_t *out, size_t capacity, const char **problem);

/* Writes the true VIF of a code of a table: 0 primary, 1 FB, 2 FD, 3 FD FD. Returns its size; `more`: VIFEs follow. */
int mbus_vif_write(unsigned table, unsigned code, bool more, uint8_t *out, size_t capacity);

/* The quantity of a code of a table. */
unsigned mbus_vif_quantity(unsigned table, unsigned code);

/* ------------------------------------------------------------------ names */

#ifndef MBUS_NO_NAMES
/* The VIFE of a modifier, record error or action by name: 0x00..0x7F, 0xFC00 + code of the FC table, or MBUS_E_BAD_VALUE.
 * `unit` picks the unit of a duration: 0 s, 1 min, 2 h, 3 d. */
int mbus_modifier_code(const char *name, unsigned unit);

const char *mbus_quantity_name(unsigned quantity);
const char *mbus_unit_name(unsigned unit);
const char *mbus_flag_name(unsigned bit);
const char *mbus_record_error_name(unsigned code); /* NULL: no error */
const char *mbus_action_name(unsigned code);       /* NULL: none */
const char *mbus_modifier_name(unsigned code);     /* as mbus_next_vife gives it */
const char *mbus_medium_name(unsigned medium);
const char *mbus_fixed_medium_name(unsigned medium); /* 0..15 of the fixed structure */
const char *mbus_application_error_name(unsigned code);

/* "Wh/h", "non-metric(Wh)", a plain-text unit as UTF-8. Returns the length (0: no unit) or MBUS_E_NO_SPACE. */
int mbus_unit_text(const mbus_record *record, char *out, size_t capacity);
#endif

/* ------------------------------------------------------------------ text */

/* Exact decimal text of a number with all places that its exponent has: "22.0", "-0.18", "35000". Returns its length. */
int mbus_number_text(const mbus_number *number, char *out, size_t capacity);

/* Is it a day of the Gregorian calendar, without wildcards? */
bool mbus_is_date(const mbus_time *time);

/* "2011-12-31", "2011-12-31T23:59:00", "23:59:00"; a wildcard shows as *. Returns its length. */
int mbus_time_text(const mbus_time *time, mbus_type type, char *out, size_t capacity);

/* The digits of an invalid BCD number as a meter's display would show them (" E--4"). Returns the length. */
int mbus_bcd_glyphs(const mbus_record *record, char *out, size_t capacity);

/* The four bytes of a daylight saving rule (type K): "on, from 03-31 02:00 to 10-27, +1 h". Returns the length. The offset from
 * UTC that they hold as well is left out: its coding is not public. */
int mbus_dst_rule_text(const mbus_record *record, char *out, size_t capacity);

/* ISO 8859-1 to UTF-8, last character first if `reverse`. Returns the length. */
int mbus_utf8(const uint8_t *bytes, size_t n, bool reverse, char *out, size_t capacity);

/* Three letters; false where the code is none of letters. */
bool mbus_manufacturer_letters(uint16_t code, char letters[4]);
bool mbus_manufacturer_code(const char *letters, uint16_t *code);

enum { MBUS_UNIT_TEXT_MAX = 768, MBUS_NUMBER_TEXT_MAX = 160, MBUS_TIME_TEXT_MAX = 32 };

#ifdef __cplusplus
}
#endif
#endif
