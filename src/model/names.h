/* A table from names to numbers, in an arena: names are borrowed, none is ever removed.
 *
 * Hashes are salted by the table's address, so that no file can be made that is slow to read.
 * NULL or false means out of memory. Example: int v = name_table_find(t, "x");  -1: not there
 */
#ifndef ONNXPRESS_MODEL_NAMES_H
#define ONNXPRESS_MODEL_NAMES_H

#include "tensor/arena.h"

typedef struct NameTable NameTable;

NameTable *name_table_create(Arena *arena);
int name_table_find(const NameTable *table, const char *name);
/* A name that is there already keeps its number. */
bool name_table_add(NameTable *table, const char *name, int number);

#endif
