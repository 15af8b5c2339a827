/* verify_log.c: every frame and record of the log. A torn tail is no damage: it was never acknowledged, and
 * in a directory in use it may be the group that is being written. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "tools/log_read.h"
#include "tools/verify.h"

#define TRIES 5

struct log_check {
    struct verify *verify;
    const char *dir;
    uint8_t *declared; /* bit by slot, of the segment at hand */
    size_t declared_bytes;
    uint32_t *orphans; /* by slot: samples in segments that do not declare it */
    size_t orphan_end;
    struct buf found; /* struct log_damage */
};

struct log_damage {
    uint32_t segment;
    uint64_t offset;
    uint64_t frames;
    const char *what;
};

static int on_segment(void *context, uint32_t number) {
    struct log_check *check = context;
    (void)number;
    if (check->declared_bytes > 0)
        memset(check->declared, 0, check->declared_bytes);
    return STATUS_OK;
}

static int declare(struct log_check *check, uint32_t slot) {
    size_t byte = slot / 8;
    if (byte >= check->declared_bytes) {
        size_t bytes = byte * 2 + 1024;
        uint8_t *grown = mem_realloc(check->declared, bytes);
        if (grown == NULL)
            return STATUS_NO_MEMORY;
        memset(grown + check->declared_bytes, 0, bytes - check->declared_bytes);
        check->declared = grown;
        check->declared_bytes = bytes;
    }
    check->declared[byte] |= (uint8_t)(1u << (slot % 8));
    return STATUS_OK;
}

static int on_series(void *context, uint32_t slot, uint64_t id, struct slice labels) {
    (void)id, (void)labels;
    return declare(context, slot);
}

static int orphan_add(struct log_check *check, uint32_t slot) {
    size_t before = check->orphan_end;
    uint32_t *orphans = array_ensure(check->orphans, &check->orphan_end, (size_t)slot + 1, sizeof *orphans);
    if (orphans == NULL)
        return STATUS_NO_MEMORY;
    memset(orphans + before, 0, (check->orphan_end - before) * sizeof *orphans);
    check->orphans = orphans;
    orphans[slot]++;
    return STATUS_OK;
}

static int on_sample(void *context, uint32_t slot, struct sample sample) {
    struct log_check *check = context;
    (void)sample;
    bool declared = slot / 8 < check->declared_bytes && (check->declared[slot / 8] & 1u << (slot % 8)) != 0;
    return declared ? STATUS_OK : orphan_add(check, slot);
}

static void on_damage(void *context, uint32_t segment, uint64_t offset, uint64_t frames, const char *what) {
    struct log_check *check = context;
    const struct log_damage damage = {segment, offset, frames, what};
    buf_append(&check->found, &damage, sizeof damage);
}

static int read_once(struct log_check *check, struct wal_replay_stats *stats, struct error_detail *detail) {
    const struct log_sink sink = {.segment = on_segment,
                                  .series = on_series,
                                  .sample = on_sample,
                                  .damage = on_damage,
                                  .context = check};
    buf_clear(&check->found);
    if (check->orphan_end > 0)
        memset(check->orphans, 0, check->orphan_end * sizeof *check->orphans);
    int status = log_read(check->verify->io, check->dir, manifest_position_max(&check->verify->manifest),
                          &sink, detail, stats);
    return status == STATUS_OK && check->found.failed ? STATUS_NO_MEMORY : status;
}

/* Samples whose series nobody names: not the segment, and not the label part of now. */
static int orphans_count(struct log_check *check, struct error_detail *detail, uint64_t *count_out) {
    struct buf labelled;
    uint64_t count = 0;
    buf_init(&labelled);
    int status = verify_labelled(check->verify, &labelled, detail);
    for (size_t slot = 0; slot < check->orphan_end; slot++)
        if (slot / 8 >= labelled.len || (labelled.data[slot / 8] & 1u << (slot % 8)) == 0)
            count += check->orphans[slot];
    buf_release(&labelled);
    *count_out = count;
    return status;
}

static void report(struct log_check *check, uint64_t orphans) {
    const struct log_damage *found = (const struct log_damage *)(void *)check->found.data;
    for (size_t i = 0; i < check->found.len / sizeof *found; i++) {
        char path[4096], costs[128];
        snprintf(path, sizeof path, "%s/%08x.log", check->dir, found[i].segment);
        snprintf(costs, sizeof costs,
                 strstr(found[i].what, "one of") != NULL ? "nothing, the other copy counts"
                                                         : "the requests in %llu frames of 4096 bytes",
                 (unsigned long long)found[i].frames);
        verify_damage(check->verify, path, found[i].offset, found[i].what, costs);
    }
    if (orphans > 0)
        verify_note(check->verify, "%llu samples in %s belong to series whose declaration is damaged",
                    (unsigned long long)orphans, check->dir);
}

int verify_log(struct verify *verify, struct error_detail *detail) {
    char dir[4000];
    struct log_check check = {.verify = verify, .dir = dir};
    struct wal_replay_stats stats = {0};
    if ((size_t)snprintf(dir, sizeof dir, "%s/wal", verify->dir) >= sizeof dir)
        return STATUS_TOO_LARGE;
    int status = STATUS_NOT_FOUND;
    for (int tries = 0; tries < TRIES && status == STATUS_NOT_FOUND; tries++)
        status = read_once(&check, &stats, detail);
    uint64_t orphans = 0;
    if (status == STATUS_OK)
        status = orphans_count(&check, detail, &orphans);
    if (status == STATUS_OK) {
        report(&check, orphans);
        if (stats.torn_tails > 0)
            verify_note(verify, "%s ends in %llu bytes that were never acknowledged", dir,
                        (unsigned long long)stats.torn_bytes);
    }
    mem_free(check.declared);
    mem_free(check.orphans);
    buf_release(&check.found);
    return status;
}
