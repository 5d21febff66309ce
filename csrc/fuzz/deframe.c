/* deframe.c - fuzz target: any bytes at any cuts give the same frames, and no byte is lost or taken twice.
 *
 * Input: one byte that seeds the cuts, then the stream.
 */
#include "fuzz.h"

enum { EVENTS_MAX = 1 << 16 };

/* What became of the stream: for each event its size, 0 for noise. */
typedef struct story {
    size_t count, bytes;
    uint16_t events[EVENTS_MAX];
} story;

static story whole, cut;

static void tell(story *s, const uint8_t *stream, size_t n, mbus_event event, const mbus_frame *frame)
{
    mbus_frame again;
    size_t size = event == MBUS_FRAME ? frame->size : 1;

    CHECK(s->count < EVENTS_MAX);
    CHECK(s->bytes + size <= n);
    if (event == MBUS_FRAME) {
        CHECK(mbus_frame_read(stream + s->bytes, size, &again, NULL) == MBUS_OK);
        CHECK(again.type == frame->type && again.c == frame->c && again.a == frame->a && again.ci == frame->ci);
        CHECK(again.length == frame->length && (again.data != NULL) == (frame->data != NULL));
        CHECK(!frame->data || memcmp(again.data, frame->data, frame->length) == 0);
    }
    s->events[s->count++] = event == MBUS_FRAME ? frame->size : 0;
    s->bytes += size;
}

static void feed(story *s, mbus_deframer *d, const uint8_t *stream, size_t n, size_t from, size_t to)
{
    uint8_t *piece = fuzz_exact(stream + from, to - from);
    const uint8_t *p = piece, *end = piece + (to - from);
    mbus_frame frame;
    mbus_event event;

    while ((event = mbus_deframe(d, &p, end, &frame)) != MBUS_MORE)
        tell(s, stream, n, event, &frame);
    CHECK(p == end);
    CHECK(d->have <= MBUS_FRAME_MAX && d->done == 0);
    CHECK(s->bytes + d->have == to); /* told, or still waiting */
    CHECK(mbus_deframe_needs(d) == 0 || mbus_deframe_needs(d) > d->have);
    free(piece);
}

static void finish(story *s, mbus_deframer *d, const uint8_t *stream, size_t n)
{
    mbus_frame frame;
    mbus_event event;

    while ((event = mbus_deframe_end(d, &frame)) != MBUS_MORE)
        tell(s, stream, n, event, &frame);
    CHECK(d->have == 0 && s->bytes == n);
}

/* The same by definition: at each place the frame that stands there, or one byte of noise. */
static size_t expected_size(const uint8_t *p, size_t n)
{
    size_t size = p[0] == 0xE5 ? 1 : p[0] == 0x10 ? 5 : p[0] == 0x68 && n > 1 ? p[1] + 6u : 0;
    mbus_frame frame;

    return size && size <= n && mbus_frame_read(p, size, &frame, NULL) == MBUS_OK ? size : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    mbus_deframer *d = calloc(1, sizeof *d);
    uint32_t random = n ? bytes[0] * 2654435761u + 1 : 1;
    size_t at, next, event;

    CHECK(d != NULL);
    if (n) {
        bytes++;
        n--;
    }
    if (n >= EVENTS_MAX)
        n = EVENTS_MAX - 1;
    whole.count = whole.bytes = cut.count = cut.bytes = 0;
    feed(&whole, d, bytes, n, 0, n);
    finish(&whole, d, bytes, n);
    memset(d, 0, sizeof *d);
    for (at = 0; at < n; at = next) {
        random = random * 1664525u + 1013904223u;
        next = at + (random >> 28 ? random >> 28 : random >> 20 & 0xFF);
        feed(&cut, d, bytes, n, at, next < n ? next : n);
    }
    finish(&cut, d, bytes, n);
    CHECK(whole.count == cut.count && memcmp(whole.events, cut.events, whole.count * sizeof whole.events[0]) == 0);
    for (at = event = 0; at < n; event++) {
        CHECK(whole.events[event] == expected_size(bytes + at, n - at));
        at += whole.events[event] ? whole.events[event] : 1;
    }
    free(d);
    return 0;
}
