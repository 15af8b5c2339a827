#include "server/queries.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/status.h"

int queries_init(struct queries *queries, size_t slow_max) {
    ASSERT(slow_max > 0);
    *queries = (struct queries){.slow_max = slow_max};
    queries->slow = mem_zalloc(slow_max * sizeof *queries->slow);
    if (queries->slow == NULL)
        return STATUS_NO_MEMORY;
    pthread_mutex_init(&queries->lock, NULL);
    return STATUS_OK;
}

void queries_release(struct queries *queries) {
    if (queries->slow == NULL)
        return;
    ASSERT(queries->first == NULL);
    pthread_mutex_destroy(&queries->lock);
    mem_free(queries->slow);
    queries->slow = NULL;
}

void queries_add(struct queries *queries, struct query_entry *entry) {
    pthread_mutex_lock(&queries->lock);
    entry->note.id = ++queries->id_last;
    entry->next = queries->first;
    if (entry->next != NULL)
        entry->next->link = &entry->next;
    entry->link = &queries->first;
    queries->first = entry;
    entry->listed = true;
    pthread_mutex_unlock(&queries->lock);
}

void queries_run(struct queries *queries, struct query_entry *entry) {
    pthread_mutex_lock(&queries->lock);
    entry->running = true;
    pthread_mutex_unlock(&queries->lock);
}

void queries_remove(struct queries *queries, struct query_entry *entry) {
    pthread_mutex_lock(&queries->lock);
    if (entry->listed) {
        *entry->link = entry->next;
        if (entry->next != NULL)
            entry->next->link = entry->link;
        entry->listed = false;
    }
    pthread_mutex_unlock(&queries->lock);
}

bool queries_cancel(struct queries *queries, uint64_t id) {
    pthread_mutex_lock(&queries->lock);
    struct query_entry *entry = queries->first;
    while (entry != NULL && entry->note.id != id)
        entry = entry->next;
    if (entry != NULL)
        atomic_store(entry->canceled, true);
    pthread_mutex_unlock(&queries->lock);
    return entry != NULL;
}

void queries_each(struct queries *queries, void (*each)(void *context, const struct query_entry *entry),
                  void *context) {
    pthread_mutex_lock(&queries->lock);
    for (const struct query_entry *entry = queries->first; entry != NULL; entry = entry->next)
        each(context, entry);
    pthread_mutex_unlock(&queries->lock);
}

void queries_slow_add(struct queries *queries, const struct query_slow *slow) {
    pthread_mutex_lock(&queries->lock);
    queries->slow[queries->slow_count++ % queries->slow_max] = *slow;
    pthread_mutex_unlock(&queries->lock);
}

void queries_slow_each(struct queries *queries, void (*each)(void *context, const struct query_slow *slow),
                       void *context) {
    pthread_mutex_lock(&queries->lock);
    uint64_t count = queries->slow_count < queries->slow_max ? queries->slow_count : queries->slow_max;
    for (uint64_t i = 1; i <= count; i++)
        each(context, &queries->slow[(queries->slow_count - i) % queries->slow_max]);
    pthread_mutex_unlock(&queries->lock);
}

struct slice queries_text_cut(struct slice text) {
    if (text.len <= QUERIES_TEXT_BYTES)
        return text;
    text.len = QUERIES_TEXT_BYTES;
    while (text.len > 0 && (text.data[text.len] & 0xc0) == 0x80)
        text.len--;
    return text;
}
