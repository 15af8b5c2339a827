/* kill_point.c: see kill_point.h. */
#include "base/kill_point.h"

#ifdef TIDALITE_KILL_POINTS

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

void kill_point(const char *name) {
    static atomic_long passes;
    const char *at = getenv("TIDALITE_KILL_AT");
    size_t len = strlen(name);
    if (at == NULL || strncmp(at, name, len) != 0 || at[len] != ':')
        return;
    if (atomic_fetch_add(&passes, 1) + 1 == strtol(at + len + 1, NULL, 10))
        (void)raise(SIGKILL);
}

static uint64_t *field_of(struct limits *limits, const char *name, size_t len) {
    uint64_t count;
    const struct limit_info *infos = limits_info(&count);
    for (uint64_t i = 0; i < count; i++)
        if (strlen(infos[i].name) == len && strncmp(infos[i].name, name, len) == 0)
            return (uint64_t *)(void *)((char *)limits + infos[i].offset);
    return NULL;
}

void kill_point_limits(struct limits *limits) {
    const char *at = getenv("TIDALITE_LIMITS");
    while (at != NULL && *at != '\0') {
        size_t len = strcspn(at, "=");
        uint64_t *field = field_of(limits, at, len);
        char *end;
        ASSERT(field != NULL && at[len] == '=');
        *field = strtoull(at + len + 1, &end, 10);
        ASSERT(*end == ',' || *end == '\0');
        at = *end == ',' ? end + 1 : end;
    }
}

#endif
