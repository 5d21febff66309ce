/* run.c - checks of the C core, to be built with sanitizers.
 *
 * What the core makes of good telegrams is checked from Lua; here are cuts, damage and bounds: every parser gets memory
 * of exactly the size it was told, so that one byte too far is found. So is what only C can ask for.
 */
#include "vif.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned passed, failed;

#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)

static void check(bool good, const char *text, const char *file, int line)
{
    if (good) {
        passed++;
        return;
    }
    failed++;
    fprintf(stderr, "%s:%d: %s\n", file, line, text);
}

/* Bytes in a block of their own, without a byte to spare. */
static uint8_t *exact(const uint8_t *bytes, size_t n)
{
    uint8_t *copy = malloc(n > 0 ? n : 1);
    if (!copy) abort();
    if (n > 0) memcpy(copy, bytes, n);
    return n > 0 ? copy : (free(copy), NULL);
}

/* ------------------------------------------------------------------ samples */

static const uint8_t heat_meter[] = { /* user data of a response with CI 72 */
    0x47, 0x27, 0x89, 0x31, 0x24, 0x23, 0x28, 0x04, 0xED, 0x00, 0x00, 0x00, 0x0C, 0x05, 0x31, 0x84, 0x74, 0x01, 0x0C,
    0x12, 0x91, 0x72, 0x64, 0x02, 0x0C, 0x2A, 0x00, 0x00, 0x00, 0x00, 0x0B, 0x3A, 0x00, 0x00, 0x00, 0x0A, 0x5A, 0x22,
    0x05, 0x0A, 0x5E, 0x23, 0x04, 0x0A, 0x62, 0x99, 0x00, 0x04, 0x6D, 0x21, 0x16, 0x0A, 0x39, 0x4C, 0x05, 0x30, 0x78,
    0x11, 0x00, 0x44, 0x6D, 0x00, 0x00, 0x1E, 0x14, 0x44, 0xED, 0x7E, 0x00, 0x00, 0x3F, 0x1C, 0x8C, 0x01, 0x05, 0x20,
    0x30, 0x69, 0x01, 0x84, 0x01, 0x6D, 0x00, 0x00, 0xFF, 0x2C, 0x0B, 0x26, 0x02, 0x03, 0x16
};

/* Wide storage, tariff and subunit, plain-text unit, text, real, 64 bits, long BCD, filler, FB and FD, maker's data. */
static const uint8_t mixed[] = {
    0x78, 0x56, 0x34, 0x12, 0x24, 0x40, 0x01, 0x07, 0x55, 0x00, 0x00, 0x00, 0x8B, 0x60, 0x04, 0x37, 0x18, 0x02, 0xDA,
    0x02, 0x3B, 0x13, 0x01, 0x2F, 0x2F, 0x0D, 0x7C, 0x03, 'a',  'b',  'c',  0x04, 'd',  'e',  'f',  0xE9, 0x05, 0x5A,
    0x00, 0x00, 0xB0, 0x41, 0x07, 0x03, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0x0E, 0x78, 0x01, 0x02, 0x03,
    0x04, 0x05, 0xF6, 0x02, 0xFD, 0x17, 0x01, 0x00, 0x04, 0xFB, 0x00, 0x02, 0x00, 0x00, 0x00, 0x94, 0xBE, 0xFF, 0x7F,
    0x83, 0x3C, 0x01, 0x00, 0x00, 0x00, 0x42, 0x6C, 0xFF, 0x0C, 0x1F, 0xDE, 0xAD
};

static size_t make(uint8_t *out, uint8_t ci, const uint8_t *data, size_t n)
{
    mbus_frame frame = { MBUS_FRAME_LONG, 0x08, 5, 0, 0, NULL, 0 };
    frame.ci = ci;
    frame.data = data;
    frame.length = (uint8_t)n;
    int size = mbus_frame_write(&frame, out, MBUS_FRAME_MAX);
    return size < 0 ? 0 : (size_t)size;
}

/* ------------------------------------------------------------------ frames */

static void frames_survive_writing_and_reading(void)
{
    const mbus_frame samples[] = {
        { MBUS_FRAME_ACK, 0, 0, 0, 0, NULL, 1 },
        { MBUS_FRAME_SHORT, 0x5B, 254, 0, 0, NULL, 5 },
        { MBUS_FRAME_CONTROL, 0x53, 5, 0xBB, 0, NULL, 9 },
        { MBUS_FRAME_LONG, 0x08, 5, 0x72, sizeof heat_meter, heat_meter, 9 + sizeof heat_meter },
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        const mbus_frame *sample = &samples[i];
        uint8_t bytes[MBUS_FRAME_MAX];
        int size = mbus_frame_write(sample, bytes, sizeof bytes);
        CHECK(size == sample->size);
        if (size < 0) continue;

        uint8_t *copy = exact(bytes, (size_t)size);
        mbus_frame frame;
        size_t offset = 0;
        CHECK(mbus_frame_read(copy, (size_t)size, &frame, &offset) == MBUS_OK);
        CHECK(frame.type == sample->type && frame.size == sample->size && frame.length == sample->length);
        CHECK(frame.c == sample->c && frame.a == sample->a && frame.ci == sample->ci);
        CHECK(sample->length == 0 || memcmp(frame.data, sample->data, sample->length) == 0);
        free(copy);

        CHECK(mbus_frame_write(sample, bytes, (size_t)size) == size);
        CHECK(mbus_frame_write(sample, bytes, (size_t)size - 1) == MBUS_E_NO_SPACE);
        for (size_t n = 0; n < (size_t)size; n++) { /* every shorter piece is refused */
            copy = exact(bytes, n);
            CHECK(mbus_frame_read(copy, n, &frame, NULL) == MBUS_E_TRUNCATED_FRAME);
            free(copy);
        }
    }
}

static void one_wrong_byte_is_noticed(void)
{
    uint8_t good[MBUS_FRAME_MAX];
    size_t size = make(good, 0x72, heat_meter, sizeof heat_meter);
    for (size_t i = 0; i < size; i++) {
        uint8_t *bad = exact(good, size);
        bad[i] ^= 0x10;
        mbus_frame frame;
        size_t offset = 0;
        CHECK(mbus_frame_read(bad, size, &frame, &offset) < 0);
        CHECK(offset <= size);
        free(bad);
    }
}

/* ------------------------------------------------------------------ deframer */

typedef struct tally {
    unsigned frames, noise, sum;
} tally;

static void count(tally *t, mbus_event event, const mbus_frame *frame)
{
    if (event == MBUS_FRAME) {
        t->frames++;
        t->sum = t->sum * 31 + frame->size + frame->c + frame->a;
    } else {
        t->noise++;
    }
}

static void feed(mbus_deframer *d, tally *t, const uint8_t *bytes, size_t n)
{
    uint8_t *copy = exact(bytes, n);
    const uint8_t *p = copy, *end = copy + n;
    mbus_frame frame;
    mbus_event event;
    while (n > 0 && (event = mbus_deframe(d, &p, end, &frame)) != MBUS_MORE) count(t, event, &frame);
    free(copy);
}

static tally whole_or_cut(const uint8_t *stream, size_t size, size_t cut)
{
    static mbus_deframer d;
    tally t = { 0, 0, 0 };
    mbus_frame frame;
    mbus_event event;
    memset(&d, 0, sizeof d);
    feed(&d, &t, stream, cut);
    feed(&d, &t, stream + cut, size - cut);
    while ((event = mbus_deframe_end(&d, &frame)) != MBUS_MORE) count(&t, event, &frame);
    return t;
}

static size_t make_stream(uint8_t *out)
{
    static const uint8_t garbage[] = { 0x00, 0x68, 0x05, 0x68, 0xFF, 0x68, 0x40, 0x40, 0x68, 0x10 };
    static const uint8_t small[] = { 0xE5, 0x10, 0x5B, 0x05, 0x60, 0x16 };
    size_t n = 0;
    memcpy(out + n, garbage, sizeof garbage), n += sizeof garbage;
    n += make(out + n, 0x72, heat_meter, sizeof heat_meter);
    memcpy(out + n, small, sizeof small), n += sizeof small;
    memcpy(out + n, garbage, sizeof garbage), n += sizeof garbage;
    n += make(out + n, 0x72, mixed, sizeof mixed);
    return n;
}

static void cuts_do_not_change_the_frames(void)
{
    uint8_t stream[4 * MBUS_FRAME_MAX];
    size_t size = make_stream(stream);
    tally whole = whole_or_cut(stream, size, 0);
    CHECK(whole.frames == 4);
    CHECK(whole.noise == 20);
    for (size_t cut = 1; cut <= size; cut++) {
        tally t = whole_or_cut(stream, size, cut);
        CHECK(t.frames == whole.frames && t.noise == whole.noise && t.sum == whole.sum);
    }
    mbus_deframer d;
    tally single = { 0, 0, 0 };
    memset(&d, 0, sizeof d);
    for (size_t i = 0; i < size; i++) feed(&d, &single, stream + i, 1);
    CHECK(single.frames == whole.frames && single.sum == whole.sum);
}

/* What stands behind a frame is left to the caller, who may be done with it or hand it to somebody else. */
static void nothing_behind_a_frame_is_taken(void)
{
    uint8_t stream[2 * MBUS_FRAME_MAX] = { 0xE5, 0x10, 0x5B, 0x05, 0x60, 0x16, 0x68, 0x03, 0x03, 0x68, 0x53, 0x05, 0xBB, 0x13, 0x16 };
    const size_t sizes[] = { 1, 5, 9, make(stream + 15, 0x72, heat_meter, sizeof heat_meter), 1 };
    const uint8_t *p = stream, *behind = stream;
    mbus_deframer d;
    mbus_frame frame;

    memset(&d, 0, sizeof d);
    stream[15 + sizes[3]] = 0xE5;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        behind += sizes[i];
        CHECK(mbus_deframe(&d, &p, stream + sizeof stream, &frame) == MBUS_FRAME && frame.size == sizes[i] && p == behind);
    }
    static const uint8_t false_start[] = { 0x68, 0x05, 0x05, 0x10, 0x5B, 0x05, 0x60, 0x16 };
    p = false_start;
    CHECK(mbus_deframe(&d, &p, false_start + sizeof false_start, &frame) == MBUS_NOISE && p == false_start + 4);
}

/* Size of the frame that waits behind what these bytes are reported as. */
static unsigned needs_after(const char *text)
{
    const uint8_t *bytes = (const uint8_t *)text;
    mbus_deframer d;
    mbus_frame frame;

    memset(&d, 0, sizeof d);
    mbus_deframe(&d, &bytes, bytes + strlen(text), &frame);
    return mbus_deframe_needs(&d);
}

static void a_frame_tells_its_size_as_soon_as_it_can(void)
{
    CHECK(needs_after("") == 0 && needs_after("\x68") == 0);
    CHECK(needs_after("\x68\x05") == 11 && needs_after("\x68\x05\x05\x68\x08") == 11 && needs_after("\x68\xFF\xFF") == 261);
    CHECK(needs_after("\x10") == 5 && needs_after("\x10\x5B\x05\x60") == 5);
    CHECK(needs_after("\xE5") == 0 && needs_after("\x10\x5B\x05\x60\x16") == 0); /* reported, so that nothing waits */
    CHECK(needs_after("\x68\x68\x05") == 11); /* the first byte is noise, and no part of what begins behind it */
    CHECK(needs_after("\x68\x10\x05") == 5 && needs_after("\x68\xE5\x05") == 1 && needs_after("\x68\x05\x06") == 0);
}

/* ------------------------------------------------------------------ telegrams */

/* Every code on the wire has a name, and the unit a text. */
static bool names_are_found(const mbus_record *record, char *text)
{
    unsigned state = 0, code;
#ifdef MBUS_NO_NAMES
    (void)text;
    while (mbus_next_vife(record, &state, &code) > 0)
        if (code > 0x7F && code < 0xFC00u) return false;
    return record->quantity < MBUS_QUANTITY_COUNT && record->unit < MBUS_UNIT_COUNT;
#else
    while (mbus_next_vife(record, &state, &code) > 0)
        if (!mbus_modifier_name(code)) return false;
    return *mbus_quantity_name(record->quantity) && mbus_unit_name(record->unit) &&
           mbus_unit_text(record, text, MBUS_UNIT_TEXT_MAX) >= 0;
#endif
}

/* Calls everything that a record can be asked for. Returns the records read, or -1 after an impossible one. */
static int walk(const uint8_t *bytes, size_t n)
{
    mbus_telegram telegram;
    size_t offset = 0;
    int rc = mbus_telegram_read(bytes, n, &telegram, &offset);
    if (rc < 0) return offset <= n ? 0 : -1;

    static char text[4 * MBUS_UNIT_TEXT_MAX];
    mbus_record record;
    int records = 0;
    while ((rc = mbus_next(&telegram.records, &record)) > 0) {
        if (!names_are_found(&record, text)) return -1;
        if (record.type == MBUS_TYPE_NUMBER && mbus_number_text(&record.number, text, MBUS_NUMBER_TEXT_MAX) < 0) return -1;
        if (record.type == MBUS_TYPE_STRING && mbus_utf8(record.bytes, record.length, true, text, sizeof text) < 0) return -1;
        if (record.type >= MBUS_TYPE_DATE && record.type <= MBUS_TYPE_TIME &&
            mbus_time_text(&record.time, record.type, text, MBUS_TIME_TEXT_MAX) < 0)
            return -1;
        if (record.flags & MBUS_FLAG_BCD_INVALID && mbus_bcd_glyphs(&record, text, sizeof text) < 0) return -1;
        if (record.data && (record.data < bytes || record.data + record.data_length > bytes + n)) return -1;
        records++;
    }
    return telegram.records.position <= n ? records : -1;
}

static int walk_copy(const uint8_t *bytes, size_t n)
{
    uint8_t *copy = exact(bytes, n);
    int records = walk(copy, n);
    free(copy);
    return records;
}

static void records_are_read_up_to_the_damage(void)
{
    uint8_t bytes[MBUS_FRAME_MAX];
    size_t size = make(bytes, 0x72, heat_meter, sizeof heat_meter);
    CHECK(walk_copy(bytes, size) == 14);
    size = make(bytes, 0x72, mixed, sizeof mixed);
    CHECK(walk_copy(bytes, size) == 10);

    int before = 0;
    for (size_t n = MBUS_LONG_HEADER_SIZE; n <= sizeof mixed; n++) { /* whole frames, cut content */
        size = make(bytes, 0x72, mixed, n);
        int records = walk_copy(bytes, size);
        CHECK(records == before || records == before + 1);
        before = records;
    }
    CHECK(before == 10);
}

/* A small generator of our own: the same damage on every machine. */
static uint32_t seed = 1;

static unsigned dice(unsigned sides)
{
    seed = seed * 1664525u + 1013904223u;
    return (unsigned)((seed >> 8) % sides);
}

static void damage_never_leads_out_of_bounds(void)
{
    static const uint8_t ci[] = { 0x72, 0x76, 0x73, 0x77, 0x78, 0x7A, 0x51, 0x50, 0x52, 0x70, 0x71, 0x6C, 0x69, 0x79, 0x00 };
    int worst = 0;
    for (unsigned round = 0; round < 200000; round++) {
        uint8_t data[MBUS_DATA_MAX], bytes[MBUS_FRAME_MAX];
        const bool from_mixed = dice(2) != 0;
        size_t n = from_mixed ? sizeof mixed : sizeof heat_meter;
        memcpy(data, from_mixed ? mixed : heat_meter, n);
        if (dice(4) == 0) { /* nothing but chance behind the header */
            n = MBUS_LONG_HEADER_SIZE + dice(MBUS_DATA_MAX - MBUS_LONG_HEADER_SIZE + 1);
            for (size_t i = MBUS_LONG_HEADER_SIZE; i < n; i++) data[i] = (uint8_t)dice(256);
        }
        for (unsigned k = dice(6); k > 0; k--) data[dice((unsigned)n)] = (uint8_t)dice(256);
        n -= dice(4) == 0 ? dice((unsigned)n) : 0;
        size_t size = make(bytes, dice(3) ? ci[0] : ci[dice(sizeof ci)], data, n);
        if (walk_copy(bytes, size) < 0) worst = -1;
    }
    CHECK(worst == 0);
}

/* ------------------------------------------------------------------ numbers */

static void number_text_is_exact(void)
{
    const struct {
        mbus_number number;
        const char *text;
    } samples[] = {
        { { 220, 1, 0, -1, false }, "22.0" },
        { { 18, 1, 0, -2, true }, "-0.18" },
        { { 35, 1, 0, 3, false }, "35000" },
        { { 0, 1, 0, -3, false }, "0.000" },
        { { 2, 3600, 0, 0, false }, "7200" },
        { { 9223372036854775808u, 1, 0, 0, true }, "-9223372036854775808" },
        { { 18446744073709551615u, 1, 0, -3, false }, "18446744073709551.615" },
        { { 5, 1, 1, -2, false }, "0.051" },
        { { 999999999, 1, 1, -3, false }, "1000000.000" }, /* one limb carries to the next, or borrows from it */
        { { 1000000, 1, 1, 0, true }, "-999999.999" },
        { { 18446744073709551615u, 86400, 1, 3, false }, "1593798687968505259536000000.001" },
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        char text[MBUS_NUMBER_TEXT_MAX + 1] = "";
        int length = mbus_number_text(&samples[i].number, text, MBUS_NUMBER_TEXT_MAX);
        CHECK(length == (int)strlen(samples[i].text));
        CHECK(length > 0 && memcmp(text, samples[i].text, (size_t)length) == 0);
    }
}

/* ------------------------------------------------------------------ VIF tables */

/* The rows of a table cover its 128 codes in order, and looking a code up finds its row. */
static void every_vif_code_has_its_row(void)
{
    for (unsigned table = 0; table < VIF_TABLES; table++) {
        unsigned count, next = 0;
        const vif_row *rows = vif_rows((vif_table)table, &count);
        for (unsigned i = 0; i < count; next = rows[i++].last + 1u) CHECK(rows[i].first == next && rows[i].last >= next);
        CHECK(next == 128);
        for (unsigned code = 0; code < 128; code++) {
            const vif_row *row = vif_find((vif_table)table, code);
            CHECK(row->first <= code && code <= row->last);
        }
    }
}

/* ------------------------------------------------------------------ encoding */

static mbus_record number_record(uint8_t field, uint64_t magnitude, bool negative)
{
    mbus_record r;
    memset(&r, 0, sizeof r);
    r.field = field;
    r.vib = (const uint8_t *)"\x13";
    r.vib_length = 1;
    r.type = MBUS_TYPE_NUMBER;
    r.number.magnitude = magnitude;
    r.number.negative = negative;
    r.number.factor = 1;
    return r;
}

/* Writes a record into exactly as much memory as it needs; every shorter one is refused. Returns its size or the error. */
static int written(const mbus_record *r, uint8_t *out)
{
    int size = mbus_record_write(r, out, MBUS_FRAME_MAX, NULL);
    for (int n = 0; n < size; n++) {
        uint8_t *small = malloc(n > 0 ? (size_t)n : 1);
        if (!small) abort();
        const char *problem = NULL;
        CHECK(mbus_record_write(r, small, (size_t)n, &problem) == MBUS_E_NO_SPACE && problem);
        free(small);
    }
    return size;
}

/* Is it written as these n bytes? */
static bool writes(const mbus_record *r, const char *bytes, size_t n)
{
    uint8_t out[MBUS_FRAME_MAX];
    return written(r, out) == (int)n && memcmp(out, bytes, n) == 0;
}

static bool is_refused(const mbus_record *r)
{
    uint8_t out[MBUS_FRAME_MAX];
    const char *problem = NULL;
    int rc = mbus_record_write(r, out, sizeof out, &problem);
    return rc == MBUS_E_BAD_VALUE && problem && mbus_record_write(r, out, sizeof out, NULL) == rc;
}

/* EN 13757-3, table 6: LVAR C0..C9 and D0..D9, two digits a byte. */
static void bcd_of_any_length_is_written(void)
{
    uint64_t limit = 1; /* 10^(2n) */
    for (unsigned n = 1; n <= 9; n++) {
        mbus_record r = number_record(0x0D, limit, false); /* the least of n bytes */
        uint8_t out[MBUS_FRAME_MAX];
        CHECK(written(&r, out) == (int)(3 + n) && out[2] == 0xC0 + n);
        CHECK(out[2 + n] == 0x01);
        limit *= 100;
        r = number_record(0x0D, limit - 1, true); /* and the largest */
        CHECK(written(&r, out) == (int)(3 + n) && out[2] == 0xD0 + n);
        for (unsigned i = 0; i < n; i++) CHECK(out[3 + i] == 0x99);
        r.length = (uint16_t)n; /* as wide as is asked for */
        CHECK(written(&r, out) == (int)(3 + n));
        r.length = (uint16_t)(n - 1);
        if (n > 1) CHECK(is_refused(&r));
    }
    mbus_record r = number_record(0x0D, limit, false);
    CHECK(is_refused(&r));
    r = number_record(0x0D, 1, false);
    r.length = 10;
    CHECK(is_refused(&r));
    r = number_record(0x0D, 0, true); /* there is no minus zero */
    CHECK(writes(&r, "\x0D\x13\xC1\x00", 4));
    r = number_record(0x0D, 123456789012345678u, false);
    CHECK(writes(&r, "\x0D\x13\xC9\x78\x56\x34\x12\x90\x78\x56\x34\x12", 12));
    r.msb_first = true;
    CHECK(writes(&r, "\x0D\x13\xC9\x12\x34\x56\x78\x90\x12\x34\x56\x78", 12));
    r.number.magnitude = 1234;
    CHECK(writes(&r, "\x0D\x13\xC2\x12\x34", 5));
    r = number_record(0x0D, 1234, true);
    r.length = 3;
    CHECK(writes(&r, "\x0D\x13\xD3\x34\x12\x00", 6));
}

/* LVAR E1..E8; the most negative code of a width is no number. */
static void binary_of_any_length_is_written(void)
{
    for (unsigned n = 1; n <= 8; n++) {
        uint64_t top = (uint64_t)1 << (8 * n - 1);
        for (unsigned negative = 0; negative < 2; negative++) {
            mbus_record r = number_record(0x0D, top - 1, negative != 0);
            uint8_t out[MBUS_FRAME_MAX];
            r.flags = MBUS_FLAG_BINARY_LVAR;
            CHECK(written(&r, out) == (int)(3 + n) && out[2] == 0xE0 + n);
            CHECK(out[2 + n] == (!negative ? 0x7F : n == 1 ? 0x81 : 0x80) && (n == 1 || out[3] == (negative ? 0x01 : 0xFF)));
            r.number.magnitude = top;
            r.length = (uint16_t)n;
            CHECK(is_refused(&r));
            r.flags |= MBUS_FLAG_OPAQUE; /* private numbers have no such code */
            CHECK(negative ? written(&r, out) == (int)(3 + n) : is_refused(&r));
        }
        mbus_record r = number_record(0x0D, top * 2 - 1, false);
        r.flags = MBUS_FLAG_BINARY_LVAR;
        r.length = (uint16_t)n;
        r.coding = MBUS_CODING_UNSIGNED;
        CHECK(is_refused(&r)); /* all ones: not available */
        r.coding = MBUS_CODING_BITS;
        CHECK(!is_refused(&r));
        r.coding = MBUS_CODING_ID;
        r.number.magnitude--;
        CHECK(!is_refused(&r));
        r.number.negative = true;
        CHECK(is_refused(&r));
    }
    mbus_record r = number_record(0x0D, 1, false);
    r.flags = MBUS_FLAG_BINARY_LVAR;
    r.length = 9;
    CHECK(is_refused(&r));
    r.length = 0;
    CHECK(writes(&r, "\x0D\x13\xE1\x01", 4));
    r.number.magnitude = INT64_MAX;
    CHECK(writes(&r, "\x0D\x13\xE8\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", 11));
    r.number.magnitude++;
    CHECK(is_refused(&r));
#ifndef MBUS_NO_NAMES
    uint8_t out[MBUS_FRAME_MAX];
    const char *problem = "";
    CHECK(mbus_record_write(&r, out, sizeof out, &problem) == MBUS_E_BAD_VALUE && strstr(problem, "eight bytes hold 63 bits"));
#endif
}

/* Containers take the lengths that table 6 has a code for, texts up to 191 bytes. */
static void byte_strings_have_the_lengths_of_the_table(void)
{
    static uint8_t data[MBUS_FRAME_MAX];
    for (unsigned n = 0; n <= 200; n++) {
        mbus_record r = number_record(0x0D, 0, false);
        uint8_t out[MBUS_FRAME_MAX];
        bool small = n <= 15 || n == 16 || n == 20 || n == 24 || n == 28 || n == 32 || n == 48 || n == 64;
        unsigned lvar = n <= 15 ? 0xE0 + n : n <= 32 ? 0xEC + n / 4 : n == 48 ? 0xF5 : 0xF6;
        r.type = MBUS_TYPE_BYTES;
        r.bytes = data;
        r.length = (uint16_t)n;
        if (small)
            CHECK(written(&r, out) == (int)(3 + n) && out[2] == lvar);
        else
            CHECK(is_refused(&r));
        r.coding = n % 2 ? MBUS_CODING_RAW : MBUS_CODING_PROFILE;
        CHECK(n <= 191 ? mbus_record_write(&r, out, sizeof out, NULL) == (int)(3 + n) && out[2] == n : is_refused(&r));
        r.coding = MBUS_CODING_NUM;
        r.type = MBUS_TYPE_STRING;
        CHECK(n <= 191 ? mbus_record_write(&r, out, sizeof out, NULL) == (int)(3 + n) && out[2] == n : is_refused(&r));
    }
}

/* A number and a field, and whether the one fits the other. */
static void fields_take_what_fits_them(void)
{
    static const struct {
        uint8_t field;
        uint64_t most, least; /* positive and negative */
    } fields[] = {
        { 1, 127, 127 }, { 2, 32767, 32767 }, { 3, 8388607, 8388607 }, { 4, 2147483647, 2147483647 },
        { 6, 140737488355327, 140737488355327 }, { 7, 9223372036854775807, 9223372036854775807 }, { 9, 99, 9 },
        { 10, 9999, 999 }, { 11, 999999, 99999 }, { 12, 99999999, 9999999 }, { 14, 999999999999, 99999999999 },
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        uint8_t out[MBUS_FRAME_MAX];
        mbus_record r = number_record(fields[i].field, fields[i].most, false);
        CHECK(written(&r, out) > 0);
        r.number.magnitude++;
        CHECK(is_refused(&r));
        r = number_record(fields[i].field, fields[i].least, true);
        CHECK(written(&r, out) > 0);
        r.number.magnitude++;
        CHECK(is_refused(&r));
    }
    mbus_record r = number_record(5, 1, false);
    CHECK(is_refused(&r)); /* a real */
    r.field = 4;
    r.type = MBUS_TYPE_REAL;
    CHECK(is_refused(&r)); /* no real */
    r.type = MBUS_TYPE_STRING;
    CHECK(is_refused(&r));
    r.field = 0x0F;
    CHECK(is_refused(&r));
    for (uint8_t field = 0; field < 15; field++) { /* a time in a field that none has */
        r = number_record(field, 0, false);
        r.type = MBUS_TYPE_DATETIME;
        r.time = (mbus_time){ 2024, 2, 29, 13, 45, 30, true };
        bool has_time = field == 2 || field == 3 || field == 4 || field == 6;
        CHECK(is_refused(&r) == (!has_time && field != 0 && field != 8));
    }
    r = number_record(2, 0, false);
    r.type = MBUS_TYPE_DATE;
    r.time = (mbus_time){ 2024, 2, 29, 31, 63, 63, true };
    CHECK(writes(&r, "\x02\x13\x1D\x32", 4)); /* a date leaves the clock out, whatever stands there */
    r = number_record(4, 0, false);
    r.type = MBUS_TYPE_BYTES;
    r.bytes = (const uint8_t *)"abcd";
    r.length = 4;
    CHECK(writes(&r, "\x04\x13"
                     "abcd", 6));
    r.length = 3;
    CHECK(is_refused(&r));
    r = number_record(0x0F, 0, false); /* a special DIF, whatever it is to hold */
    CHECK(is_refused(&r));
}

/* Bytes go into a field of their length alone. */
static void bytes_have_the_length_of_their_field(void)
{
    static const uint8_t sizes[] = { 0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, 0, 6 }, data[9];
    for (uint8_t field = 1; field < sizeof sizes; field++) {
        if (sizes[field] == 0) continue;
        for (uint16_t n = 0; n <= sizeof data; n++) {
            uint8_t out[MBUS_FRAME_MAX];
            mbus_record r = number_record(field, 0, false);
            r.type = MBUS_TYPE_BYTES;
            r.bytes = data;
            r.length = n;
            CHECK(n == sizes[field] ? written(&r, out) == 2 + n : is_refused(&r));
        }
    }
}

/* Mode 2: every number and date with its most significant byte first. */
static void mode_2_is_written(void)
{
    mbus_record r = number_record(4, 0, false);
    r.msb_first = true;
    r.number.magnitude = 0x01020304;
    CHECK(writes(&r, "\x04\x13\x01\x02\x03\x04", 6));
    r.field = 12;
    r.number.magnitude = 12345678;
    CHECK(writes(&r, "\x0C\x13\x12\x34\x56\x78", 6));
    r.type = MBUS_TYPE_DATETIME;
    r.time = (mbus_time){ 2024, 2, 29, 13, 45, 30, true };
    r.field = 2;
    CHECK(writes(&r, "\x02\x13\x32\x1D", 4));
    r.field = 3;
    CHECK(writes(&r, "\x03\x13\x0D\x2D\x1E", 5));
    r.field = 4;
    CHECK(writes(&r, "\x04\x13\x32\x1D\x0D\x2D", 6));
    r.field = 6; /* 2024-02-29 is a Thursday of week 9 in a leap year */
    CHECK(writes(&r, "\x06\x13\x09\x32\x1D\x8D\x2D\x9E", 8));
    r.msb_first = false;
    CHECK(writes(&r, "\x06\x13\x9E\x2D\x8D\x1D\x32\x09", 8));
}

/* EN 13757-3, Annex A: summer time has a bit in type F and three places in type I, the leap year one. */
static void summer_time_is_written(void)
{
    mbus_record r = number_record(4, 0, false);
    r.type = MBUS_TYPE_DATETIME;
    r.time = (mbus_time){ 2024, 6, 30, 12, 0, 0, true }; /* a Sunday of week 26 */
    CHECK(writes(&r, "\x04\x13\x00\x0C\x1E\x36", 6));
    r.field = 6;
    CHECK(writes(&r, "\x06\x13\x80\x00\xEC\x1E\x36\x1A", 8));
    r.flags = MBUS_FLAG_SUMMER_TIME;
    CHECK(writes(&r, "\x06\x13\xC0\x40\xEC\x1E\x36\x5A", 8));
    r.field = 4;
    CHECK(writes(&r, "\x04\x13\x00\x8C\x1E\x36", 6));
}

/* EN 13757-3, 6.3: 41 bits of storage, 20 of tariff and 10 of subunit, spread over up to ten DIFEs. */
static void dibs_have_their_bits(void)
{
    mbus_record r = number_record(0, 0, false);
    r.storage = ((uint64_t)1 << 41) - 1;
    r.tariff = (1u << 20) - 1;
    r.subunit = (1u << 10) - 1;
    r.function = 3;
    CHECK(writes(&r, "\xF0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F\x13", 12));
    r.flags = MBUS_FLAG_FINAL_DIFE;
    CHECK(writes(&r, "\xF0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x00\x13", 13));
    r.storage++;
    CHECK(is_refused(&r));
    r.storage = 0;
    r.tariff++;
    CHECK(is_refused(&r));
    r.tariff = 0;
    r.subunit++;
    CHECK(is_refused(&r));
    for (unsigned bit = 0; bit < 41; bit++) { /* each bit comes back, alone */
        uint8_t out[MBUS_FRAME_MAX], frame[MBUS_FRAME_MAX];
        mbus_telegram t;
        mbus_record back;
        r = number_record(1, 5, false);
        r.storage = (uint64_t)1 << bit;
        r.tariff = bit < 20 ? 1u << bit : 0;
        r.subunit = (uint16_t)(bit < 10 ? 1u << bit : 0);
        size_t size = make(frame, 0x78, out, (size_t)written(&r, out));
        CHECK(mbus_telegram_read(frame, size, &t, NULL) == MBUS_OK && mbus_next(&t.records, &back) == 1);
        CHECK(back.storage == r.storage && back.tariff == r.tariff && back.subunit == r.subunit);
    }
}

static void vifs_are_written(void)
{
    static const struct {
        unsigned table;
        bool more;
        const char *bytes;
    } samples[] = { { 0, false, "\x13" },     { 0, true, "\x93" },         { 1, false, "\xFB\x13" },    { 1, true, "\xFB\x93" },
                    { 2, false, "\xFD\x13" }, { 2, true, "\xFD\x93" }, { 3, false, "\xFD\xFD\x13" } };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        uint8_t out[3];
        size_t n = strlen(samples[i].bytes);
        CHECK(mbus_vif_write(samples[i].table, 0x13, samples[i].more, out, n) == (int)n && memcmp(out, samples[i].bytes, n) == 0);
        CHECK(mbus_vif_write(samples[i].table, 0x13, samples[i].more, out, n - 1) == MBUS_E_NO_SPACE);
    }
}

static void a_frame_takes_252_bytes(void)
{
    static uint8_t data[255], out[300];
    mbus_frame frame = { MBUS_FRAME_LONG, 0x53, 1, 0x51, 252, data, 0 };
    CHECK(mbus_frame_write(&frame, out, sizeof out) == MBUS_FRAME_MAX);
    frame.length = 253;
    CHECK(mbus_frame_write(&frame, out, sizeof out) == MBUS_E_BAD_VALUE);
}

/* ------------------------------------------------------------------ format and compact frames */

static void compact_frames_stay_in_their_memory(void)
{
    static const uint8_t records[] = { 0x02, 0x02, 0xD2, 0x04, 0x02, 0x15, 0x2E, 0x16, 0x02, 0x2A, 0x34, 0x23 };
    static const uint8_t short_data[] = { 0x31, 0x3B, 0x42, 0xA6, 0xD2, 0x04, 0x2E, 0x16, 0x34, 0x23 };
    uint8_t bytes[MBUS_FRAME_MAX], headers[6], full[MBUS_FRAME_MAX];
    uint16_t signature = 0;
    mbus_telegram t;

    size_t size = make(bytes, 0x78, records, sizeof records);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK);
    CHECK(mbus_format_of(&t, headers, sizeof headers, &signature) == 6 && signature == 0x3B31);
    for (size_t n = 0; n < sizeof headers; n++) CHECK(mbus_format_of(&t, full, n, &signature) == MBUS_E_NO_SPACE);
    CHECK(mbus_compact_signature(&t) == MBUS_E_UNSUPPORTED_CI);

    size_t other_size = make(bytes, 0x71, records, 1); /* an alarm has no records */
    CHECK(mbus_telegram_read(bytes, other_size, &t, NULL) == MBUS_OK);
    CHECK(mbus_format_of(&t, full, sizeof full, &signature) == MBUS_E_UNSUPPORTED_CI);
    other_size = make(bytes, 0x78, records, sizeof records - 1);
    CHECK(mbus_telegram_read(bytes, other_size, &t, NULL) == MBUS_OK);
    CHECK(mbus_format_of(&t, full, sizeof full, &signature) == MBUS_E_DATA_END);

    size_t compact_size = make(bytes, 0x79, short_data, sizeof short_data);
    CHECK(mbus_telegram_read(bytes, compact_size, &t, NULL) == MBUS_OK);
    CHECK(mbus_compact_signature(&t) == 0x3B31);
    CHECK(mbus_format_of(&t, full, sizeof full, &signature) == MBUS_E_UNKNOWN_FORMAT);
    CHECK(mbus_compact_expand(&t, headers, 6, full, size) == (int)size);
    CHECK(mbus_compact_expand(&t, headers, 6, full, size - 1) == MBUS_E_NO_SPACE);
    CHECK(mbus_compact_expand(&t, headers, 5, full, size) == MBUS_E_UNKNOWN_FORMAT);
    for (size_t n = 0; n <= 4; n++) { /* signature and CRC at least */
        compact_size = make(bytes, 0x79, short_data, n);
        CHECK(mbus_telegram_read(bytes, compact_size, &t, NULL) == MBUS_OK);
        CHECK((mbus_compact_signature(&t) < 0) == (n < 4));
    }
}

/* Record headers whose signature is right, and that still do not make a frame. */
static int expanded(const uint8_t *headers, size_t n, size_t data_size)
{
    static uint8_t data[MBUS_DATA_MAX];
    uint8_t bytes[MBUS_FRAME_MAX], full[MBUS_FRAME_MAX];
    uint16_t signature = mbus_crc(headers, n);
    mbus_telegram t;

    data[0] = (uint8_t)(signature & 0xFF);
    data[1] = (uint8_t)(signature >> 8);
    size_t size = make(bytes, 0x79, data, data_size);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK);
    return mbus_compact_expand(&t, headers, n, full, sizeof full);
}

static void compact_frames_that_do_not_expand(void)
{
    static uint8_t headers[MBUS_DATA_MAX + 2];
    for (size_t i = 0; i < sizeof headers; i += 2) headers[i] = 0x02, headers[i + 1] = 0x13;
    CHECK(expanded(headers, 126, 4 + 126) == MBUS_E_BAD_CRC); /* 63 records of 4 bytes: 252 */
    CHECK(expanded(headers, 128, 4 + 128) == MBUS_E_NO_SPACE);
    CHECK(expanded(headers, 126, 4 + 125) == MBUS_E_DATA_END);
    CHECK(expanded(headers, 126, 4 + 127) == MBUS_E_TRAILING_BYTES);
    CHECK(expanded(headers, MBUS_DATA_MAX + 2, 6) == MBUS_E_UNKNOWN_FORMAT);
    for (size_t i = 0; i < sizeof headers; i += 2) headers[i] = 0x00; /* without data: as many as a frame holds */
    CHECK(expanded(headers, MBUS_DATA_MAX, 4) == MBUS_E_BAD_CRC);
    CHECK(expanded((const uint8_t *)"\x84", 1, 6) == MBUS_E_DIF_END);
    CHECK(expanded((const uint8_t *)"\x02\x93", 2, 6) == MBUS_E_VIF_END);
    uint8_t *cut = exact((const uint8_t *)"\x01\xFC", 2); /* no byte behind it may be looked at */
    CHECK(expanded(cut, 2, 6) == MBUS_E_VAR_VIF_END);
    free(cut);
}

static void no_ci_is_beyond_the_table(void)
{
    for (unsigned ci = 0xC0; ci <= 0xFF; ci++) {
        uint8_t bytes[MBUS_FRAME_MAX];
        mbus_telegram t;
        size_t size = make(bytes, (uint8_t)ci, heat_meter, sizeof heat_meter);
        CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && t.error == MBUS_E_UNSUPPORTED_CI);
    }
    static const uint8_t without_data[] = { 0x80, 0x84, 0x85, 0x8A, 0x8B }; /* EN 13757-7, table 2: for the link alone */
    for (size_t i = 0; i < sizeof without_data; i++) {
        uint8_t bytes[MBUS_FRAME_MAX];
        mbus_telegram t;
        size_t size = make(bytes, without_data[i], heat_meter, sizeof heat_meter);
        CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && t.error == MBUS_OK && t.payload == MBUS_PAYLOAD_NONE);
    }
}

static void frames_without_ci_have_no_records(void)
{
    static const uint8_t request[] = { 0x10, 0x5B, 0x05, 0x60, 0x16 };
    static const uint8_t ack[] = { 0xE5 };
    mbus_telegram t;
    mbus_record r;
    CHECK(mbus_telegram_read(request, sizeof request, &t, NULL) == MBUS_OK && t.error == MBUS_OK && mbus_next(&t.records, &r) == 0);
    CHECK(t.frame.type == MBUS_FRAME_SHORT && t.frame.c == 0x5B && t.frame.a == 5 && t.payload == MBUS_PAYLOAD_NONE);
    CHECK(mbus_telegram_read(ack, sizeof ack, &t, NULL) == MBUS_OK && t.frame.type == MBUS_FRAME_ACK && mbus_next(&t.records, &r) == 0);
}

static void what_c_sees_of_a_telegram(void)
{
    static const uint8_t sealed[] = { 0x78, 0x56, 0x34, 0x12, 0x24, 0x40, 0x01, 0x07, 0x55, 0x00, 0x10, 0x05, 1, 2, 3, 4,
                                      5,    6,    7,    8,    9,    10,   11,   12,   13,   14,   15,   16 };
    static const uint8_t fixed[2][16] = { { 0x78, 0x56, 0x34, 0x12, 1, 0, 5, 5, 1, 0, 0, 0, 2, 0, 0, 0 },
                                          { 0x78, 0x56, 0x34, 0x12, 1, 1, 5, 5, 1, 0, 0, 0, 2, 0, 0, 0 } };
    uint8_t bytes[MBUS_FRAME_MAX];
    mbus_telegram t;
    mbus_record r;

    size_t size = make(bytes, 0x72, sealed, sizeof sealed);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && t.error == MBUS_E_ENCRYPTED && t.error_offset == 19);
    CHECK(t.payload == MBUS_PAYLOAD_RAW && t.body == 19 && t.body_end == 19 + 16 && mbus_next(&t.records, &r) == 0);
    for (unsigned binary = 0; binary < 2; binary++) {
        size = make(bytes, 0x73, fixed[binary], 16);
        CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && t.payload == MBUS_PAYLOAD_FIXED);
        for (unsigned i = 0; i < 2; i++) {
            CHECK(mbus_next(&t.records, &r) == 1 && r.field == (binary ? 4 : 12) && r.position == 15 + 4 * i);
            CHECK(r.data == bytes + r.position && r.data_length == 4 && !r.dib && r.vib == bytes + 13 + i && r.vib_length == 1);
        }
        CHECK(mbus_next(&t.records, &r) == 0 && t.records.count == 2);
        CHECK(mbus_compact_signature(&t) == MBUS_E_UNSUPPORTED_CI); /* CI 73 with 16 bytes is the fixed structure */
    }
}

static void a_profile_is_taken_element_by_element(void)
{
    static const uint8_t records[] = { 0x0C, 0x13, 0x00, 0x10, 0x00, 0x00, 0x0D, 0x93, 0x1F, 0x04, 0x41, 0x00, 0x01, 0x02 };
    uint8_t bytes[MBUS_FRAME_MAX];
    mbus_telegram t;
    mbus_record base, r, element;
    mbus_profile profile;
    mbus_time time;
    mbus_type type;

    size_t size = make(bytes, 0x78, records, sizeof records);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK);
    mbus_cursor cursor = t.records;
    CHECK(mbus_next(&cursor, &base) == 1 && mbus_next(&cursor, &r) == 1 && mbus_next(&cursor, &element) == 0);
    CHECK(mbus_profile_open(&t, &base, &profile) == MBUS_E_BAD_VALUE && mbus_profile_open(&t, &r, &profile) == MBUS_OK);
    CHECK(mbus_profile_next(&profile, &element, &time, &type) == 1 && element.number.magnitude == 1001 && element.storage == 1);
    CHECK(type == MBUS_TYPE_NONE && mbus_profile_next(&profile, &element, &time, &type) == 1 && element.number.magnitude == 1003);
    CHECK(mbus_profile_next(&profile, &element, &time, &type) == 0 && mbus_profile_next(&profile, &element, &time, &type) == 0);
}

/* The base value 5 and a profile with these control bytes and data. */
static mbus_profile profile_of(const uint8_t *data, size_t n)
{
    static uint8_t bytes[MBUS_FRAME_MAX];
    uint8_t records[MBUS_DATA_MAX] = { 0x0C, 0x13, 0x05, 0x00, 0x00, 0x00, 0x0D, 0x93, 0x1F, (uint8_t)n };
    mbus_telegram t;
    mbus_record r;
    mbus_profile profile;

    memset(&profile, 0, sizeof profile);
    memcpy(records + 10, data, n);
    size_t size = make(bytes, 0x78, records, 10 + n);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK);
    mbus_cursor cursor = t.records;
    CHECK(mbus_next(&cursor, &r) == 1 && mbus_next(&cursor, &r) == 1 && mbus_profile_open(&t, &r, &profile) == MBUS_OK);
    return profile;
}

static void elements_of_a_profile_are_numbers(void)
{
    static const uint8_t decrements[] = { 0x81, 0x00, 0x05, 0x01 }, reals[] = { 0x45, 0x00, 0x00, 0x00, 0x80, 0x3F };
    static const uint8_t half[] = { 0x02, 0x00, 0x01, 0x00, 0x02 };
    mbus_record element;
    mbus_time time;
    mbus_type type;

    mbus_profile p = profile_of(decrements, sizeof decrements); /* 0 is not negative, whichever way the sum came there */
    CHECK(mbus_profile_next(&p, &element, &time, &type) == 1 && element.number.magnitude == 0 && !element.number.negative);
    CHECK(element.type == MBUS_TYPE_NUMBER && element.data_length == 1 && !element.bytes && element.length == 0);
    CHECK(mbus_profile_next(&p, &element, &time, &type) == 1 && element.number.magnitude == 1 && element.number.negative);
    p = profile_of(reals, sizeof reals); /* no step of a sum: a number without value */
    CHECK(mbus_profile_next(&p, &element, &time, &type) == 1 && element.type == MBUS_TYPE_NUMBER);
    CHECK(element.flags & MBUS_FLAG_VALUE_INVALID);
    p = profile_of(half, sizeof half);
    CHECK(mbus_profile_next(&p, &element, &time, &type) == 1 && element.number.magnitude == 1);
    CHECK(mbus_profile_next(&p, &element, &time, &type) == MBUS_E_DATA_END);
    CHECK(mbus_profile_next(&p, &element, &time, &type) == 0);
}

/* EN 13757-3, Annex A: types I and J have seconds, type F ends with the minute. */
static void times_tell_whether_they_have_seconds(void)
{
    static const uint8_t fields[] = { 3, 4, 6 };
    for (size_t i = 0; i < sizeof fields; i++) {
        uint8_t records[] = { fields[i], 0x6D, 1, 1, 1, 1, 1, 1 }, bytes[MBUS_FRAME_MAX];
        mbus_telegram t;
        mbus_record r;
        size_t size = make(bytes, 0x78, records, 2u + fields[i]);
        CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && mbus_next(&t.records, &r) == 1);
        CHECK(!(r.flags & MBUS_FLAGS_NO_VALUE) && r.time.has_seconds == (fields[i] != 4));
    }
}

/* A digit A..F takes the sign with it, wherever that stands: in the top digit or in LVAR. */
static void digits_that_are_none_have_no_sign(void)
{
    static const uint8_t records[] = { 0x0A, 0x13, 0xA0, 0xF0, 0x0D, 0x13, 0xD1, 0x1A, 0x0D, 0x13, 0xD1, 0x11 };
    uint8_t bytes[MBUS_FRAME_MAX];
    mbus_telegram t;
    mbus_record r;

    size_t size = make(bytes, 0x78, records, sizeof records);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK);
    CHECK(mbus_next(&t.records, &r) == 1 && r.flags & MBUS_FLAG_BCD_INVALID && !r.number.negative);
    CHECK(mbus_next(&t.records, &r) == 1 && r.flags & MBUS_FLAG_BCD_INVALID && !r.number.negative);
    CHECK(mbus_next(&t.records, &r) == 1 && r.flags == 0 && r.number.negative);
}

/* EN 13757-3, Annex A, type K: four bytes. */
static void a_daylight_saving_rule_has_four_bytes(void)
{
    static const uint8_t records[] = { 0x04, 0xFD, 0x72, 0x02, 0x1F, 0x3B, 0xA3, 0x01, 0x13, 0x05 };
    uint8_t bytes[MBUS_FRAME_MAX];
    mbus_telegram t;
    mbus_record r;

    size_t size = make(bytes, 0x78, records, sizeof records);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && mbus_next(&t.records, &r) == 1);
    CHECK(r.coding == MBUS_CODING_DST_RULE && r.type == MBUS_TYPE_BYTES && r.bytes == r.data && r.length == 4);
    char text[64];
    const char *const want = "off, from 03-31 02:00 to 10-27, -1 h";
    CHECK(mbus_dst_rule_text(&r, text, sizeof text) == (int)strlen(want) && memcmp(text, want, strlen(want)) == 0);
    r.bytes = (const uint8_t *)"\xA3\xDB\x9E\xE3"; /* mode 2; the upper bits of the hour are the zone */
    r.msb_first = true;
    CHECK(mbus_dst_rule_text(&r, text, sizeof text) == 35 && memcmp(text, "on, from 03-30 03:00 to 10-27, +2 h", 35) == 0);
}

static void records_are_counted(void)
{
    static const uint8_t few[] = { 0x01, 0x13, 0x05, 0x2F, 0x2F, 0x00, 0x13, 0x0F, 0x01, 0x13 }; /* neither fillers nor private data */
    uint8_t most[MBUS_DATA_MAX], bytes[MBUS_FRAME_MAX];
    mbus_telegram t;
    mbus_record r;

    size_t size = make(bytes, 0x78, few, sizeof few);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && t.records.count == 0);
    CHECK(mbus_next(&t.records, &r) == 1 && t.records.count == 1 && mbus_next(&t.records, &r) == 1 && t.records.count == 2);
    CHECK(mbus_next(&t.records, &r) == 0 && t.records.count == 2);
    for (size_t i = 0; i < sizeof most; i += 2) most[i] = 0x00, most[i + 1] = 0x13; /* DIF and VIF at least */
    size = make(bytes, 0x78, most, sizeof most);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK);
    while (mbus_next(&t.records, &r) > 0) continue;
    CHECK(t.records.count == 126);
}

/* EN 13757-3, table 10: numbers of a device are digits, its address is a number. */
static void numbers_of_a_device_are_digits(void)
{
    static const struct {
        uint8_t vif;
        mbus_coding coding;
    } samples[] = { { 0x77, MBUS_CODING_NUM }, { 0x78, MBUS_CODING_ID }, { 0x79, MBUS_CODING_ID }, { 0x7A, MBUS_CODING_UNSIGNED } };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        uint8_t records[] = { 0x01, samples[i].vif, 0x05 }, bytes[MBUS_FRAME_MAX];
        mbus_telegram t;
        mbus_record r;
        size_t size = make(bytes, 0x78, records, sizeof records);
        CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && mbus_next(&t.records, &r) == 1);
        CHECK(r.coding == samples[i].coding && r.number.magnitude == 5);
    }
}

/* EN 13757-3, Annex B: the actions 0C and 0D have no data, whatever the DIF says. */
static void two_actions_have_no_data(void)
{
    for (uint8_t action = 0; action <= 0x0F; action++) {
        uint8_t records[] = { 0x01, 0x93, action, 0x00, 0x13 }, bytes[MBUS_FRAME_MAX];
        mbus_telegram t;
        mbus_record r;
        size_t size = make(bytes, 0x51, records, sizeof records);
        CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && mbus_next(&t.records, &r) == 1);
        CHECK(r.data_length == (action == 0x0C || action == 0x0D ? 0 : 1));
        size = make(bytes, 0x78, records, sizeof records); /* a meter reports errors with these codes */
        CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && mbus_next(&t.records, &r) == 1 && r.data_length == 1);
    }
}

/* The VIFE behind a VIF of each table; what follows the private VIF FF is private too. */
static void vifes_stand_behind_the_true_vif(void)
{
    static const struct {
        uint8_t record[6];
        int count;
    } samples[] = {
        { { 0x01, 0x93, 0x3C, 0x05 }, 1 },       { { 0x01, 0xFB, 0x80, 0x3C, 0x05 }, 1 },       { { 0x01, 0xFD, 0x80, 0x3C, 0x05 }, 1 },
        { { 0x01, 0xFD, 0xFD, 0x83, 0x3C, 0x05 }, 1 }, { { 0x01, 0xFD, 0xFD, 0x03, 0x05 }, 0 }, { { 0x01, 0xFF, 0x93, 0x3C, 0x05 }, 0 },
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        uint8_t bytes[MBUS_FRAME_MAX];
        mbus_telegram t;
        mbus_record r;
        unsigned state = 0, code = 0;
        size_t size = make(bytes, 0x78, samples[i].record, sizeof samples[i].record);
        CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && mbus_next(&t.records, &r) == 1);
        CHECK(mbus_next_vife(&r, &state, &code) == samples[i].count && (samples[i].count == 0 || code == 0x3C));
        CHECK(mbus_next_vife(&r, &state, &code) == 0);
    }
}

static void vifes_come_one_by_one(void)
{
    static const uint8_t records[] = { 0x01, 0xAB, 0xFC, 0x81, 0x22, 0x05 }; /* 5 W at phase L1, per hour */
    uint8_t bytes[MBUS_FRAME_MAX];
    mbus_telegram t;
    mbus_record r;
    unsigned state = 0, code = 0;

    size_t size = make(bytes, 0x78, records, sizeof records);
    CHECK(mbus_telegram_read(bytes, size, &t, NULL) == MBUS_OK && mbus_next(&t.records, &r) == 1);
    CHECK(mbus_next_vife(&r, &state, &code) == 1 && code == 0xFC01);
    CHECK(mbus_next_vife(&r, &state, &code) == 1 && code == 0x22);
    CHECK(mbus_next_vife(&r, &state, &code) == 0);
}

/* ------------------------------------------------------------------ texts */

#ifndef MBUS_NO_NAMES
/* Scripts compare code and kind. */
static void errors_have_their_codes(void)
{
    static const char *const errors[][3] = {
        { "ok", "ok", "no error" },
        { "bad_start", "framing", "a frame begins with E5, 10 or 68" },
        { "length_mismatch", "framing", "the two length bytes differ" },
        { "bad_second_start", "framing", "the second start byte is not 68" },
        { "length_too_small", "framing", "a length below 3 leaves no room for C, A and CI" },
        { "truncated_frame", "truncated", "the frame ends early" },
        { "trailing_bytes", "framing", "bytes follow the frame" },
        { "bad_checksum", "checksum", "the checksum is wrong" },
        { "bad_stop", "framing", "the frame does not end with 16" },
        { "header_too_short", "truncated", "the telegram ends inside its header" },
        { "fixed_length", "truncated", "a fixed data structure has 16 bytes" },
        { "premature_end_of_dif", "truncated", "the telegram ends inside a DIF/DIFE chain" },
        { "premature_end_of_vif", "truncated", "the telegram ends inside a VIF/VIFE chain" },
        { "premature_end_of_var_vif", "truncated", "the telegram ends inside a plain-text unit" },
        { "premature_end_of_data", "truncated", "the telegram ends inside the data of a record" },
        { "too_many_dife", "malformed", "a record has more than 10 DIFE" },
        { "too_many_vife", "malformed", "a record has more than 10 VIFE" },
        { "reserved_dif", "malformed", "a reserved DIF" },
        { "reserved_lvar", "malformed", "a reserved LVAR, so the length is unknown" },
        { "encrypted", "encrypted", "the telegram is encrypted" },
        { "unsupported_ci", "unsupported", "a CI field that carries no records" },
        { "no_space", "limit", "the result does not fit the buffer" },
        { "bad_value", "invalid", "the value does not fit the field" },
        { "unknown_format", "unsupported", "no format frame is known for this compact frame" },
        { "bad_crc", "checksum", "the CRC of the full frame is wrong" },
    };
    const int count = (int)(sizeof errors / sizeof errors[0]);
    for (int i = 0; i < count; i++) {
        CHECK(strcmp(mbus_error_code(-i), errors[i][0]) == 0);
        CHECK(strcmp(mbus_error_kind(-i), errors[i][1]) == 0);
        CHECK(strcmp(mbus_error_text(-i), errors[i][2]) == 0);
    }
    CHECK(count == 1 - MBUS_E_LAST);
    CHECK(strcmp(mbus_error_code(1), "ok") == 0 && strcmp(mbus_error_code(-count), "ok") == 0);
}

static void names_are_found_both_ways(void)
{
    mbus_record r = number_record(1, 0, false);
    char text[8];
    r.unit = MBUS_UNIT_M3;
    CHECK(mbus_unit_text(&r, text, 2) == 2 && memcmp(text, "m3", 2) == 0 && mbus_unit_text(&r, text, 1) == MBUS_E_NO_SPACE);
    CHECK(mbus_modifier_code("no_data_available", 0) == 0x15 && mbus_modifier_code("backward_only", 0) == 0x3C);
    CHECK(mbus_modifier_code("duration_of_last", 0) == 0x64 && mbus_modifier_code("duration_of_last", 3) == 0x67);
    CHECK(mbus_modifier_code("at_phase_l1", 0) == 0xFC01 && mbus_modifier_code("clear", 0) == 0x07);
    CHECK(mbus_modifier_code("backward_only", 3) == 0x3C && mbus_modifier_code("sideways", 0) == MBUS_E_BAD_VALUE);
    for (unsigned code = 0x10; code <= 0x7F; code++) {
        unsigned unit = 0; /* durations have four codes each, of one name */
        while (strcmp(mbus_modifier_name(code - unit - 1), mbus_modifier_name(code)) == 0) unit++;
        CHECK(unit < 4 && mbus_modifier_code(mbus_modifier_name(code), unit) == (int)code);
    }
    for (unsigned code = 0; code <= 0x1F; code++) {
        const char *error = mbus_record_error_name(code), *action = mbus_action_name(code);
        CHECK(!error || mbus_modifier_code(error, 0) == (int)code);
        CHECK(!action || mbus_modifier_code(action, 0) == (int)code);
    }
    for (unsigned code = 0xFC00; code <= 0xFC7F; code++) {
        const char *name = mbus_modifier_name(code);
        CHECK(strcmp(name, "reserved") == 0 || mbus_modifier_code(name, 0) == (int)code);
    }
    for (unsigned code = 0; code < 0x10; code++) /* actions and errors, which have lists of their own */
        CHECK(strcmp(mbus_modifier_name(code), "reserved") == 0 && strcmp(mbus_modifier_name(code + 0x80), "reserved") == 0);
    CHECK(strcmp(mbus_unit_name(MBUS_UNIT_COUNT), "") == 0 && strcmp(mbus_quantity_name(MBUS_QUANTITY_COUNT), "reserved") == 0);
}
#endif

/* More places than any meter asks for. */
static void an_exponent_of_any_size_has_its_places(void)
{
    for (int exponent = -55; exponent >= -200; exponent--) {
        const mbus_number number = { 7, 1, 0, (int16_t)exponent, true };
        char text[256];
        CHECK(mbus_number_text(&number, text, sizeof text) == 3 - exponent && memcmp(text, "-0.0", 4) == 0 && text[2 - exponent] == '7');
        CHECK(memchr(text + 1, '.', (size_t)(2 - exponent)) == text + 2 && strspn(text + 3, "0") == (size_t)(-1 - exponent));
    }
}

/* A text that does not fit leaves alone what stands behind the buffer. */
static void texts_stay_in_their_memory(void)
{
    const mbus_number number = { 220, 1, 0, -1, true }, shifted = { 220, 1, 5, -1, true };
    for (size_t n = 0; n < 8; n++) {
        char *small = malloc(n > 0 ? n : 1);
        if (!small) abort();
        CHECK(mbus_number_text(&number, small, n) == (n < 5 ? MBUS_E_NO_SPACE : 5));
        CHECK(mbus_number_text(&shifted, small, n) == (n < 7 ? MBUS_E_NO_SPACE : 7)); /* -21.995 */
        CHECK(mbus_utf8((const uint8_t *)"a\xE4", 2, false, small, n) == (n < 3 ? MBUS_E_NO_SPACE : 3));
        free(small);
    }
}

static void short_buffers_are_refused(void)
{
    const mbus_number number = { 220, 1, 0, -1, true }, wide = { 18446744073709551615u, 86400, 1001, -9, true };
    const mbus_time time = { 2024, 2, 29, 13, 45, 30, true };
    char text[MBUS_NUMBER_TEXT_MAX];
    CHECK(mbus_number_text(&number, text, 5) == 5 && mbus_number_text(&number, text, 4) == MBUS_E_NO_SPACE);
    int n = mbus_number_text(&wide, text, sizeof text);
    CHECK(n > 0 && mbus_number_text(&wide, text, (size_t)n) == n && mbus_number_text(&wide, text, (size_t)n - 1) == MBUS_E_NO_SPACE);
    CHECK(mbus_time_text(&time, MBUS_TYPE_DATETIME, text, 19) == 19);
    CHECK(mbus_time_text(&time, MBUS_TYPE_DATETIME, text, 18) == MBUS_E_NO_SPACE);
    CHECK(mbus_time_text(&time, MBUS_TYPE_DATE, text, 10) == 10 && mbus_time_text(&time, MBUS_TYPE_TIME, text, 8) == 8);
    CHECK(mbus_utf8((const uint8_t *)"a\xE4", 2, false, text, 3) == 3 && memcmp(text, "a\xC3\xA4", 3) == 0);
    CHECK(mbus_utf8((const uint8_t *)"a\xE4", 2, true, text, 3) == 3 && memcmp(text, "\xC3\xA4" "a", 3) == 0);
    CHECK(mbus_utf8((const uint8_t *)"a\xE4", 2, false, text, 2) == MBUS_E_NO_SPACE);
    mbus_record r = number_record(0x0D, 0, false); /* the glyphs leave out the LVAR */
    r.data = (const uint8_t *)"\xC2\xEB\xDD";
    r.data_length = 3;
    CHECK(mbus_bcd_glyphs(&r, text, 4) == 4 && memcmp(text, "  E-", 4) == 0 && mbus_bcd_glyphs(&r, text, 3) == MBUS_E_NO_SPACE);
}

/* Packed letters of EN 62056-21: A is 1, five bits each. */
static void manufacturers_have_three_letters(void)
{
    uint16_t code = 0;
    char letters[4];
    CHECK(mbus_manufacturer_code("HYD", &code) && code == 0x2324);
    CHECK(mbus_manufacturer_code("AAA", &code) && code == 0x0421);
    CHECK(mbus_manufacturer_code("ZZZ", &code) && code == 0x6B5A);
    CHECK(mbus_manufacturer_letters(0x2324, letters) && strcmp(letters, "HYD") == 0);
    CHECK(mbus_manufacturer_letters(0x0421, letters) && strcmp(letters, "AAA") == 0);
    CHECK(mbus_manufacturer_letters(0x6B5A, letters) && strcmp(letters, "ZZZ") == 0);
    CHECK(!mbus_manufacturer_letters(0x0420, letters) && !mbus_manufacturer_letters(0x6B5B, letters));
    CHECK(!mbus_manufacturer_letters(0x0021, letters) && !mbus_manufacturer_letters(0x0401, letters));
    CHECK(!mbus_manufacturer_code("AB", &code) && !mbus_manufacturer_code("ABCD", &code));
    CHECK(!mbus_manufacturer_code("AbC", &code) && !mbus_manufacturer_code("A@C", &code) && !mbus_manufacturer_code("A[C", &code));
}

int main(void)
{
    frames_survive_writing_and_reading();
    one_wrong_byte_is_noticed();
    cuts_do_not_change_the_frames();
    nothing_behind_a_frame_is_taken();
    a_frame_tells_its_size_as_soon_as_it_can();
    records_are_read_up_to_the_damage();
    damage_never_leads_out_of_bounds();
    number_text_is_exact();
    every_vif_code_has_its_row();
    bcd_of_any_length_is_written();
    binary_of_any_length_is_written();
    byte_strings_have_the_lengths_of_the_table();
    fields_take_what_fits_them();
    bytes_have_the_length_of_their_field();
    mode_2_is_written();
    summer_time_is_written();
    dibs_have_their_bits();
    vifs_are_written();
    a_frame_takes_252_bytes();
    compact_frames_stay_in_their_memory();
    compact_frames_that_do_not_expand();
    no_ci_is_beyond_the_table();
    frames_without_ci_have_no_records();
    what_c_sees_of_a_telegram();
    a_profile_is_taken_element_by_element();
    elements_of_a_profile_are_numbers();
    times_tell_whether_they_have_seconds();
    digits_that_are_none_have_no_sign();
    a_daylight_saving_rule_has_four_bytes();
    records_are_counted();
    numbers_of_a_device_are_digits();
    two_actions_have_no_data();
    vifes_stand_behind_the_true_vif();
    vifes_come_one_by_one();
#ifndef MBUS_NO_NAMES
    errors_have_their_codes();
    names_are_found_both_ways();
#endif
    an_exponent_of_any_size_has_its_places();
    texts_stay_in_their_memory();
    short_buffers_are_refused();
    manufacturers_have_three_letters();
    printf("C checks: %u passed, %u failed\n", passed, failed);
    return failed > 0;
}
