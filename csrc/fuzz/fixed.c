/* fixed.c - fuzz target: the fixed data structure (CI 73 and 77) against a second reading by the tables of EN 1434-3.
 *
 * Input: options (1 CI 77), then 16 bytes; with another number of bytes it must be refused, or be a compact frame.
 */
#include "fuzz.h"

enum { SIZE = 16 };

static uint32_t load(const uint8_t *p, bool msb_first)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < 4; i++)
        value |= (uint32_t)p[msb_first ? 3 - i : i] << 8 * i;
    return value;
}

/* Six blocks of nine codes, each ten times the one before. */
static void check_unit(const mbus_record *r, unsigned code)
{
    static const char *const quantities[] = {"energy", "energy", "power", "power", "volume", "volume_flow"};
    static const char *const units[] = {"Wh", "J", "W", "J/h", "m3", "m3/h"};
    static const int exponents[] = {0, 3, 0, 3, -6, -6};
    const char *quantity = mbus_quantity_name(r->quantity), *unit = mbus_unit_name(r->unit);

    if (code >= 0x02 && code <= 0x37) {
        unsigned block = (code - 2) / 9;
        CHECK(strcmp(quantity, quantities[block]) == 0 && strcmp(unit, units[block]) == 0);
        CHECK(r->number.exponent == exponents[block] + (int)(code - 2) % 9);
        return;
    }
    CHECK(r->number.exponent == (code == 0x38 ? -3 : 0));
    if (code >= 0x3A && code <= 0x3E)
        CHECK(strcmp(quantity, "reserved") == 0);
    else
        CHECK(strcmp(quantity, "reserved") != 0);
    CHECK((*unit != '\0') == (code == 0x38 || code == 0x39));
}

static void check_bcd(const mbus_record *r, uint32_t word)
{
    bool negative = word >> 28 == 15, valid = true;
    uint32_t value = 0;

    for (int i = 7; i >= 0; i--) {
        unsigned digit = word >> 4 * i & 15;
        if (i == 7 && negative)
            digit = 0;
        valid = valid && digit < 10;
        value = value * 10 + digit;
    }
    CHECK(!(r->flags & MBUS_FLAG_BCD_INVALID) == valid);
    CHECK(!valid || (r->number.magnitude == value && r->number.negative == negative));
}

static void check_counter(const mbus_record *r, const uint8_t *head, unsigned index, bool msb_first)
{
    unsigned code = head[6 + index] & 0x3F, other = head[7 - index] & 0x3F;
    uint32_t word = load(head + 8 + 4 * index, msb_first);
    bool stored = (head[5] & 2) || code == 0x3E;

    CHECK(r->function == 0 && r->tariff == 0 && r->subunit == 0 && r->storage == (stored ? 1u : 0u));
    CHECK(r->data == head + 8 + 4 * index && r->data_length == 4);
    CHECK(r->type == MBUS_TYPE_NUMBER);
    check_unit(r, code == 0x3E ? other : code);
    if (head[5] & 1) {
        int64_t value = (int64_t)word - (word >> 31 ? (int64_t)1 << 32 : 0);
        CHECK((r->number.negative ? -(int64_t)r->number.magnitude : (int64_t)r->number.magnitude) == value);
        CHECK(!(r->flags & MBUS_FLAG_VALUE_INVALID) == (word != 0x80000000u));
    } else {
        check_bcd(r, word);
    }
}

static void check_telegram(const mbus_telegram *t, const uint8_t *head, bool mode2)
{
    unsigned medium = (head[7] >> 6) * 4u + (head[6] >> 6);
    bool msb_first = mode2 || (medium >= 10 && medium <= 14);
    mbus_cursor cursor = t->records;
    mbus_record r;

    CHECK(t->error == MBUS_OK && t->payload == MBUS_PAYLOAD_FIXED && t->header.type == MBUS_HEADER_FIXED);
    CHECK(t->header.medium == medium && t->header.access_number == head[4] && t->header.status == head[5]);
    CHECK(t->header.id == load(head, msb_first));
    CHECK(t->header.manufacturer == 0 && t->header.version == 0 && t->header.configuration == 0);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(mbus_next(&cursor, &r) == 1);
        check_counter(&r, head, i, msb_first);
    }
    CHECK(mbus_next(&cursor, &r) == 0 && mbus_next(&cursor, &r) == 0);
    CHECK(mbus_format_of(t, NULL, 0, &(uint16_t){0}) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    mbus_frame frame = {.type = MBUS_FRAME_LONG, .c = 0x08, .a = 5};
    bool mode2 = n && (bytes[0] & 1);
    uint8_t out[MBUS_FRAME_MAX], *exact;
    mbus_telegram t;
    int size;

    if (n < 2 || n - 1 > MBUS_DATA_MAX)
        return 0;
    frame.ci = mode2 ? 0x77 : 0x73;
    frame.length = (uint8_t)(n - 1);
    frame.data = bytes + 1;
    size = mbus_frame_write(&frame, out, sizeof out);
    CHECK(size > 0);
    exact = fuzz_exact(out, (size_t)size);
    CHECK(mbus_telegram_read(exact, (size_t)size, &t, NULL) == MBUS_OK);
    if (n == 1 + SIZE)
        check_telegram(&t, exact + 7, mode2);
    else
        CHECK(t.error != MBUS_OK && mbus_next(&t.records, &(mbus_record){0}) == 0);
    free(exact);
    return 0;
}
