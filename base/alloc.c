/* alloc.c: the one door to the heap, with a countdown that makes a chosen allocation fail. */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"

/* Off (0) in production: one relaxed load an allocation. */
static atomic_bool fault_armed;
static atomic_uint_fast64_t fault_countdown;
static atomic_int fault_repeat;
static atomic_uint_fast64_t fault_calls;

static bool fault_fires(void) {
    if (!atomic_load_explicit(&fault_armed, memory_order_relaxed))
        return false;
    uint64_t call = atomic_fetch_add(&fault_calls, 1) + 1;
    uint64_t target = atomic_load(&fault_countdown);
    return target != 0 && (call == target || (call > target && atomic_load(&fault_repeat)));
}

uint64_t mem_fault_set(uint64_t countdown, int repeat) {
    uint64_t calls = atomic_exchange(&fault_calls, 0);
    atomic_store(&fault_countdown, countdown);
    atomic_store(&fault_repeat, repeat);
    atomic_store(&fault_armed, countdown != 0);
    return calls;
}

void *mem_alloc(size_t bytes) {
    return fault_fires() ? NULL : malloc(bytes == 0 ? 1 : bytes);
}

void *mem_zalloc(size_t bytes) {
    return fault_fires() ? NULL : calloc(1, bytes == 0 ? 1 : bytes);
}

void *mem_realloc(void *p, size_t bytes) {
    return fault_fires() ? NULL : realloc(p, bytes == 0 ? 1 : bytes);
}

void mem_free(void *p) {
    free(p);
}

char *mem_strndup(const void *data, size_t len) {
    char *copy = mem_alloc(len + 1);
    if (copy == NULL)
        return NULL;
    if (len > 0)
        memcpy(copy, data, len);
    copy[len] = '\0';
    return copy;
}

void *mem_pages_alloc(size_t bytes) {
    if (fault_fires())
        return NULL;
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

void mem_pages_clear(void *p, size_t bytes) {
    int failed = madvise(p, bytes, MADV_DONTNEED);
    ASSERT(failed == 0); /* pages that are ours, and not locked */
}

void mem_pages_free(void *p, size_t bytes) {
    if (p != NULL)
        munmap(p, bytes);
}
