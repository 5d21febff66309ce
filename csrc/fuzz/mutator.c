/* mutator.c - for inputs of fuzz_frame: half of the mutated raw frames get their lengths, checksum and stop byte put right,
 * so that damage reaches what is behind the link layer. libFuzzer only. */
#include "fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t n, size_t capacity);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t capacity, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t capacity, unsigned seed)
{
    uint8_t *frame = bytes + 1, sum = 0;
    size_t size;

    n = LLVMFuzzerMutate(bytes, n, capacity);
    if (n < 10 || n > MBUS_FRAME_MAX + 1 || bytes[0] % FUZZ_CI_COUNT != 0 || frame[0] != 0x68 || seed % 2)
        return n;
    size = n - 1;
    frame[1] = frame[2] = (uint8_t)(size - 6);
    frame[3] = 0x68;
    for (size_t i = 4; i < size - 2; i++)
        sum = (uint8_t)(sum + frame[i]);
    frame[size - 2] = sum;
    frame[size - 1] = 0x16;
    return n;
}
