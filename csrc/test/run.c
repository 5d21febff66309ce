/* run.c - checks of the C core, to be built with sanitizers.
 *
 * What the core makes of good telegrams is checked from Lua; here are cuts, damage and bounds: every parser gets memory
 * of exactly the size it was told, so that one byte too far is found.
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

/* ------------------------------------------------------------------ telegrams */

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
        unsigned state = 0, code;
        while (mbus_next_vife(&record, &state, &code) > 0)
            if (!mbus_modifier_name(code)) text[0] = 0; /* a private code has no name */
        if (!mbus_quantity_name(record.quantity) || !mbus_unit_name(record.unit)) return -1;
        if (mbus_unit_text(&record, text, MBUS_UNIT_TEXT_MAX) < 0) return -1;
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

int main(void)
{
    frames_survive_writing_and_reading();
    one_wrong_byte_is_noticed();
    cuts_do_not_change_the_frames();
    records_are_read_up_to_the_damage();
    damage_never_leads_out_of_bounds();
    number_text_is_exact();
    every_vif_code_has_its_row();
    printf("C checks: %u passed, %u failed\n", passed, failed);
    return failed > 0;
}
