/* storage_scrub.c: all blocks are read and checked over and over, slowly, so that rot is found while the
 * other copies of it, if there are any, still exist. One slice of a MiB or so at a time, no faster than
 * scrub_bytes_per_s; a pass over all blocks begins scrub_pass_ms after the one before began.
 *
 * What is damaged needs no further quarantine: a chunk's checksum is verified each time it is read, and what
 * fails is passed over and told of in the answer's warnings. An index or a description that rotted on disk is
 * made anew from `chunks`, if that is whole, for the next start; the open block goes on with the one it
 * has. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/storage_private.h"

#define SLICE_BYTES ((uint64_t)1 << 20) /* what a step of the verifier reads, about */
#define RETRY_MS    60000

struct scrub {
    struct storage_block *block; /* referenced; NULL: none at hand */
    struct block_verifier *verifier;
    uint64_t done_id; /* blocks with ids up to this were done in this pass */
    bool passing;
    int64_t pass_at_ms; /* when it began */
    int64_t next_at_ms;
    uint64_t findings; /* in the block at hand */
    uint64_t in_chunks;
};

static void block_release(struct storage *storage) {
    struct scrub *scrub = storage->scrub;
    block_verifier_close(scrub->verifier);
    scrub->verifier = NULL;
    if (scrub->block != NULL)
        storage__block_unref(storage, scrub->block);
    scrub->block = NULL;
}

void storage__scrub_close(struct storage *storage) {
    if (storage->scrub == NULL)
        return;
    block_release(storage);
    mem_free(storage->scrub);
    storage->scrub = NULL;
}

static int finding_each(void *context, const struct block_finding *finding) {
    struct storage *storage = context;
    struct scrub *scrub = storage->scrub;
    scrub->findings++;
    scrub->in_chunks += slice_equal(slice_str(finding->file), slice_str("chunks"));
    metric_add(METRIC_scrub_damage, 1);
    log_error("damage found by scrubbing", LOG_STR("dir", block_dir(scrub->block->block)),
              LOG_STR("file", finding->file), LOG_U64("offset", finding->offset),
              LOG_STR("what", finding->what));
    return STATUS_OK;
}

/* Is `now` before `at`? A clock that went back delays no more than it would otherwise. */
static bool waits(int64_t now_ms, int64_t at_ms, int64_t longest_ms) {
    return now_ms < at_ms && at_ms - now_ms <= longest_ms;
}

/* The next block of the pass, by id, so that what is made meanwhile comes last. */
static int block_begin(struct storage *storage, int64_t now_ms) {
    struct scrub *scrub = storage->scrub;
    struct storage_block *next = NULL;
    struct storage_version *version = storage__version_get(storage, NULL);
    for (size_t i = 0; i < version->count; i++)
        if (version->blocks[i]->info.id > scrub->done_id &&
            (next == NULL || version->blocks[i]->info.id < next->info.id))
            next = version->blocks[i];
    if (next != NULL)
        storage__block_ref(storage, next);
    storage__version_put(storage, version);
    if (next == NULL) {
        scrub->passing = false;
        metric_add(METRIC_scrub_passes, 1);
        metric_set(METRIC_scrub_time, (uint64_t)(now_ms > 0 ? now_ms / 1000 : 0));
        return STATUS_OK;
    }
    scrub->block = next;
    scrub->done_id = next->info.id;
    scrub->findings = scrub->in_chunks = 0;
    int status = block_verifier_open(next->block, finding_each, storage, &scrub->verifier);
    if (status < 0)
        scrub->verifier = NULL;
    return status;
}

static void block_end(struct storage *storage) {
    struct scrub *scrub = storage->scrub;
    struct error_detail detail = {0};
    /* With damage in `chunks` the index may be what still knows the labels: it stays, if it is whole itself.
     */
    bool index_only = scrub->in_chunks == 0 || block_index_rebuilt(scrub->block->block);
    if (scrub->findings > scrub->in_chunks && index_only && !scrub->block->doomed) {
        block_verifier_close(scrub->verifier);
        scrub->verifier = NULL;
        if (block_renew(storage->options.io_maintain, block_dir(scrub->block->block), &detail) == STATUS_OK)
            log_info("a block's index was written anew", LOG_STR("dir", block_dir(scrub->block->block)));
        else
            log_warn("a block's index could not be written anew", LOG_STR("error", detail.text));
    }
    block_release(storage);
}

void storage__scrub_step(struct storage *storage, int64_t now_ms) {
    const struct limits *limits = storage->options.limits;
    struct scrub *scrub = storage->scrub;
    if (scrub == NULL) {
        scrub = mem_zalloc(sizeof *scrub);
        if (scrub == NULL)
            return;
        scrub->pass_at_ms = now_ms; /* opening checked the indexes: the first pass has time */
        storage->scrub = scrub;
    }
    int64_t slice_ms = (int64_t)(SLICE_BYTES * 1000 / limits->scrub_bytes_per_s) + 1;
    if (!scrub->passing) {
        int64_t at_ms = scrub->pass_at_ms + (int64_t)limits->scrub_pass_ms;
        if (waits(now_ms, at_ms, (int64_t)limits->scrub_pass_ms))
            return;
        scrub->passing = true;
        scrub->pass_at_ms = now_ms;
        scrub->done_id = 0;
    }
    if (waits(now_ms, scrub->next_at_ms, slice_ms > RETRY_MS ? slice_ms : RETRY_MS))
        return;
    int status = STATUS_OK;
    struct error_detail detail = {0};
    if (scrub->block == NULL) {
        status = block_begin(storage, now_ms);
    } else if (scrub->block->doomed) {
        block_release(storage);
    } else {
        status = block_verifier_step(scrub->verifier, NULL, &detail);
        metric_add(METRIC_scrub_bytes, SLICE_BYTES);
        if (status == STATUS_END)
            block_end(storage);
    }
    scrub->next_at_ms = now_ms + slice_ms;
    if (status < 0) { /* this block again, later */
        if (scrub->block != NULL)
            scrub->done_id = scrub->block->info.id - 1;
        block_release(storage);
        scrub->next_at_ms = now_ms + RETRY_MS;
    }
}
