/* storage_damage.c: what answers can't have, by the names of what was damaged.
 *
 * Damage that is still there names itself when it is read. What was lost where nothing is left to be read (a
 * piece of a snapshot, a chunk that a cut had to leave out) is kept here, by its range of time, until the
 * process ends; the log and the metrics have it too. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "storage/storage_private.h"

void storage__damage_name(struct damage_names *damage, const char *format, ...) {
    char name[80];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    spin_lock(&damage->lock);
    size_t len = strlen(damage->text);
    if (strstr(damage->text, name) == NULL && len + strlen(name) + 3 < sizeof damage->text)
        snprintf(damage->text + len, sizeof damage->text - len, "%s%s", len == 0 ? "" : ", ", name);
    spin_unlock(&damage->lock);
    atomic_fetch_add_explicit(&damage->count, 1, memory_order_release);
}

void storage__damage_text(struct damage_names *damage, char *out, size_t bytes) {
    spin_lock(&damage->lock);
    snprintf(out, bytes, "%s", damage->text);
    spin_unlock(&damage->lock);
}

void storage__loss_add(struct storage *storage, int64_t time_min_ms, int64_t time_max_ms, const char *format,
                       ...) {
    pthread_mutex_lock(&storage->version_mutex);
    size_t count = atomic_load_explicit(&storage->loss_count, memory_order_relaxed);
    size_t at = count < LOSSES_MAX ? count : LOSSES_MAX - 1;
    struct storage_loss *loss = &storage->losses[at];
    if (at < count) { /* the last one stands for all that come behind it */
        time_min_ms = time_min_ms < loss->time_min_ms ? time_min_ms : loss->time_min_ms;
        time_max_ms = time_max_ms > loss->time_max_ms ? time_max_ms : loss->time_max_ms;
    } else {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(loss->name, sizeof loss->name, format, arguments);
        va_end(arguments);
    }
    loss->time_min_ms = time_min_ms;
    loss->time_max_ms = time_max_ms;
    atomic_store_explicit(&storage->loss_count, at + 1, memory_order_release);
    pthread_mutex_unlock(&storage->version_mutex);
}

void storage__losses_name(struct storage *storage, int64_t time_min_ms, int64_t time_max_ms,
                          struct damage_names *damage) {
    if (atomic_load_explicit(&storage->loss_count, memory_order_acquire) == 0)
        return;
    pthread_mutex_lock(&storage->version_mutex);
    for (size_t i = 0; i < atomic_load_explicit(&storage->loss_count, memory_order_relaxed); i++) {
        const struct storage_loss *loss = &storage->losses[i];
        if (loss->time_min_ms <= time_max_ms && loss->time_max_ms >= time_min_ms)
            storage__damage_name(damage, "%s", loss->name);
    }
    pthread_mutex_unlock(&storage->version_mutex);
}
