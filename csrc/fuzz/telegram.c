/* telegram.c - fuzz target: bytes to telegram, header, records, profiles, texts; format frame to full frame and back.
 *
 * Input: see fuzz_frame. Beside what the sanitizers see, records must lie side by side in the telegram, and what they say
 * must hold together and agree with a second, simpler reading of the same bytes.
 */
#include "fuzz.h"

/* ------------------------------------------------------------------ texts */

static bool is_utf8(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (byte < 0x80)
            continue;
        if ((byte & 0xE0) != 0xC0 || ++i == n || ((uint8_t)text[i] & 0xC0) != 0x80)
            return false;
    }
    return true;
}

/* Any text function, bound to what it needs. */
typedef int text_function(const void *context, char *out, size_t capacity);

/* It fits its documented size, and an exact buffer gives the same, one byte less is refused. */
static void check_text(text_function *function, const void *context, size_t max, char *out)
{
    int n = function(context, out, max);
    char *exact;

    CHECK(n >= 0 && (size_t)n <= max);
    CHECK(is_utf8(out, (size_t)n));
    exact = malloc(n ? (size_t)n : 1);
    CHECK(exact != NULL);
    CHECK(function(context, exact, (size_t)n) == n && memcmp(exact, out, (size_t)n) == 0);
    if (n) {
        CHECK(function(context, exact, (size_t)n - 1) == MBUS_E_NO_SPACE);
        CHECK(function(context, NULL, 0) == MBUS_E_NO_SPACE);
    }
    free(exact);
}

static int unit_text(const void *r, char *out, size_t capacity)
{
    return mbus_unit_text(r, out, capacity);
}

static int number_text(const void *r, char *out, size_t capacity)
{
    return mbus_number_text(&((const mbus_record *)r)->number, out, capacity);
}

static int time_text(const void *r, char *out, size_t capacity)
{
    return mbus_time_text(&((const mbus_record *)r)->time, ((const mbus_record *)r)->type, out, capacity);
}

static int bcd_glyphs(const void *r, char *out, size_t capacity)
{
    return mbus_bcd_glyphs(r, out, capacity);
}

static int string_text(const void *context, char *out, size_t capacity)
{
    const mbus_record *r = context;
    return mbus_utf8(r->bytes, r->length, !r->msb_first, out, capacity);
}

static bool is_bcd(const mbus_record *r)
{
    return (r->field >= 9 && r->field <= 0x0C) || r->field == 0x0E ||
           (r->field == 0x0D && r->data_length && r->data[0] >= 0xC0 && r->data[0] <= 0xD9);
}

static void check_texts(const mbus_record *r)
{
    char text[1024];

    check_text(unit_text, r, MBUS_UNIT_TEXT_MAX, text);
    if (r->type == MBUS_TYPE_NUMBER) {
        check_text(number_text, r, MBUS_NUMBER_TEXT_MAX, text);
        if (is_bcd(r))
            check_text(bcd_glyphs, r, 64, text);
    }
    if (r->type == MBUS_TYPE_STRING)
        check_text(string_text, r, 2 * MBUS_FRAME_MAX, text);
    if (r->type == MBUS_TYPE_DATE || r->type == MBUS_TYPE_DATETIME || r->type == MBUS_TYPE_TIME)
        check_text(time_text, r, MBUS_TIME_TEXT_MAX, text);
}

/* ------------------------------------------------------------------ VIFEs, read a second time */

/* The combinable VIFEs by the words of the standard: what stands between the true VIF and the byte without extension bit. */
static const uint8_t *first_vife(const mbus_record *r)
{
    const uint8_t *p = r->vib;

    if (!(*p & 0x80) || *p == 0xFF)
        return NULL;
    if (*p == 0xFC) /* the text stands behind the VIF, or behind the VIFEs */
        return r->text == r->vib + 2 ? r->vib + 2 + r->vib[1] : p + 1;
    if (*p == 0xFD && p[1] == 0xFD)
        p++;
    if (*p == 0xFB || *p == 0xFD)
        return *++p & 0x80 ? p + 1 : NULL;
    return p + 1;
}

static void check_vifes(const mbus_record *r)
{
    const uint8_t *p = r->dib ? first_vife(r) : NULL;
    unsigned state = 0, code, expected;

    while (p) {
        uint8_t byte = *p++;
        CHECK(p <= r->vib + r->vib_length);
        expected = byte & 0x7Fu;
        if (byte == 0xFC) {
            byte = *p++;
            expected = 0xFC00u | (byte & 0x7Fu);
        }
        CHECK(mbus_next_vife(r, &state, &code) == 1);
        CHECK(code == expected);
        CHECK(mbus_modifier_name(code) != NULL);
        if (expected == 0x7F || !(byte & 0x80))
            break;
    }
    CHECK(mbus_next_vife(r, &state, &code) == 0);
    CHECK(mbus_next_vife(r, &state, &code) == 0);
}

/* ------------------------------------------------------------------ values, read a second time */

static bool is_leap(unsigned year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static bool is_calendar_date(const mbus_time *t)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return t->year >= 1800 && t->year < 2400 && t->month >= 1 && t->month <= 12 && t->day >= 1 &&
           t->day <= days[t->month - 1] + (t->month == 2 && is_leap(t->year));
}

static bool is_clock(const mbus_time *t)
{
    return t->hour < 24 && t->minute < 60 && t->second < 60;
}

static void check_integer(const mbus_record *r)
{
    unsigned n = r->data_length;
    bool is_signed = r->coding != MBUS_CODING_UNSIGNED && r->coding != MBUS_CODING_BITS && r->coding != MBUS_CODING_ID;
    const uint8_t *p = r->data;
    uint64_t value = 0, sum;

    if (r->field == 0x0D) {
        p++;
        n--;
    }
    CHECK(n >= 1 && n <= 8);
    for (unsigned i = 0; i < n; i++)
        value |= (uint64_t)p[r->msb_first ? n - 1 - i : i] << 8 * i;
    if (is_signed && n < 8 && value >> (8 * n - 1))
        value |= ~(uint64_t)0 << 8 * n;
    sum = r->number.negative ? 0 - r->number.magnitude : r->number.magnitude;
    CHECK(sum == value);
    CHECK(!r->number.negative || (is_signed && (value >> 63) == 1));
}

static void check_value(const mbus_record *r)
{
    unsigned flags = r->flags;
    bool is_time = r->type == MBUS_TYPE_DATE || r->type == MBUS_TYPE_DATETIME || r->type == MBUS_TYPE_TIME;

    CHECK(r->type <= MBUS_TYPE_BYTES && r->coding <= MBUS_CODING_PROFILE);
    CHECK(r->quantity < MBUS_QUANTITY_COUNT && r->unit < MBUS_UNIT_COUNT);
    CHECK(r->record_error < 0x20 && !(r->command && r->record_error));
    CHECK(r->record_error == 0 || mbus_record_error_name(r->record_error) != NULL);
    CHECK(!(flags & (MBUS_FLAG_BCD_INVALID | MBUS_FLAG_BCD_NEGATIVE)) || (r->type == MBUS_TYPE_NUMBER && is_bcd(r)));
    CHECK(!(flags & MBUS_FLAG_BCD_NEGATIVE) || (r->number.negative && !(flags & MBUS_FLAG_BCD_INVALID)));
    CHECK(!(flags & MBUS_FLAG_NOT_A_NUMBER) || r->type == MBUS_TYPE_REAL);
    CHECK(!(flags & MBUS_FLAG_VALUE_INVALID) || r->type == MBUS_TYPE_NUMBER);
    CHECK(!(flags & MBUS_FLAG_DATE_INVALID) || is_time);
    CHECK(!(flags & (MBUS_FLAG_TIME_INVALID | MBUS_FLAG_SUMMER_TIME | MBUS_FLAG_HUNDRED_YEARS)) || r->type == MBUS_TYPE_DATETIME);
    CHECK(!(flags & MBUS_FLAG_BINARY_LVAR) || (r->type == MBUS_TYPE_NUMBER && r->field == 0x0D));
    CHECK(!(flags & MBUS_FLAG_NOT_PRINTABLE) || r->type == MBUS_TYPE_STRING);
    CHECK(flags >> 14 == 0);
    if (is_time && !(flags & MBUS_FLAG_DATE_INVALID))
        CHECK((r->type == MBUS_TYPE_TIME || is_calendar_date(&r->time)) && (r->type == MBUS_TYPE_DATE || is_clock(&r->time)));
    if (r->type == MBUS_TYPE_STRING || r->type == MBUS_TYPE_BYTES)
        CHECK(r->bytes >= r->data && r->bytes + r->length <= r->data + r->data_length);
    else
        CHECK(r->bytes == NULL);
    if (r->type == MBUS_TYPE_REAL && !(flags & MBUS_FLAG_NOT_A_NUMBER))
        CHECK(r->real - r->real == 0);
    if (r->type == MBUS_TYPE_NUMBER && !is_bcd(r))
        check_integer(r);
    CHECK(r->number.factor >= 1 && r->number.offset >= 0 && r->number.offset <= 10000);
    CHECK(r->number.exponent >= -72 && r->number.exponent <= 50);
}

/* ------------------------------------------------------------------ profiles */

static void check_profile(const mbus_telegram *t, const mbus_record *r)
{
    mbus_profile profile;
    mbus_record element;
    mbus_time time;
    mbus_type time_type;
    const uint8_t *at = r->bytes ? r->bytes + 2 : NULL;
    unsigned count = 0;
    int rc = mbus_profile_open(t, r, &profile);

    CHECK(rc <= 0);
    if (rc != MBUS_OK)
        return;
    CHECK(r->coding == MBUS_CODING_PROFILE && r->type == MBUS_TYPE_BYTES);
    while ((rc = mbus_profile_next(&profile, &element, &time, &time_type)) > 0) {
        CHECK(++count <= r->length);
        CHECK(element.data == at && element.storage == r->storage + count);
        at += element.data_length;
        CHECK(at <= r->bytes + r->length);
        CHECK(element.type == MBUS_TYPE_NUMBER || element.type == MBUS_TYPE_REAL);
        check_texts(&element);
        if (time_type != MBUS_TYPE_NONE)
            CHECK(is_calendar_date(&time) && is_clock(&time));
    }
    CHECK(rc < 0 || at == r->bytes + r->length);
    CHECK(mbus_profile_next(&profile, &element, &time, &time_type) <= 0);
}

/* ------------------------------------------------------------------ format and compact frames */

/* What a compact frame would send of this telegram, and whether expanding it gives the telegram again. */
static void check_compact(const mbus_telegram *t, const uint8_t *headers, size_t n)
{
    uint8_t records[MBUS_DATA_MAX], data[MBUS_DATA_MAX], out[MBUS_FRAME_MAX];
    size_t start = (size_t)t->body - 7, size = 0, full = 0;
    mbus_cursor cursor = t->records;
    mbus_frame frame = t->frame;
    mbus_telegram compact;
    mbus_record r;
    uint16_t crc;
    int rc;

    if (t->header.type == MBUS_HEADER_FIXED || t->records.msb_first)
        return;
    memcpy(data, t->records.bytes + 7, start);
    while (mbus_next(&cursor, &r) > 0) {
        if (r.text) /* where a text stands may depend on the data behind it */
            return;
        if (start + 4 + size + r.data_length > sizeof data)
            return;
        memcpy(data + start + 4 + size, r.data, r.data_length);
        memcpy(records + full, r.dib, (size_t)r.dib_length + r.vib_length + r.data_length);
        size += r.data_length;
        full += (size_t)r.dib_length + r.vib_length + r.data_length;
    }
    crc = mbus_crc(headers, n);
    data[start] = (uint8_t)(crc & 0xFFu);
    data[start + 1] = (uint8_t)(crc >> 8);
    crc = mbus_crc(records, full);
    data[start + 2] = (uint8_t)(crc & 0xFFu);
    data[start + 3] = (uint8_t)(crc >> 8);
    frame.ci = t->header.type == MBUS_HEADER_LONG ? 0x73 : t->header.type == MBUS_HEADER_SHORT ? 0x7B : 0x79;
    frame.length = (uint8_t)(start + 4 + size);
    frame.data = data;
    if (frame.ci == 0x73 && frame.length == 16) /* can't be told from the fixed structure */
        return;
    rc = mbus_frame_write(&frame, out, sizeof out);
    CHECK(rc > 0);
    CHECK(mbus_telegram_read(out, (size_t)rc, &compact, NULL) == MBUS_OK);
    CHECK(mbus_compact_signature(&compact) == mbus_crc(headers, n));
    rc = mbus_compact_expand(&compact, headers, n, data, sizeof data);
    if (rc == MBUS_E_NO_SPACE)
        return;
    CHECK(rc == (int)(start + full + 9));
    CHECK(memcmp(data + 7 + start, records, full) == 0);
    CHECK(memcmp(data + 7, t->records.bytes + 7, start) == 0);
}

static void check_format(const mbus_telegram *t)
{
    uint8_t headers[MBUS_FRAME_MAX], *exact;
    uint16_t signature = 0;
    int n = mbus_format_of(t, headers, sizeof headers, &signature);

    CHECK(n != MBUS_E_NO_SPACE);
    if (n < 0)
        return;
    CHECK(n <= t->body_end - t->body);
    CHECK(signature == mbus_crc(headers, (size_t)n));
    exact = fuzz_exact(headers, (size_t)n);
    CHECK(mbus_format_of(t, exact, (size_t)n, &signature) == n);
    if (n) {
        CHECK(mbus_format_of(t, exact, (size_t)n - 1, &signature) == MBUS_E_NO_SPACE);
        if (t->payload == MBUS_PAYLOAD_RECORDS)
            check_compact(t, exact, (size_t)n);
    }
    free(exact);
}

/* ------------------------------------------------------------------ all of it */

static void check_place(const mbus_telegram *t, const mbus_record *r, unsigned previous_end, const mbus_cursor *after)
{
    const uint8_t *bytes = t->records.bytes;

    CHECK(r->position >= previous_end);
    for (unsigned i = previous_end; i < r->position; i++)
        CHECK(bytes[i] == 0x2F);
    CHECK(r->data == bytes + after->position - r->data_length && after->position <= t->body_end);
    CHECK(after->position > r->position);
    if (!r->dib) {
        CHECK(t->payload == MBUS_PAYLOAD_FIXED && r->data == bytes + r->position);
        return;
    }
    CHECK(r->dib == bytes + r->position && r->vib == r->dib + r->dib_length && r->data == r->vib + r->vib_length);
    CHECK(r->dib_length >= 1 && r->dib_length <= 12 && r->vib_length >= 1);
    CHECK(r->storage >> 41 == 0 && r->tariff >> 20 == 0 && r->subunit >> 10 == 0 && r->function < 4 && r->field < 15);
    CHECK(!r->text || (r->text > r->vib && r->text + r->text_length <= r->vib + r->vib_length));
}

static void check_records(const mbus_telegram *t)
{
    mbus_cursor cursor = t->records;
    mbus_record r;
    unsigned count = 0, end = cursor.position;
    int rc;

    while ((rc = mbus_next(&cursor, &r)) > 0) {
        CHECK(++count <= MBUS_DATA_MAX / 2 && cursor.count == count);
        check_place(t, &r, end, &cursor);
        end = cursor.position;
        check_vifes(&r);
        check_value(&r);
        check_texts(&r);
        check_profile(t, &r);
    }
    CHECK(cursor.position <= t->body_end && cursor.end == t->records.end);
    CHECK(rc == 0 || (rc < 0 && mbus_error_text(rc) && cursor.position >= end));
    CHECK(!cursor.has_manufacturer_data || (cursor.manufacturer_data >= end && cursor.manufacturer_data <= t->body_end));
    CHECK(cursor.has_manufacturer_data || !cursor.more_records_follow);
    CHECK(mbus_next(&cursor, &r) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    size_t size, offset = 0;
    uint8_t *frame = fuzz_frame(bytes, n, &size);
    mbus_telegram t;
    char letters[4];
    int rc = mbus_telegram_read(frame, size, &t, &offset);

    if (rc == MBUS_OK) {
        CHECK(t.frame.size == size && t.error <= 0 && t.error_offset <= size);
        CHECK(t.body <= t.body_end && t.body_end <= size);
        CHECK(t.records.position <= t.records.end || t.records.structure == MBUS_PAYLOAD_NONE);
        CHECK(t.error == MBUS_OK || t.records.structure == MBUS_PAYLOAD_NONE);
        mbus_manufacturer_letters(t.header.manufacturer, letters);
        CHECK(mbus_medium_name(t.header.medium) && mbus_fixed_medium_name(t.header.medium));
        check_records(&t);
        check_format(&t);
    } else {
        CHECK(rc < 0 && rc >= MBUS_E_LAST && offset <= size);
    }
    free(frame);
    return 0;
}
