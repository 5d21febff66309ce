/* roundtrip.c - fuzz target: every record with a value can be written again, and then reads the same.
 *
 * Input: see fuzz_frame. Canonical numbers and reals must give the very bytes they came from; what is written must be
 * canonical itself.
 */
#include "fuzz.h"

static void read_again(const uint8_t *bytes, size_t n, const mbus_record *like, mbus_record *r)
{
    mbus_cursor cursor = {.bytes = bytes, .end = (uint16_t)n, .msb_first = like->msb_first};

    cursor.structure = like->command ? MBUS_PAYLOAD_COMMAND : MBUS_PAYLOAD_RECORDS;
    CHECK(mbus_next(&cursor, r) == 1 && cursor.position == n);
}

static bool same_time(const mbus_time *a, const mbus_time *b)
{
    return a->year == b->year && a->month == b->month && a->day == b->day && a->hour == b->hour && a->minute == b->minute &&
           a->second == b->second && a->has_seconds == b->has_seconds;
}

static void check_same(const mbus_record *a, const mbus_record *b)
{
    /* Minus zero is written as zero, unused hundred-year bits are left out. */
    unsigned ignored = MBUS_FLAG_HUNDRED_YEARS | (a->number.magnitude ? 0u : (unsigned)MBUS_FLAG_BCD_NEGATIVE);

    CHECK(a->storage == b->storage && a->tariff == b->tariff && a->subunit == b->subunit);
    CHECK(a->function == b->function && a->field == b->field && a->type == b->type && a->coding == b->coding);
    CHECK(a->quantity == b->quantity && a->unit == b->unit && a->record_error == b->record_error);
    CHECK(a->vib_length == b->vib_length && memcmp(a->vib, b->vib, a->vib_length) == 0);
    CHECK((a->flags & ~ignored) == (b->flags & ~ignored));
    CHECK(a->number.exponent == b->number.exponent && a->number.factor == b->number.factor);
    CHECK(a->number.offset == b->number.offset);
    switch (a->type) {
    case MBUS_TYPE_NUMBER:
        CHECK(a->number.magnitude == b->number.magnitude);
        CHECK(a->number.negative == b->number.negative || a->number.magnitude == 0);
        break;
    case MBUS_TYPE_REAL:
        CHECK(memcmp(&a->real, &b->real, sizeof a->real) == 0);
        break;
    case MBUS_TYPE_STRING:
    case MBUS_TYPE_BYTES:
        CHECK(a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0);
        break;
    case MBUS_TYPE_NONE:
        break;
    default:
        CHECK(same_time(&a->time, &b->time));
        break;
    }
}

/* As few DIFEs as the numbers need: the last says something, or is the final one. */
static bool has_canonical_dib(const mbus_record *r)
{
    unsigned n = r->dib_length;

    if (r->flags & MBUS_FLAG_FINAL_DIFE)
        n--;
    return n == 1 || (r->dib[n - 1] & 0x7F) != 0;
}

static bool has_canonical_data(const mbus_record *r)
{
    return r->type == MBUS_TYPE_REAL || r->type == MBUS_TYPE_NONE || r->type == MBUS_TYPE_STRING ||
           (r->type == MBUS_TYPE_NUMBER && (r->number.magnitude || !r->number.negative) && r->field != 0x0D) ||
           (r->type == MBUS_TYPE_DATE && r->data_length == 2);
}

static void check_record(const mbus_record *r)
{
    uint8_t out[2 * MBUS_FRAME_MAX], *exact;
    size_t original = (size_t)r->dib_length + r->vib_length + r->data_length;
    const char *problem = NULL;
    mbus_record again;
    int n = mbus_record_write(r, out, sizeof out, &problem);

    CHECK(n > 0);
    if (has_canonical_dib(r) && has_canonical_data(r))
        CHECK((size_t)n == original && memcmp(out, r->dib, original) == 0);
    exact = fuzz_exact(out, (size_t)n);
    CHECK(mbus_record_write(r, exact, (size_t)n, NULL) == n && memcmp(exact, out, (size_t)n) == 0);
    CHECK(mbus_record_write(r, exact, (size_t)n - 1, NULL) == MBUS_E_NO_SPACE);
    memcpy(exact, out, (size_t)n);
    read_again(exact, (size_t)n, r, &again);
    check_same(r, &again);
    CHECK(has_canonical_dib(&again));
    CHECK(mbus_record_write(&again, out, sizeof out, NULL) == n && memcmp(exact, out, (size_t)n) == 0);
    free(exact);
}

/* A value that is none can't be written; nor can data without a type where a command left it out. */
static bool is_writable(const mbus_record *r)
{
    return r->dib && !(r->flags & MBUS_FLAGS_NO_VALUE) && (r->type != MBUS_TYPE_NONE || r->field == 0 || r->field == 8);
}

/* Where a text stands may depend on the bytes behind the record. */
static bool stands_alone(const mbus_record *r)
{
    return !r->text || !(r->vib[0] & 0x80);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    size_t size;
    uint8_t *frame = fuzz_frame(bytes, n, &size);
    mbus_telegram t;
    mbus_record r;

    if (mbus_telegram_read(frame, size, &t, NULL) == MBUS_OK && t.payload != MBUS_PAYLOAD_FORMAT)
        while (mbus_next(&t.records, &r) > 0)
            if (is_writable(&r) && stands_alone(&r))
                check_record(&r);
    free(frame);
    return 0;
}
