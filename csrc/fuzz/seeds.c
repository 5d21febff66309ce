/* seeds.c - writes the seed corpora: the example frames of the standards and records of our own encoder.
 *
 *   seeds FOLDER                      writes FOLDER/deframe, telegram, compact, encode, number, dates, fixed (csrc/fuzz/corpus comes from here)
 *   seeds FOLDER FILE.hex...          writes these frames as further seeds of telegram, and of deframe, instead
 */
#include "fuzz.h"

#include <ctype.h>
#include <sys/stat.h>

static const char *folder;

static void save(const char *target, const char *name, const uint8_t *bytes, size_t n)
{
    char path[1024];
    FILE *file;

    snprintf(path, sizeof path, "%s", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
    file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, n, file) != n || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

/* Hex digits up to the end of `text`; anything else between them is skipped. */
static size_t unhex(const char *text, uint8_t *out, size_t capacity)
{
    size_t n = 0;
    unsigned byte;

    while (*text && n < capacity) {
        if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1])) {
            text++;
        } else if (sscanf(text, "%2x", &byte) == 1) {
            out[n++] = (uint8_t)byte;
            text += 2;
        }
    }
    return n;
}

static void save_hex(const char *target, const char *name, unsigned first, const char *hex)
{
    uint8_t bytes[4096];

    bytes[0] = (uint8_t)first;
    save(target, name, bytes, 1 + unhex(hex, bytes + 1, sizeof bytes - 1));
}

static unsigned choice(uint8_t ci)
{
    for (unsigned i = 1; i < FUZZ_CI_COUNT; i++)
        if (fuzz_ci[i] == ci)
            return i;
    return 0;
}

/* ------------------------------------------------------------------ whole frames */

static const struct {
    const char *name, *hex;
} frames[] = {
    {"doc-ack", "E5"},
    {"doc-snd-nke", "10 40 01 41 16"},
    {"doc-fixed", "68 13 13 68 08 05 73 78 56 34 12 0A 00 E9 7E 01 00 00 00 35 01 00 00 3C 16"},
    {"doc-variable", "68 1F 1F 68 08 02 72 78 56 34 12 24 40 01 07 55 00 00 00 03 13 15 31 00 DA 02 3B 13 01 8B 60 04 37 18 02 18 16"},
    {"doc-variable-mode2",
     "68 1F 1F 68 08 02 76 12 34 56 78 40 24 01 07 55 00 00 00 03 13 00 31 15 DA 02 3B 01 13 8B 60 04 02 18 37 1C 16"},
    {"doc-fabrication", "68 15 15 68 08 02 72 78 56 34 12 24 40 01 07 13 00 00 00 0C 78 04 03 02 01 9D 16"},
    {"doc-set-address", "68 06 06 68 53 FE 51 01 7A 08 25 16"},
    {"doc-set-identification", "68 0D 0D 68 53 FE 51 07 79 04 03 02 01 24 40 01 04 95 16"},
    {"doc-preset", "68 0F 0F 68 53 FE 51 0C 79 78 56 34 12 0C 06 07 01 00 00 55 16"},
    {"doc-select-readout", "68 07 07 68 53 07 51 08 13 08 5A 28 16"},
    {"doc-select-all", "68 06 06 68 53 01 51 C8 3F 7E 2A 16"},
    {"doc-global-readout", "68 04 04 68 53 03 51 7F 26 16"},
    {"selection", "68 11 11 68 53 FD 52 FF FF FF FF 24 40 01 07 0C 78 04 03 02 01 98 16"},
    {"selection-mode2", "68 0B 0B 68 53 FD 56 12 34 56 78 40 24 01 07 26 16"},
    {"application-error", "68 04 04 68 08 01 70 08 81 16"},
    {"alarm", "68 04 04 68 08 05 71 09 87 16"},
    {"baudrate", "68 03 03 68 53 05 BB 13 16"},
};

/* ------------------------------------------------------------------ user data behind a CI */

static const struct {
    const char *name;
    uint8_t ci;
    const char *hex;
} payloads[] = {
    {"annex-f-registers", 0x78,
     "86 80 81 00 6D 00 00 A0 41 11 35 84 90 81 00 03 F0 49 02 00 8D 90 81 00 83 1E 0A 34 FE A0 86 01 00 D0 FB 01 00"},
    {"annex-f-profile", 0x78, "84 04 6D 00 20 41 11 8B 04 15 00 30 12 8D 04 95 1F 05 69 01 03 02 11"},
    {"annex-f-inverse", 0x78, "84 04 6D 00 23 41 11 8B 04 15 16 30 12 8D 04 95 13 05 69 01 11 02 03"},
    {"profile-half-months", 0x78, "42 6C 5F 1C 44 13 10 27 00 00 4D 93 1F 08 72 FD 01 00 02 00 03 00"},
    {"profile-days-down", 0x78, "42 6C 01 31 44 03 FF 00 00 00 4D 83 1F 05 B1 01 05 06 07"},
    {"profile-differences", 0x78, "04 6D 00 20 41 11 04 13 10 27 00 00 0D 93 1F 06 E2 0F FF FF 02 00"},
    {"profile-quarters", 0x78, "02 6C 1F 3C 0C 03 00 10 00 00 0D 83 13 04 69 FE 01 02"},
    {"annex-g-full", 0x78, "02 02 D2 04 02 15 2E 16 02 2A 34 23"},
    {"annex-g-format", 0x69, "08 31 3B 02 02 02 15 02 2A"},
    {"annex-g-compact", 0x79, "31 3B 42 A6 D2 04 2E 16 34 23"},
    {"heat-format", 0x69, "0F E7 F1 03 06 43 06 03 14 42 6C 02 2D 01 FF 21"},
    {"heat-compact", 0x79, "E7 F1 A3 FC ED 24 00 E7 23 00 2E 5E 00 BF 2C 0D 00 00"},
    {"integers", 0x78, "01 05 80 02 05 FF 7F 03 05 01 00 80 04 05 FF FF FF FF 06 05 01 00 00 00 00 80 07 05 FF FF FF FF FF FF FF 7F"},
    {"unsigned", 0x78, "01 FD 17 FF 02 FD 17 FE FF 04 FD 08 FF FF FF FF 07 FD 17 00 00 00 00 00 00 00 80 01 FD 10 0A"},
    {"bcd", 0x78, "09 13 99 0A 13 34 F2 0B 13 18 00 F0 0C 13 78 56 34 12 0E 13 99 99 99 99 99 F9 0A 5A BB DB 0C 2B DD B4 EB DD"},
    {"real", 0x78, "05 5B 00 00 B0 41 05 2B B1 D1 2E BE 05 5B 00 00 C0 7F 05 5B 00 00 80 FF 05 03 01 00 00 00"},
    {"lvar", 0x78,
     "0D FD 11 03 63 62 61 0D 13 C4 78 56 34 12 0D 13 D2 21 03 0D 13 E3 01 02 03 0D FD 11 F0 00 01 02 03 04 05 06 07 08 09 0A 0B 0C "
     "0D 0E 0F 0D 13 C9 99 99 99 99 99 99 99 99 09 0D 13 E8 FF FF FF FF FF FF FF 7F 0D FD 11 00 0D 13 C0 0D 13 E0"},
    {"dates", 0x78,
     "02 6C 1F 3C 02 6C FF FF 02 6C FF FC 04 6D 2D 0D 1D 32 04 6D 00 8C 01 37 04 6D BB 0E CD 13 04 6D 3F 1F E0 FF 04 6D 2D 2D 1D 32 "
     "06 6D 9E 2D 8D 1D 32 09 06 6D C0 40 2C 01 37 5B 03 6D 3B 3B 17 03 6D FF FF FF 02 6D 1F 3C 04 FD 72 81 9D 1E 3A"},
    {"dates-mode2", 0x76, "12 34 56 78 40 24 01 07 55 00 00 00 02 6C 3C 1F 04 6D 32 1D 0D 2D 06 6D 09 32 1D 8D 2D 9E 03 6D 17 3B 3B"},
    {"plain-text", 0x78, "02 FC 03 48 52 25 74 D4 11 02 FC 74 03 48 52 25 D4 11 04 7C 04 68 73 57 4B 10 00 00 00 0D 7C 01 6D 02 62 61"},
    {"plain-text-count", 0x78, "02 FC 03 48 52 25 41 05 00 02 FC 41 03 48 52 25 05 00 02 FC 39 03 48 52 25 1F 3C"},
    {"modifiers", 0x78,
     "04 93 74 15 31 00 00 04 83 7B 10 00 00 00 04 93 FD 7D 01 00 00 00 02 93 3E 10 00 02 93 41 05 00 02 93 5D 10 00 02 93 39 1F 3C 02 93 "
     "BD 28 01 00 04 FD C8 FC 01 D1 08 00 00 02 93 FC 11 FE FF 02 93 FC 12 FF FF 04 FF 01 02 03 04 05 04 93 FF 05 01 02 03 04"},
    {"extensions", 0x78,
     "04 FB 00 02 00 00 00 04 FB 8D 01 64 00 00 00 01 FD FD 02 30 02 FB 1A 12 02 02 FD 3A 07 00 02 6E 10 00 01 FD 71 B0 04 20 10 00 00 00 04 "
     "FD 61 01 00 00 00 02 E8 00 01 00"},
    {"wide-dib", 0x78, "84 FF FF FF FF FF FF FF FF FF 7F 13 01 00 00 00 8B 60 04 37 18 02 C4 80 80 80 80 80 80 80 80 80 00 13 01 00 00 00"},
    {"eleventh-dife", 0x78, "84 FF FF FF FF FF FF FF FF FF FF 00 13 01 00 00 00"},
    {"record-errors", 0x78, "04 93 01 64 00 00 00 04 93 15 64 00 00 00 00 93 1C 04 93 17 FF FF FF 7F"},
    {"fillers-and-end", 0x78, "2F 2F 03 13 15 31 00 2F 02 5A 10 00 1F DE AD BE EF"},
    {"manufacturer-data", 0x7A, "01 00 00 00 02 5A 10 00 0F 01 02 03"},
    {"actions", 0x51, "04 93 00 01 00 00 00 04 93 03 01 00 00 00 0C 93 0C 0C 93 0D 01 7A 05 04 6D 2D 0D 1D 32 C8 FF 7F 7E 7F 7E"},
    {"identification", 0x51, "07 79 04 03 02 01 24 40 01 04 0C 79 78 56 34 12"},
    {"error-records", 0x70, "F0 04 13 01 00 00 00"},
    {"fixed-mode1", 0x73, "78 56 34 12 0A 03 E9 7E 01 00 00 00 35 01 00 00"},
    {"fixed-mode2", 0x77, "12 34 56 78 0A 01 05 C5 00 00 00 01 00 00 01 35"},
    {"fixed-bad-bcd", 0x73, "78 56 34 12 0A 00 F8 39 01 0A 00 00 DB BB BB BB"},
    {"mode-5", 0x7A, "01 00 10 05 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F"},
    /* Found: a base value of -2^63, and halves of a February. */
    {"found-profile-base", 0x78, "07 83 7F 00 00 00 00 00 00 00 80 0D 83 9F 7F 03 41 01 01"},
    {"found-half-february", 0x78, "02 6C EF 21 04 13 10 27 00 00 0D 93 1F 08 72 FD 01 00 02 00 02 00"},
    {"truncated-data", 0x78, "03 13 15 31 00 8B 60 04 37 18"},
    {"truncated-vif", 0x78, "03 13 15 31 00 8B 60 84"},
    {"reserved-dif", 0x78, "03 13 15 31 00 3F 00"},
    {"reserved-lvar", 0x78, "0D 13 F7 00"},
};

/* ------------------------------------------------------------------ other targets */

static void save_compact(void)
{
    save_hex("compact", "annex-g", 0, "06 00 02 02 02 15 02 2A D2 04 2E 16 34 23");
    save_hex("compact", "heat", 0, "0D 00 03 06 43 06 03 14 42 6C 02 2D 01 FF 21 ED 24 00 E7 23 00 2E 5E 00 BF 2C 0D 00 00");
    save_hex("compact", "short-header", 1, "04 00 0D FD 11 2A 03 61 62 63");
    save_hex("compact", "long-header", 2, "05 00 04 13 84 03 6C 01 00 00 00 02 00 00 00");
    save_hex("compact", "plain-text", 0, "07 00 02 FC 03 48 52 25 74 D4 11");
}

/* Headers that do not fit into a frame: one plain-text unit of 255 characters, behind the VIFE and before it. */
static void save_long_headers(void)
{
    uint8_t bytes[3 + 259 + 2] = {0};

    memset(bytes + 3, 'x', sizeof bytes - 3);
    bytes[1] = 259 & 0xFF;
    bytes[2] = 259 >> 8;
    memcpy(bytes + 3, "\x02\xFC\x74\xFF", 4);
    save("compact", "long-text-behind-vife", bytes, sizeof bytes);
    memcpy(bytes + 3, "\x02\xFC\x00\xFE", 4);
    bytes[1] = 258 & 0xFF;
    save("compact", "found-long-text", bytes, sizeof bytes - 1);
    bytes[1] = 259 & 0xFF;
    memcpy(bytes + 3, "\x02\xFC\xFF\x78", 4);
    bytes[3 + 258] = 0x74;
    save("compact", "long-text-before-vife", bytes, sizeof bytes);
}

/* field and type, function, options, storage, tariff, subunit, value, length, VIB length, VIB, bytes; see encode.c */
static void save_encode(void)
{
    static const char *const seeds[][2] = {
        {"integer", "00 00 05 00 00 00 00 00 02 00 00 01 00 15 31 00 00 00 00 00 00 00 01 13"},
        {"bcd", "00 20 00 00 00 00 00 00 00 00 00 00 78 56 00 00 00 00 00 00 00 01 13"},
        {"real", "00 00 FF FF FF FF FF 01 FF FF 0F FF 03 00 00 B0 41 00 00 00 00 00 01 5B"},
        {"text", "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 03 02 FD 11 61 62 63"},
        {"date", "00 00 00 00 00 00 00 00 00 00 00 00 36 E6 03 00 00 00 00 00 00 01 6C"},
        {"datetime", "00 09 00 00 00 00 00 00 00 00 00 00 36 E6 37 16 3C 00 00 00 00 01 6D"},
        {"time", "00 00 00 00 00 00 00 00 00 00 00 00 00 00 37 16 3C 00 00 00 00 01 6D"},
        {"binary", "00 10 00 00 00 00 00 00 00 00 00 00 FF FF FF FF FF FF 00 00 00 01 13"},
        {"bytes", "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 10 01 FF 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F 10"},
    };
    static const uint8_t first[] = {0x14, 0x1C, 0x25, 0x3D, 0x42, 0x56, 0x63, 0x1D, 0x7D};

    for (size_t i = 0; i < sizeof first; i++)
        save_hex("encode", seeds[i][0], first[i], seeds[i][1]);
}

static void save_number(void)
{
    save_hex("number", "zero", 0, "00 00 00 00 00 00 00 00 00 00 00 00 00 48 00");
    save_hex("number", "tenths", 0xDC, "00 00 00 00 00 00 00 00 00 00 00 00 00 47 00");
    save_hex("number", "negative", 0x12, "00 00 00 00 00 00 00 00 00 00 00 00 00 46 01");
    save_hex("number", "largest", 0xFF, "FF FF FF FF FF FF FF 04 00 00 00 10 27 7A 00");
    save_hex("number", "smallest", 0xFF, "FF FF FF FF FF FF FF 03 00 00 00 10 27 00 01");
    save_hex("number", "crosses-zero", 0x01, "00 00 00 00 00 00 00 00 00 00 00 10 27 48 01");
}

/* options and the bytes; see dates.c */
static void save_dates(void)
{
    static const struct {
        const char *name;
        uint8_t options; /* 0, 2, 4, 6: types G, J, F, I with VIF 6D; 8 more: 6C, 16: VIFE 39, 24: FD 70; 1: mode 2 */
        const char *hex;
    } seeds[] = {
        {"g", 0x08, "1F 3C"},           {"g-as-datetime", 0x00, "9D 11"},   {"g-every-year", 0x08, "FF FC"},
        {"g-leap-day", 0x10, "1D 32"},  {"g-no-leap-day", 0x08, "3D 12"},   {"g-mode2", 0x09, "3C 1F"},
        {"f", 0x04, "2D 0D 1D 32"},     {"f-invalid", 0x04, "BB 0E CD 13"}, {"f-summer", 0x1C, "00 8C 01 37"},
        {"f-hundreds", 0x04, "00 20 41 51"}, {"f-1899", 0x04, "00 00 81 C3"}, {"f-2299", 0x04, "3B 77 7F CC"}, {"f-2090", 0x04, "00 20 41 B1"},
        {"i", 0x06, "9E 2D 8D 1D 32 09"},    {"i-summer", 0x16, "C0 40 2C 01 37 5B"}, {"i-week-53", 0x06, "00 00 80 9F 2C 35"},
        {"i-mode2", 0x07, "09 32 1D 8D 2D 9E"}, {"j", 0x02, "3B 3B 17"},    {"j-every", 0x02, "3F 3F 1F"},
        {"no-date", 0x0C, "01 02 03 04"},
    };

    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++)
        save_hex("dates", seeds[i].name, seeds[i].options, seeds[i].hex);
}

/* CI 73 (0) or 77 (1), then the 16 bytes; see fixed.c */
static void save_fixed(void)
{
    save_hex("fixed", "bcd", 0, "78 56 34 12 0A 00 E9 7E 01 00 00 00 35 01 00 00");
    save_hex("fixed", "binary", 0, "78 56 34 12 0A 03 E9 7E 01 00 00 80 35 01 00 00");
    save_hex("fixed", "mode2", 1, "12 34 56 78 0A 01 05 C5 00 00 00 01 00 00 01 35");
    save_hex("fixed", "mode2-medium", 0, "12 34 56 78 0A 00 85 94 F0 00 00 01 00 00 01 3A");
    save_hex("fixed", "historic", 0, "78 56 34 12 0A 00 3E 04 01 00 00 00 35 01 00 F0");
    save_hex("fixed", "both-historic", 0, "78 56 34 12 0A 02 3E 3E DB BB BB BB 35 01 00 00");
    save_hex("fixed", "temperature", 0, "78 56 34 12 0A 01 38 39 01 00 00 00 FF FF FF FF");
    save_hex("fixed", "too-long", 0, "78 56 34 12 0A 00 E9 7E 01 00 00 00 35 01 00 00 00");
}

static void save_examples(void)
{
    uint8_t stream[4096] = {7};
    size_t size = 1;

    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        save_hex("telegram", frames[i].name, 0, frames[i].hex);
        size += unhex(frames[i].hex, stream + size, sizeof stream - size);
        stream[size++] = i % 2 ? 0x68 : 0x16; /* noise; the first has every frame behind it in its candidate */
    }
    save("deframe", "all-frames", stream, size);
    save_hex("deframe", "false-start", 3, "68 FF FF 68 10 40 01 41 16 E5 68 03 03 68 08 01 70 79 16");
    save_hex("deframe", "damaged", 9, "68 06 06 68 53 FE 51 01 7A 08 26 16 68 06 06 68 53 FE 51 01 7A 08 25 16 10 10 10 40 01 41 16");
    for (size_t i = 0; i < sizeof payloads / sizeof payloads[0]; i++)
        save_hex("telegram", payloads[i].name, choice(payloads[i].ci), payloads[i].hex);
    save_compact();
    save_long_headers();
    save_encode();
    save_number();
    save_dates();
    save_fixed();
}

/* ------------------------------------------------------------------ frames of others */

static void save_file(const char *path)
{
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    char text[4096];
    FILE *file = fopen(path, "r");
    size_t n;

    if (!file) {
        perror(path);
        exit(1);
    }
    n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    fclose(file);
    save_hex("telegram", name, 0, text);
    save_hex("deframe", name, 5, text);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return fprintf(stderr, "usage: %s FOLDER [FILE.hex...]\n", argv[0]), 2;
    folder = argv[1];
    if (argc == 2)
        save_examples();
    for (int i = 2; i < argc; i++)
        save_file(argv[i]);
    return 0;
}
