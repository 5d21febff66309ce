/* number.c - fuzz target: the exact decimal text of a number against long arithmetic on single digits.
 *
 * Input: magnitude 8, factor 4, offset 2, exponent 1, options 1 (1 negative, 2 any factor).
 */
#include "fuzz.h"

#include <math.h>

enum { DIGITS = 300 };

/* Decimal digits, lowest first. */
typedef struct decimal {
    uint8_t digit[DIGITS];
} decimal;

static decimal decimal_of(uint64_t value)
{
    decimal d = {{0}};

    for (int i = 0; value; i++, value /= 10)
        d.digit[i] = (uint8_t)(value % 10);
    return d;
}

static decimal times(const decimal *a, uint64_t b)
{
    decimal d = {{0}}, factor = decimal_of(b);
    unsigned carry = 0;

    for (int i = 0; i < DIGITS; i++) {
        for (int j = 0; j < 20 && j <= i; j++)
            carry += (unsigned)a->digit[i - j] * factor.digit[j];
        d.digit[i] = (uint8_t)(carry % 10);
        carry /= 10;
    }
    return d;
}

static void shift(decimal *d, int places)
{
    memmove(d->digit + places, d->digit, (size_t)(DIGITS - places));
    memset(d->digit, 0, (size_t)places);
}

static bool is_less(const decimal *a, const decimal *b)
{
    for (int i = DIGITS - 1; i >= 0; i--)
        if (a->digit[i] != b->digit[i])
            return a->digit[i] < b->digit[i];
    return false;
}

static decimal sum(const decimal *a, const decimal *b, int sign)
{
    decimal d;
    int carry = 0;

    for (int i = 0; i < DIGITS; i++) {
        carry += a->digit[i] + sign * b->digit[i];
        d.digit[i] = (uint8_t)((carry + 10) % 10);
        carry = carry < 0 ? -1 : carry / 10;
    }
    return d;
}

/* Returns the length. */
static size_t reference(const mbus_number *number, char *out)
{
    decimal a = decimal_of(number->magnitude), b = decimal_of((uint64_t)number->offset), zero = {{0}};
    bool negative = number->negative;
    int places = number->exponent < 0 ? -number->exponent : 0, top = DIGITS - 1;
    size_t n = 0;

    a = times(&a, number->factor);
    if (number->exponent > 0)
        shift(&a, number->exponent);
    if (number->offset) { /* to a common scale of at least three places */
        int common = places > 3 ? places : 3;
        shift(&a, common - places);
        shift(&b, common - 3);
        places = common;
        if (!negative) {
            a = sum(&a, &b, 1);
        } else if (is_less(&a, &b)) {
            a = sum(&b, &a, -1);
            negative = false;
        } else {
            a = sum(&a, &b, -1);
        }
    }
    if (negative && is_less(&zero, &a))
        out[n++] = '-';
    while (top > places && a.digit[top] == 0)
        top--;
    for (; top >= 0; top--) {
        out[n++] = (char)('0' + a.digit[top]);
        if (top && top == places)
            out[n++] = '.';
    }
    out[n] = '\0';
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const uint32_t factors[] = {1, 60, 3600, 86400, 244140625};
    mbus_number number = {0};
    char text[MBUS_NUMBER_TEXT_MAX + 1], expected[DIGITS + 3], *exact;
    uint32_t factor = 0;
    long double value, about;
    int rc;

    if (n < 16)
        return 0;
    for (unsigned i = 0; i < 8; i++)
        number.magnitude |= (uint64_t)bytes[i] << 8 * i;
    for (unsigned i = 0; i < 4; i++)
        factor |= (uint32_t)bytes[8 + i] << 8 * i;
    number.factor = bytes[15] & 2 && factor && factor <= 244140625 ? factor : factors[factor % 5];
    number.offset = (bytes[12] | bytes[13] << 8) % 10001;
    number.exponent = (int16_t)(bytes[14] % 123 - 72);
    number.negative = bytes[15] & 1;
    rc = mbus_number_text(&number, text, MBUS_NUMBER_TEXT_MAX);
    CHECK(rc > 0 && rc <= MBUS_NUMBER_TEXT_MAX);
    text[rc] = '\0';
    CHECK(reference(&number, expected) == (size_t)rc && strcmp(text, expected) == 0);
    exact = malloc((size_t)rc);
    CHECK(exact != NULL);
    CHECK(mbus_number_text(&number, exact, (size_t)rc) == rc && memcmp(exact, text, (size_t)rc) == 0);
    CHECK(mbus_number_text(&number, exact, (size_t)rc - 1) == MBUS_E_NO_SPACE);
    free(exact);
    /* And a plausible one: close to what floating point makes of it. */
    about = (long double)number.magnitude * number.factor * powl(10, number.exponent);
    value = (number.negative ? -about : about) + number.offset / 1000.0L;
    CHECK(fabsl(strtold(text, NULL) - value) <= (about + 10) * 1e-14L);
    return 0;
}
