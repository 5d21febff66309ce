/* main.c - runs a fuzz target without libFuzzer: over files and folders, and over random changes of them.
 *
 *   TARGET [-runs=N] [-seed=S] FILE|FOLDER...
 *
 * A failing change is left in the file `crash` of the working folder.
 */
#include "fuzz.h"

#include <dirent.h>

enum { INPUTS_MAX = 4096, SIZE_MAX_INPUT = 4096 };

static struct {
    uint8_t *bytes;
    size_t n;
} inputs[INPUTS_MAX];
static size_t input_count;

static uint64_t state;

static unsigned random_below(unsigned limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((state >> 33) % limit);
}

static bool load(const char *name)
{
    FILE *file = fopen(name, "rb");
    uint8_t bytes[SIZE_MAX_INPUT];
    size_t n;

    if (!file)
        return false;
    n = fread(bytes, 1, sizeof bytes, file);
    if (!ferror(file) && input_count < INPUTS_MAX) {
        inputs[input_count].bytes = fuzz_exact(bytes, n);
        inputs[input_count++].n = n;
    }
    fclose(file);
    return true;
}

static bool load_all(const char *name)
{
    DIR *folder = opendir(name);
    struct dirent *entry;
    char path[1024];

    if (!folder)
        return load(name);
    while ((entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.' && snprintf(path, sizeof path, "%s/%s", name, entry->d_name) < (int)sizeof path)
            load(path);
    closedir(folder);
    return true;
}

/* Up to four small changes, as bytes get lost, doubled and bent on a bus. */
static size_t change(uint8_t *bytes, size_t n)
{
    for (unsigned i = random_below(4) + 1; i > 0; i--) {
        size_t at = n ? random_below((unsigned)n) : 0, m = n ? 1 + random_below(8) : 0;
        switch (random_below(6)) {
        case 0:
            if (n)
                bytes[at] ^= (uint8_t)(1u << random_below(8));
            break;
        case 1:
            if (n)
                bytes[at] = (uint8_t)random_below(256);
            break;
        case 2:
            n = at;
            break;
        case 3: /* lost */
            m = m < n - at ? m : n - at;
            memmove(bytes + at, bytes + at + m, n - at - m);
            n -= m;
            break;
        case 4: /* doubled */
            m = m < n - at ? m : n - at;
            if (n + m <= SIZE_MAX_INPUT) {
                memmove(bytes + at + m, bytes + at, n - at);
                n += m;
            }
            break;
        default:
            if (n < SIZE_MAX_INPUT) {
                memmove(bytes + at + 1, bytes + at, n - at);
                bytes[at] = (uint8_t)random_below(256);
                n++;
            }
            break;
        }
    }
    return n;
}

static void run(const uint8_t *bytes, size_t n)
{
    uint8_t *exact = fuzz_exact(bytes, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

static void run_changed(bool keep)
{
    uint8_t bytes[SIZE_MAX_INPUT];
    size_t chosen = random_below((unsigned)input_count), n = inputs[chosen].n;
    FILE *file;

    memcpy(bytes, inputs[chosen].bytes, n);
    n = change(bytes, n);
    if (keep && (file = fopen("crash", "wb")) != NULL) {
        fwrite(bytes, 1, n, file);
        fclose(file);
    }
    run(bytes, n);
}

int main(int argc, char **argv)
{
    unsigned long runs = 0, keep = ~0ul;

    state = 1;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-runs=", 6) == 0)
            runs = strtoul(argv[i] + 6, NULL, 10);
        else if (strncmp(argv[i], "-seed=", 6) == 0)
            state = strtoul(argv[i] + 6, NULL, 10);
        else if (strncmp(argv[i], "-keep=", 6) == 0)
            keep = strtoul(argv[i] + 6, NULL, 10);
        else if (!load_all(argv[i]))
            return fprintf(stderr, "%s: cannot be read\n", argv[i]), 2;
    }
    if (input_count == 0)
        return fprintf(stderr, "usage: %s [-runs=N] [-seed=S] FILE|FOLDER...\n", argv[0]), 2;
    for (size_t i = 0; i < input_count; i++)
        run(inputs[i].bytes, inputs[i].n);
    for (unsigned long i = 0; i < runs; i++)
        run_changed(i == keep);
    printf("%s: %lu inputs, %lu changed ones\n", argv[0], (unsigned long)input_count, runs);
    for (size_t i = 0; i < input_count; i++)
        free(inputs[i].bytes);
    return 0;
}
