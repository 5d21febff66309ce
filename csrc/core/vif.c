/* vif.c - look-up in the VIF and VIFE tables of vif.def, and the names in them. */
#include "vif.h"

#include <string.h>

static const vif_row primary[] = {
#define PRIMARY(first, last, quantity, unit, exponent, data) \
    {first, last, MBUS_QUANTITY_##quantity, MBUS_UNIT_##unit, exponent, MBUS_CODING_##data},
#include "vif.def"
};
static const vif_row fb[] = {
#define FB(first, last, quantity, unit, exponent, data) \
    {first, last, MBUS_QUANTITY_##quantity, MBUS_UNIT_##unit, exponent, MBUS_CODING_##data},
#include "vif.def"
};
static const vif_row fd[] = {
#define FD(first, last, quantity, unit, exponent, data) \
    {first, last, MBUS_QUANTITY_##quantity, MBUS_UNIT_##unit, exponent, MBUS_CODING_##data},
#include "vif.def"
};
static const vif_row fdfd[] = {
#define FDFD(first, last, quantity, unit, exponent, data) \
    {first, last, MBUS_QUANTITY_##quantity, MBUS_UNIT_##unit, exponent, MBUS_CODING_##data},
#include "vif.def"
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const vif_row *rows;
    unsigned count;
} tables[VIF_TABLES] = {{primary, COUNT(primary)}, {fb, COUNT(fb)}, {fd, COUNT(fd)}, {fdfd, COUNT(fdfd)}};

const vif_row *vif_rows(vif_table table, unsigned *count)
{
    *count = tables[table].count;
    return tables[table].rows;
}

/* The row of every eighth code: most rows have eight codes, so that the next row or two are what is looked for. */
static const uint8_t starts[VIF_TABLES][16] = {
    {0, 1, 2, 3, 4, 12, 13, 14, 15, 16, 17, 18, 20, 22, 27, 35},
    {0, 4, 7, 10, 13, 20, 24, 27, 27, 27, 27, 28, 30, 32, 40, 42},
    {0, 2, 10, 18, 26, 34, 42, 50, 58, 58, 59, 59, 60, 68, 76, 83},
    {0, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4},
};

const vif_row *vif_find(vif_table table, unsigned code)
{
    const vif_row *row = tables[table].rows + starts[table][(code &= 0x7Fu) >> 3];

    while (row->last < code)
        row++;
    return row;
}

static const uint32_t unit_factor[] = {
#define UNIT(id, text, factor) factor,
#include "vif.def"
};

uint32_t vif_unit_factor(unsigned unit)
{
    return unit_factor[unit];
}

/* Combinable VIFE 10..7F, one row or more codes each, in order. */
static const struct modifier {
#ifdef MBUS_NO_NAMES
    uint8_t last, effect;
} modifiers[] = {
#define MODIFIER(first, last, name, effect, suffix) {last, VIFE_##effect},
#else
    uint8_t first, last, effect;
    const char *name, *suffix;
} modifiers[] = {
#define MODIFIER(first, last, name, effect, suffix) {first, last, VIFE_##effect, name, suffix},
#endif
#include "vif.def"
};

static const struct modifier *modifier(unsigned code)
{
    unsigned low = 0, high = COUNT(modifiers) - 1;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (modifiers[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return &modifiers[low];
}

vife_effect vife_find(unsigned code)
{
    return code < 0x10 || code > 0x7F ? VIFE_NOTE : (vife_effect)modifier(code)->effect;
}

bool vife_is_record_error(unsigned code)
{
    switch (code) {
#define RECORD_ERROR(code, name) case code:
#include "vif.def"
        return true;
    default:
        return false;
    }
}

/* ------------------------------------------------------------------ names */

#ifndef MBUS_NO_NAMES

const char *vife_suffix(unsigned code)
{
    return code < 0x10 || code > 0x7F ? "" : modifier(code)->suffix;
}

/* A sparse list of codes and names. */
typedef struct named {
    uint8_t code;
    const char *name;
} named;

static const char *find_name(const named *list, size_t n, unsigned code)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].code == code)
            return list[i].name;
    return NULL;
}

static const named phases[] = {
#define PHASE(code, name) {code, name},
#include "vif.def"
};
static const named record_errors[] = {
#define RECORD_ERROR(code, name) {code, name},
#include "vif.def"
};
static const named actions[] = {
#define ACTION(code, name) {code, name},
#include "vif.def"
};

const char *mbus_modifier_name(unsigned code)
{
    const char *name = NULL;

    if (code >= 0xFC00u)
        name = find_name(phases, COUNT(phases), code & 0x7Fu);
    else if (code >= 0x10 && code <= 0x7F)
        name = modifier(code)->name;
    return name ? name : "reserved";
}

const char *mbus_record_error_name(unsigned code)
{
    return find_name(record_errors, COUNT(record_errors), code);
}

const char *mbus_action_name(unsigned code)
{
    return find_name(actions, COUNT(actions), code);
}

static const char *const quantity_names[] = {
#define QUANTITY(id, name) name,
#include "vif.def"
};
static const char *const unit_names[] = {
#define UNIT(id, text, factor) text,
#include "vif.def"
};

const char *mbus_quantity_name(unsigned quantity)
{
    return quantity < MBUS_QUANTITY_COUNT ? quantity_names[quantity] : "reserved";
}

const char *mbus_unit_name(unsigned unit)
{
    return unit < MBUS_UNIT_COUNT ? unit_names[unit] : "";
}

/* The VIFE that a modifier's name means; `unit`: 0 s, 1 min, 2 h, 3 d for durations. */
int mbus_modifier_code(const char *name, unsigned unit)
{
    for (size_t i = 0; i < COUNT(modifiers); i++)
        if (strcmp(modifiers[i].name, name) == 0)
            return modifiers[i].first + (modifiers[i].last > modifiers[i].first ? (int)unit : 0);
    for (size_t i = 0; i < COUNT(phases); i++)
        if (strcmp(phases[i].name, name) == 0)
            return 0xFC00 + phases[i].code;
    for (size_t i = 0; i < COUNT(record_errors); i++)
        if (strcmp(record_errors[i].name, name) == 0)
            return record_errors[i].code;
    for (size_t i = 0; i < COUNT(actions); i++)
        if (strcmp(actions[i].name, name) == 0)
            return actions[i].code;
    return MBUS_E_BAD_VALUE;
}

#endif
