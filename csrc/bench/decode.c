/* decode.c - speed of the C core alone: telegrams in, records, values, units and texts out.
 *
 *   decode [-t SECONDS] [-n ROUNDS] [-m MODE] [FILE.hex...]
 *
 * Each file holds telegrams as hex, one a line or spread over lines; without files, one heat meter. Modes:
 *   frame     frame and header
 *   records   and walk all records: quantity, storage, the number as integer and power of ten
 *   values    and a double, a date's or string's text, and the unit's text of every record
 *   texts     and the exact decimal text of every number
 * With -n the rounds are fixed, for instruction counts (valgrind --tool=callgrind --toggle-collect='measure_*').
 */
#define _POSIX_C_SOURCE 200809L

#include "../core/mbus.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TELEGRAMS_MAX = 4096 };

static struct {
    uint8_t bytes[MBUS_FRAME_MAX];
    size_t n;
} telegrams[TELEGRAMS_MAX];
static size_t telegram_count;

static const char sample[] = "68 5E 5E 68 08 00 72 47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01 0C 12 91 72 64 02 0C 2A 00 00 00 00 "
                             "0B 3A 00 00 00 0A 5A 22 05 0A 5E 23 04 0A 62 99 00 04 6D 21 16 0A 39 4C 05 30 78 11 00 44 6D 00 00 1E 14 "
                             "44 ED 7E 00 00 3F 1C 8C 01 05 20 30 69 01 84 01 6D 00 00 FF 2C 0B 26 02 03 16 F5 16";

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

/* One function a mode, so that a profiler can tell them apart. Each returns the number of records. */

#define MEASURE(name) \
    __attribute__((noinline)) static unsigned measure_##name(const uint8_t *bytes, size_t n)

MEASURE(frame)
{
    mbus_telegram t;

    if (mbus_telegram_read(bytes, n, &t, NULL) == MBUS_OK)
        sink = t.header.id;
    return 0;
}

MEASURE(records)
{
    mbus_telegram t;
    mbus_record r;
    unsigned count = 0;

    if (mbus_telegram_read(bytes, n, &t, NULL) == MBUS_OK)
        for (; mbus_next(&t.records, &r) > 0; count++)
            sink = r.quantity;
    return count;
}

MEASURE(values)
{
    mbus_telegram t;
    mbus_record r;
    unsigned count = 0;

    if (mbus_telegram_read(bytes, n, &t, NULL) == MBUS_OK)
        for (; mbus_next(&t.records, &r) > 0; count++)
            sink = (unsigned)*mbus_quantity_name(r.quantity) + take_value(&r, false) + take_unit(&r);
    return count;
}

MEASURE(texts)
{
    mbus_telegram t;
    mbus_record r;
    unsigned count = 0;

    if (mbus_telegram_read(bytes, n, &t, NULL) == MBUS_OK)
        for (; mbus_next(&t.records, &r) > 0; count++)
            sink = (unsigned)*mbus_quantity_name(r.quantity) + take_value(&r, true) + take_unit(&r);
    return count;
}

static const struct mode {
    const char *name;
    unsigned (*measure)(const uint8_t *bytes, size_t n);
} modes[] = {{"frame", measure_frame}, {"records", measure_records}, {"values", measure_values}, {"texts", measure_texts}};

enum { MODES = sizeof modes / sizeof modes[0] };

/* ------------------------------------------------------------------ telegrams */

static void add(const uint8_t *bytes, size_t n)
{
    mbus_telegram t;

    if (telegram_count == TELEGRAMS_MAX || mbus_telegram_read(bytes, n, &t, NULL) != MBUS_OK)
        return;
    memcpy(telegrams[telegram_count].bytes, bytes, n);
    telegrams[telegram_count++].n = n;
}

/* Telegrams stand one behind another in the hex digits; noise between them is left out. */
static void add_hex(const char *text, size_t size)
{
    static mbus_deframer deframer;
    mbus_frame frame;
    unsigned byte;

    for (size_t i = 0; i + 1 < size; i++) {
        uint8_t one;
        const uint8_t *p = &one;
        if (!isxdigit((unsigned char)text[i]) || !isxdigit((unsigned char)text[i + 1]) || sscanf(text + i++, "%2x", &byte) != 1)
            continue;
        one = (uint8_t)byte;
        for (mbus_event event; (event = mbus_deframe(&deframer, &p, &one + 1, &frame)) != MBUS_MORE;)
            if (event == MBUS_FRAME)
                add(deframer.buffer, frame.size);
    }
    memset(&deframer, 0, sizeof deframer);
}

static bool add_file(const char *name)
{
    static char text[1 << 20];
    FILE *file = fopen(name, "r");
    size_t n;

    if (!file)
        return false;
    n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    fclose(file);
    add_hex(text, n);
    return true;
}

/* ------------------------------------------------------------------ measuring */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Returns the records of one round. */
static unsigned round_of(const struct mode *mode)
{
    unsigned records = 0;

    for (size_t i = 0; i < telegram_count; i++)
        records += mode->measure(telegrams[i].bytes, telegrams[i].n);
    return records;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Seconds of one round: the median of as many as fit into `seconds`, at most a thousand batches. */
static double median_round(const struct mode *mode, double seconds)
{
    static double times[1000];
    size_t count = 0;
    double end = now() + seconds;

    while (count < sizeof times / sizeof times[0] && (count < 3 || now() < end)) {
        double start = now();
        for (int i = 0; i < 10; i++)
            round_of(mode);
        times[count++] = (now() - start) / 10;
    }
    qsort(times, count, sizeof times[0], by_size);
    return times[count / 2];
}

static void report(const struct mode *mode, double seconds)
{
    double round = median_round(mode, seconds);
    unsigned records = round_of(mode);

    printf("%-8s %9.0f ns/telegram %11.0f telegrams/s", mode->name, round * 1e9 / (double)telegram_count, (double)telegram_count / round);
    if (records)
        printf(" %8.1f ns/record", round * 1e9 / records);
    printf("\n");
}

int main(int argc, char **argv)
{
    double seconds = 1;
    long rounds = 0;
    const char *only = NULL;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-t") == 0 && i + 1 < argc)
            seconds = atof(argv[++i]);
        else if (strcmp(argv[i], "-n") == 0 && i + 1 < argc)
            rounds = atol(argv[++i]);
        else if (strcmp(argv[i], "-m") == 0 && i + 1 < argc)
            only = argv[++i];
        else if (!add_file(argv[i]))
            return fprintf(stderr, "%s: cannot be read\n", argv[i]), 2;
    }
    if (argc == 1 || telegram_count == 0)
        add_hex(sample, sizeof sample - 1);
    printf("telegrams %lu records %u\n", (unsigned long)telegram_count, round_of(&modes[1]));
    for (int i = 0; i < MODES; i++) {
        if (only && strcmp(only, modes[i].name) != 0)
            continue;
        for (long n = 0; n < rounds; n++)
            round_of(&modes[i]);
        if (rounds == 0)
            report(&modes[i], seconds);
    }
    return 0;
}
