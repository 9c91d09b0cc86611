/* SPDX-License-Identifier: Apache-2.0 */
#include "model/names.h"

#include <string.h>

#define FIRST_SLOTS 64 /* a power of two, as all sizes are */

typedef struct {
    const char *name; /* NULL: the slot is free */
    int number;
} Slot;

struct NameTable {
    Arena *arena;
    Slot *slots;
    size_t size, used;
};

/* FNV-1a from a salted start, with a final mix since only the low bits are used. */
static size_t hash(const NameTable *table, const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ (uint64_t)(uintptr_t)table;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return (size_t)(h ^ h >> 29);
}

static Slot *find_slot(const NameTable *table, const char *name)
{
    size_t at = hash(table, name) & (table->size - 1);
    while (table->slots[at].name && strcmp(table->slots[at].name, name) != 0)
        at = (at + 1) & (table->size - 1);
    return &table->slots[at];
}

NameTable *name_table_create(Arena *arena)
{
    NameTable *table = arena_array(arena, 1, sizeof *table);
    Slot *slots = arena_array(arena, FIRST_SLOTS, sizeof *slots);
    if (!table || !slots)
        return NULL;
    *table = (NameTable){.arena = arena, .slots = slots, .size = FIRST_SLOTS};
    return table;
}

int name_table_find(const NameTable *table, const char *name)
{
    const Slot *slot = find_slot(table, name);
    return slot->name ? slot->number : -1;
}

static bool grow(NameTable *table)
{
    Slot *old = table->slots, *slots;
    size_t old_size = table->size;
    if (old_size > SIZE_MAX / 2 ||
        !(slots = arena_array(table->arena, 2 * old_size, sizeof *slots)))
        return false;
    table->slots = slots;
    table->size = 2 * old_size;
    for (size_t i = 0; i < old_size; i++)
        if (old[i].name)
            *find_slot(table, old[i].name) = old[i];
    return true;
}

bool name_table_add(NameTable *table, const char *name, int number)
{
    if (2 * table->used >= table->size && !grow(table))
        return false;
    Slot *slot = find_slot(table, name);
    if (!slot->name) {
        *slot = (Slot){name, number};
        table->used++;
    }
    return true;
}
