/* counter.c - notes every line of Lua that runs, in all coroutines (they inherit a hook that is set from C).
 *
 * Loaded by start.lua into every Lua process of a coverage run; what was seen is written when the process ends, as
 * "line file", into the folder that COVERAGE_HITS names.
 */
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINES_MAX = 4096, SLOTS = 4096 };

typedef struct source {
    char *name;
    unsigned char seen[LINES_MAX];
} source;

static source *sources[SLOTS]; /* by hash of the name */

static source *find(const char *name)
{
    unsigned hash = 5381;
    for (const char *p = name; *p; p++) hash = hash * 33 + (unsigned char)*p;
    for (unsigned i = 0; i < SLOTS; i++) {
        source **slot = &sources[(hash + i) % SLOTS];
        if (!*slot) {
            *slot = calloc(1, sizeof **slot);
            if (*slot) (*slot)->name = strdup(name);
            return *slot;
        }
        if (strcmp((*slot)->name, name) == 0) return *slot;
    }
    return NULL;
}

static void on_line(lua_State *L, lua_Debug *ar)
{
    static const char *last_pointer;
    static source *last;

    if (ar->event != LUA_HOOKLINE || ar->currentline >= LINES_MAX) return;
    lua_getinfo(L, "S", ar);
    if (ar->source[0] != '@') return;
    if (ar->source != last_pointer || strcmp(last->name, ar->source) != 0) {
        source *found = find(ar->source);
        if (!found) return;
        last = found;
        last_pointer = ar->source;
    }
    last->seen[ar->currentline] = 1;
}

static void save(void)
{
    const char *folder = getenv("COVERAGE_HITS");
    char path[4096];
    FILE *file;

    if (!folder) return;
    snprintf(path, sizeof path, "%s/%ld.hits", folder, (long)getpid());
    file = fopen(path, "a");
    if (!file) return;
    for (unsigned i = 0; i < SLOTS; i++)
        for (unsigned line = 1; sources[i] && line < LINES_MAX; line++)
            if (sources[i]->seen[line]) fprintf(file, "%u %s\n", line, sources[i]->name + 1);
    fclose(file);
}

int luaopen_counter(lua_State *L)
{
    lua_sethook(L, on_line, LUA_MASKLINE, 0);
    atexit(save);
    return 0;
}
