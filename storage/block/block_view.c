/* block_view.c: series and their chunks, by ordinal. */
#include <errno.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "storage/block/block_private.h"

struct block_view {
    struct block *block;
    MDB_txn *txn;
    MDB_cursor *cursor; /* of the table series */
    bool has_group;
    struct slice group_bytes;
    uint32_t group_first, group_end;
    struct block__group_reader start; /* at the group's first series */
    struct block__group_reader next;  /* at the next one to be read */
    struct block__series_entry entry; /* the last one read, if has_entry */
    bool has_entry;
    struct block_chunk_ref *refs;
    size_t capacity;
    struct buf labels; /* put together from the index */
};

static int index_corrupt(struct block *block, struct error_detail *detail) {
    return error_set(detail, STATUS_CORRUPT, "%s/%s: the table series contradicts itself", block->dir,
                     BLOCK__FILE_INDEX);
}

static int no_memory(struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "reading a block: out of memory");
}

int block_view_open(struct block *block, struct block_view **out) {
    int status = block_prepare(block, NULL);
    if (status < 0)
        return status;
    struct block_view *view = mem_zalloc(sizeof *view);
    if (view == NULL)
        return STATUS_NO_MEMORY;
    view->block = block;
    buf_init(&view->labels);
    int result = mdb_txn_begin(block->index.env, NULL, MDB_RDONLY, &view->txn);
    if (result == 0)
        result = mdb_cursor_open(view->txn, block->index.tables[BLOCK__TABLE_SERIES], &view->cursor);
    if (result != 0) {
        block_view_close(view);
        return result == MDB_BAD_TXN || result == ENOMEM ? STATUS_NO_MEMORY : STATUS_IO;
    }
    *out = view;
    return STATUS_OK;
}

void block_view_close(struct block_view *view) {
    if (view == NULL)
        return;
    if (view->cursor != NULL)
        mdb_cursor_close(view->cursor);
    if (view->txn != NULL)
        mdb_txn_abort(view->txn);
    buf_release(&view->labels);
    mem_free(view->refs);
    mem_free(view);
}

/* The group that the ordinal would be in: STATUS_NOT_FOUND if none is. Groups are found by their last
 * ordinal. */
static int group_find(struct block_view *view, uint32_t ordinal, struct error_detail *detail) {
    view->has_group = false;
    view->has_entry = false;
    uint8_t bytes[4];
    block__key_write(bytes, ordinal);
    MDB_val key = {sizeof bytes, bytes}, value;
    int result = mdb_cursor_get(view->cursor, &key, &value, MDB_SET_RANGE);
    if (result == MDB_NOTFOUND)
        return STATUS_NOT_FOUND;
    if (result != 0 || key.mv_size != 4 ||
        block__group_start(&view->start, slice_of(value.mv_data, value.mv_size)) < 0)
        return index_corrupt(view->block, detail);
    view->group_first = view->start.ordinal;
    view->group_end = view->start.ordinal + view->start.left;
    view->next = view->start;
    view->has_group = true;
    return ordinal >= view->group_first && ordinal < view->group_end ? STATUS_OK : STATUS_NOT_FOUND;
}

/* Makes view->entry the ordinal's. */
static int entry_find(struct block_view *view, uint32_t ordinal, struct error_detail *detail) {
    int status = STATUS_OK;
    if (view->has_entry && view->entry.ordinal == ordinal)
        return STATUS_OK;
    if (!view->has_group || ordinal < view->group_first || ordinal >= view->group_end)
        TRY(group_find(view, ordinal, detail));
    view->has_entry = false;
    if (ordinal < view->next.ordinal)
        view->next = view->start;
    while (view->next.ordinal < ordinal)
        if (block__group_skip(&view->next) != STATUS_OK)
            return index_corrupt(view->block, detail);
    if (block__group_next(&view->next, &view->entry) != STATUS_OK)
        return index_corrupt(view->block, detail);
    view->has_entry = true;
out:
    return status == STATUS_NOT_FOUND
               ? error_set(detail, status, "%s: no series with ordinal %u", view->block->dir, ordinal)
               : status;
}

int block_view_series(struct block_view *view, uint32_t ordinal, int64_t time_min_ms, int64_t time_max_ms,
                      struct block_series *out, struct error_detail *detail) {
    int status = STATUS_OK;
    TRY(entry_find(view, ordinal, detail));
    if (view->entry.chunk_count > view->capacity) {
        mem_free(view->refs);
        view->capacity = 0;
        view->refs = mem_alloc(view->entry.chunk_count * sizeof *view->refs);
        if (view->refs == NULL)
            return no_memory(detail);
        view->capacity = view->entry.chunk_count;
    }
    size_t count;
    if (block__chunks_read(&view->start, &view->entry, time_min_ms, time_max_ms, view->refs, &count) < 0)
        return index_corrupt(view->block, detail);
    *out = (struct block_series){
        .ordinal = ordinal, .id = view->entry.id, .chunks = view->refs, .chunk_count = count};
out:
    return status;
}

int block_view_labels(struct block_view *view, uint32_t ordinal, struct slice *labels_out,
                      struct error_detail *detail) {
    int status = STATUS_OK;
    struct block *block = view->block;
    TRY(entry_find(view, ordinal, detail));
    struct block__run run;
    if (block__run_read(block->chunks, &block->base, view->entry.offset, &run) == STATUS_OK &&
        run.ordinal == ordinal && run.id == view->entry.id) {
        *labels_out = run.labels;
        return STATUS_OK;
    }
    (void)block__chunks_damaged(block,
                                (struct block_damage){.offset = view->entry.offset,
                                                      .ordinal = ordinal,
                                                      .time_min_ms = INT64_MIN,
                                                      .time_max_ms = INT64_MAX,
                                                      .what = "series: wrong checksum"},
                                NULL);
    struct block__reading reading;
    status = block__reading_begin(block, detail, &reading);
    if (status == STATUS_OK)
        status = block__reading_labels(&reading, ordinal, &view->labels);
    block__reading_end(&reading);
    if (status == STATUS_OK)
        *labels_out = buf_slice(&view->labels);
out:
    return status;
}

/* ---- Chunks ------------------------------------------------------------------------------------------- */

static int chunk_damaged(struct block *block, uint32_t ordinal, const struct block_chunk_ref *ref,
                         const char *what, struct error_detail *detail) {
    return block__chunks_damaged(block,
                                 (struct block_damage){.offset = ref->offset,
                                                       .bytes = ref->bytes,
                                                       .ordinal = ordinal,
                                                       .data_lost = true,
                                                       .time_min_ms = ref->time_min_ms,
                                                       .time_max_ms = ref->time_max_ms,
                                                       .what = what},
                                 detail);
}

int block_chunk_check(struct block *block, uint32_t ordinal, const struct block_chunk_ref *ref,
                      const uint8_t *data, struct block_chunk *out, struct error_detail *detail) {
    struct block_chunk chunk;
    if (block__chunk_read(&block->base, ref->offset, data, ref->bytes, &chunk) < 0)
        return chunk_damaged(block, ordinal, ref, "chunk: wrong checksum", detail);
    if (chunk.time_min_ms != ref->time_min_ms || chunk.time_max_ms != ref->time_max_ms)
        return chunk_damaged(block, ordinal, ref, "chunk: not the one that the index tells of", detail);
    *out = chunk;
    return STATUS_OK;
}

int block_chunk_read(struct block *block, uint32_t ordinal, const struct block_chunk_ref *ref,
                     struct block_chunk *out, struct error_detail *detail) {
    if (ref->offset > block->chunks.len || ref->bytes > block->chunks.len - ref->offset)
        return chunk_damaged(block, ordinal, ref, "chunk: behind the end of the file", detail);
    return block_chunk_check(block, ordinal, ref, block->chunks.data + ref->offset, out, detail);
}

/* ---- Cursors ------------------------------------------------------------------------------------------ */

struct block_cursor {
    struct block_view *view;
    uint32_t next, end;
};

int block_cursor_open(struct block *block, unsigned shard_first, unsigned shard_last,
                      struct block_cursor **out) {
    ASSERT(shard_first <= shard_last && shard_last < BLOCK_SHARDS);
    struct block_cursor *cursor = mem_zalloc(sizeof *cursor);
    if (cursor == NULL)
        return STATUS_NO_MEMORY;
    int status = block_view_open(block, &cursor->view);
    if (status < 0) {
        mem_free(cursor);
        return status;
    }
    cursor->next = block->index.info.shard_first[shard_first];
    cursor->end = block->index.info.shard_first[shard_last + 1];
    *out = cursor;
    return STATUS_OK;
}

void block_cursor_close(struct block_cursor *cursor) {
    if (cursor == NULL)
        return;
    block_view_close(cursor->view);
    mem_free(cursor);
}

int block_cursor_next(struct block_cursor *cursor, struct block_series *out, struct error_detail *detail) {
    while (cursor->next < cursor->end) {
        uint32_t ordinal = cursor->next;
        struct error_detail inner = {0};
        struct block_series series;
        int status = block_view_series(cursor->view, ordinal, INT64_MIN, INT64_MAX, &series, &inner);
        if (status == STATUS_NOT_FOUND) { /* lost; the next group begins behind the hole */
            cursor->next = cursor->view->has_group && cursor->view->group_first > ordinal
                               ? cursor->view->group_first
                               : cursor->end;
            continue;
        }
        if (status == STATUS_OK)
            status = block_view_labels(cursor->view, ordinal, &series.labels, &inner);
        if (status < 0)
            return error_set(detail, status, "%s", inner.text);
        cursor->next++;
        *out = series;
        return STATUS_OK;
    }
    return STATUS_END;
}
