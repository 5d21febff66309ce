/* core.c - speed of the C core alone: telegrams in, records, values, units and texts out, and back.
 *
 *   core MODE (-t SECONDS | -n ROUNDS) TELEGRAMS.hex [PIECES.hex]
 *
 * Telegrams stand as hex, one a line or spread over lines; the pieces of a noisy stream one a line. Modes:
 *   frame     frame and header
 *   records   and walk all records: quantity, storage, the number as integer and power of ten
 *   values    and a double, a date's or string's text, and the unit's text of every record
 *   texts     and the exact decimal text of every number
 *   write     write every record from its quantity, storage and value
 *   deframe   find the frames in the noisy stream, piece by piece
 * It prints how much of what it has done in how many seconds of CPU: "records: 123456 telegrams 0.5 s". With -n the work is
 * fixed, so that the instructions of n more rounds can be told from those of two runs.
 */
#define _POSIX_C_SOURCE 200809L

#include "../core/mbus.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TELEGRAMS_MAX = 4096, RECORDS_MAX = 65536, PIECES_MAX = 65536, STREAM_MAX = 1 << 20 };

static struct {
    uint8_t bytes[MBUS_FRAME_MAX];
    size_t n;
} telegrams[TELEGRAMS_MAX];
static size_t telegram_count;

static mbus_record records[RECORDS_MAX]; /* of all telegrams, views into them */
static size_t record_count;

/* A noisy stream and where its pieces end. */
static uint8_t stream[STREAM_MAX];
static size_t piece_ends[PIECES_MAX], piece_count;

/* ------------------------------------------------------------------ what is measured */

/* What is computed goes here, so that no compiler can leave it out. */
static volatile double value_sink;
static volatile unsigned sink;

static double power_of_ten(int exponent)
{
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12};
    double power = 1;

    for (; exponent > 12; exponent -= 12)
        power *= 1e12;
    return power * powers[exponent];
}

static double scaled(double value, const mbus_number *number)
{
    value *= number->factor;
    value = number->exponent < 0 ? value / power_of_ten(-number->exponent) : value * power_of_ten(number->exponent);
    return value + number->offset / 1000.0;
}

static unsigned take_value(const mbus_record *r, bool exact)
{
    char text[2 * MBUS_FRAME_MAX];

    switch (r->type) {
    case MBUS_TYPE_NUMBER:
        value_sink = scaled(r->number.negative ? -(double)r->number.magnitude : (double)r->number.magnitude, &r->number);
        return exact ? (unsigned)mbus_number_text(&r->number, text, sizeof text) : 0;
    case MBUS_TYPE_REAL:
        value_sink = scaled((double)r->real, &r->number);
        return 0;
    case MBUS_TYPE_STRING:
        return (unsigned)mbus_utf8(r->bytes, r->length, !r->msb_first, text, sizeof text);
    case MBUS_TYPE_DATE:
    case MBUS_TYPE_DATETIME:
    case MBUS_TYPE_TIME:
        return (unsigned)mbus_time_text(&r->time, r->type, text, sizeof text);
    default:
        return r->length;
    }
}

static unsigned take_unit(const mbus_record *r)
{
    char text[MBUS_UNIT_TEXT_MAX];

    return (unsigned)mbus_unit_text(r, text, sizeof text);
}

/* One function a mode, so that a profiler can tell them apart: one round, with what it is counted in. */

#define MEASURE(name) \
    static void telegram_##name(const uint8_t *bytes, size_t n); \
    __attribute__((noinline)) static size_t measure_##name(void) \
    { \
        for (size_t i = 0; i < telegram_count; i++) \
            telegram_##name(telegrams[i].bytes, telegrams[i].n); \
        return telegram_count; \
    } \
    static void telegram_##name(const uint8_t *bytes, size_t n)

MEASURE(frame)
{
    mbus_telegram t;

    if (mbus_telegram_read(bytes, n, &t, NULL) == MBUS_OK)
        sink = t.header.id;
}

MEASURE(records)
{
    mbus_telegram t;
    mbus_record r;

    if (mbus_telegram_read(bytes, n, &t, NULL) == MBUS_OK)
        while (mbus_next(&t.records, &r) > 0)
            sink = r.quantity;
}

MEASURE(values)
{
    mbus_telegram t;
    mbus_record r;

    if (mbus_telegram_read(bytes, n, &t, NULL) == MBUS_OK)
        while (mbus_next(&t.records, &r) > 0)
            sink = (unsigned)*mbus_quantity_name(r.quantity) + take_value(&r, false) + take_unit(&r);
}

MEASURE(texts)
{
    mbus_telegram t;
    mbus_record r;

    if (mbus_telegram_read(bytes, n, &t, NULL) == MBUS_OK)
        while (mbus_next(&t.records, &r) > 0)
            sink = (unsigned)*mbus_quantity_name(r.quantity) + take_value(&r, true) + take_unit(&r);
}

__attribute__((noinline)) static size_t measure_write(void)
{
    uint8_t out[2 * MBUS_FRAME_MAX];

    for (size_t i = 0; i < record_count; i++)
        sink = (unsigned)mbus_record_write(&records[i], out, sizeof out, NULL);
    return record_count;
}

__attribute__((noinline)) static size_t measure_deframe(void)
{
    mbus_deframer deframer = {0};
    const uint8_t *p = stream;
    mbus_frame frame;

    for (size_t i = 0; i < piece_count; i++)
        for (mbus_event event; (event = mbus_deframe(&deframer, &p, stream + piece_ends[i], &frame)) != MBUS_MORE;)
            sink = (unsigned)event;
    return (size_t)(p - stream);
}

static const struct mode {
    const char *name, *unit;
    size_t (*measure)(void);
} modes[] = {{"frame", "telegrams", measure_frame},   {"records", "telegrams", measure_records}, {"values", "telegrams", measure_values},
             {"texts", "telegrams", measure_texts},   {"write", "records", measure_write},       {"deframe", "bytes", measure_deframe}};

enum { MODES = sizeof modes / sizeof modes[0] };

/* ------------------------------------------------------------------ what it is measured with */

/* The byte of the next two hex digits of a line. */
static bool next_byte(const char **text, uint8_t *byte)
{
    char digits[3] = "";

    while (**text && !isxdigit((unsigned char)**text))
        ++*text;
    if (!**text || !isxdigit((unsigned char)(*text)[1]))
        return false;
    memcpy(digits, *text, 2);
    *text += 2;
    *byte = (uint8_t)strtoul(digits, NULL, 16);
    return true;
}

static void add_records(mbus_cursor cursor)
{
    uint8_t out[2 * MBUS_FRAME_MAX];

    while (record_count < RECORDS_MAX && mbus_next(&cursor, &records[record_count]) > 0)
        if (mbus_record_write(&records[record_count], out, sizeof out, NULL) > 0)
            record_count++;
}

static void add_telegram(const uint8_t *bytes, size_t n)
{
    mbus_telegram t;

    if (telegram_count == TELEGRAMS_MAX || mbus_telegram_read(bytes, n, &t, NULL) != MBUS_OK)
        return;
    memcpy(telegrams[telegram_count].bytes, bytes, n);
    telegrams[telegram_count].n = n;
    mbus_telegram_read(telegrams[telegram_count++].bytes, n, &t, NULL); /* the views are of the copy */
    add_records(t.records);
}

/* What is between the telegrams, and no frame, is left out. */
static void add_line(const char *line)
{
    static mbus_deframer deframer;
    mbus_frame frame;
    uint8_t byte;

    while (next_byte(&line, &byte)) {
        const uint8_t *p = &byte;
        for (mbus_event event; (event = mbus_deframe(&deframer, &p, &byte + 1, &frame)) != MBUS_MORE;)
            if (event == MBUS_FRAME)
                add_telegram(deframer.buffer, frame.size);
    }
}

static void add_piece(const char *line)
{
    static size_t size;

    while (size < STREAM_MAX && next_byte(&line, &stream[size]))
        size++;
    if (piece_count < PIECES_MAX)
        piece_ends[piece_count++] = size;
}

static bool each_line(const char *name, void (*take)(const char *line))
{
    static char line[1 << 16];
    FILE *file = fopen(name, "r");

    if (!file)
        return false;
    while (fgets(line, sizeof line, file))
        take(line);
    fclose(file);
    return true;
}

/* ------------------------------------------------------------------ measuring */

/* Of this process, as others use the machine too. */
static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* `rounds` rounds, or as many as take `seconds`. */
static void run(const struct mode *mode, long rounds, double seconds)
{
    double start = cpu_seconds(), end = start + seconds;
    size_t done = 0;

    for (long n = 0; rounds ? n < rounds : cpu_seconds() < end; n++)
        for (int i = 0; i < (rounds ? 1 : 100); i++)
            done += mode->measure();
    printf("%s: %lu %s %.9f s\n", mode->name, (unsigned long)done, mode->unit, cpu_seconds() - start);
}

int main(int argc, char **argv)
{
    bool is_timed;

    if (argc < 5 || ((is_timed = strcmp(argv[2], "-t") == 0) == (strcmp(argv[2], "-n") == 0)))
        return fprintf(stderr, "core MODE (-t SECONDS | -n ROUNDS) TELEGRAMS.hex [PIECES.hex]\n"), 2;
    if (!each_line(argv[4], add_line) || (argc > 5 && !each_line(argv[5], add_piece)))
        return fprintf(stderr, "the telegrams cannot be read\n"), 2;
    for (int i = 0; i < MODES; i++)
        if (strcmp(argv[1], modes[i].name) == 0)
            return run(&modes[i], is_timed ? 0 : atol(argv[3]), atof(argv[3])), 0;
    return fprintf(stderr, "there is no mode %s\n", argv[1]), 2;
}
