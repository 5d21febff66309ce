/* vif.h - what the core's files share about VIF codes. */
#ifndef MBUS_VIF_H
#define MBUS_VIF_H

#include "mbus.h"

typedef struct vif_row {
    uint8_t first, last;
    uint8_t quantity, unit;
    int8_t exponent; /* power of ten of `first`; each further code has one more */
    uint8_t coding;  /* mbus_coding */
} vif_row;

typedef enum vif_table { VIF_PRIMARY, VIF_FB, VIF_FD, VIF_FDFD, VIF_TABLES } vif_table;

typedef enum vife_effect {
    VIFE_NOTE, VIFE_SUFFIX, VIFE_SCALE, VIFE_ADD, VIFE_DURATION, VIFE_COUNT, VIFE_DATES, VIFE_PROFILE, VIFE_OBIS, VIFE_NONMETRIC,
    VIFE_PRIVATE
} vife_effect;

/* The row of a 7-bit code; every code has one. */
const vif_row *vif_find(vif_table table, unsigned code);
const vif_row *vif_rows(vif_table table, unsigned *count);
uint32_t vif_unit_factor(unsigned unit);

vife_effect vife_find(unsigned code);
bool vife_is_record_error(unsigned code);
const char *vife_suffix(unsigned code); /* "" where it has none */

/* Bytes of data behind a VIB by its data field, at p with n bytes left; -1 where LVAR is reserved or missing. */
int record_data_size(unsigned field, const uint8_t *p, unsigned n);

/* Decodes the data of a record whose DIB, VIB and coding are known. */
void value_decode(mbus_record *record);

#endif
