/* block_verify.c: is all of it what was written, and does it agree with itself?
 *
 * `chunks` is read front to back: every head, table and chunk, beside the index' entry of the same series;
 * the other way round it is enough that the index has no more series than were met. For labels, both sides
 * are added up: a sum over all (series, name, value) of a hash of the three. `chunks` gives one sum, the
 * index' postings another. */
#define XXH_INLINE_ALL
#include <lmdb.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "storage/block/block_meta.h"
#include "storage/block/block_private.h"

#define STEP_BYTES ((uint64_t)1 << 20)
#define STEP_PAGES 64

enum phase { PHASE_OPENING, PHASE_RUNS, PHASE_INDEX_FILE, PHASE_NAMES, PHASE_VALUES, PHASE_DONE };

struct name {
    uint64_t hash;
    struct block__name_entry entry;
    uint32_t number;
    uint64_t series;  /* counted */
    uint64_t present; /* sum over the series that the values tell of */
};

struct block_verifier {
    struct block *block;
    int (*each)(void *context, const struct block_finding *finding);
    void *context;
    struct error_detail *detail; /* of the step */
    enum phase phase;

    uint64_t offset;     /* in the file at hand */
    uint32_t crc;        /* of it up to there */
    uint64_t crc_offset; /* as far as that goes */
    int64_t last;        /* ordinal */
    struct buf last_labels;
    uint64_t series, chunks, samples, labels;
    uint64_t sum_chunks, sum_index; /* over all labels */
    uint32_t *lengths;
    size_t lengths_capacity;
    struct block_view *view;
    struct sample_columns columns;

    struct io_file *index_file;
    struct buf sums;
    uint64_t pages;
    const uint8_t *page_crcs;
    uint8_t *data;

    struct block__reading reading;
    bool is_reading;
    struct name *names;
    size_t name_count, name_capacity, name_at;
    uint32_t page;        /* of the values of that name */
    struct buf last_text; /* to see that texts ascend */
    bool has_last;
    uint32_t pair; /* the next one's number */
};

static int tell(struct block_verifier *verifier, const char *file, uint64_t offset, const char *what) {
    struct block_finding finding = {.file = file, .offset = offset, .what = what};
    int status = verifier->each(verifier->context, &finding);
    return status < 0 ? status : STATUS_OK;
}

static int tell_chunks(struct block_verifier *verifier, uint64_t offset, const char *what) {
    return tell(verifier, BLOCK__FILE_CHUNKS, offset, what);
}

static int no_memory(struct block_verifier *verifier) {
    return error_set(verifier->detail, STATUS_NO_MEMORY, "verifying a block: out of memory");
}

/* ---- Hashes ------------------------------------------------------------------------------------------- */

static uint64_t hash_of(struct slice s) {
    return XXH3_64bits(s.data, s.len);
}

static uint64_t mixed(uint64_t a, uint64_t b) {
    uint64_t x = a ^ (b * UINT64_C(0x9e3779b97f4a7c15));
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* ---- The file chunks ---------------------------------------------------------------------------------- */

static int chunk_verify(struct block_verifier *verifier, const struct block__run *run, uint64_t offset,
                        uint32_t bytes, const struct block_chunk_ref *ref, struct block_chunk *chunk) {
    struct block *block = verifier->block;
    verifier->chunks++;
    if (block__chunk_read(&block->base, offset, block->chunks.data + offset, bytes, chunk) < 0) {
        struct block_damage damage = {.offset = offset,
                                      .bytes = bytes,
                                      .ordinal = run->ordinal,
                                      .data_lost = true,
                                      .time_min_ms = ref != NULL ? ref->time_min_ms : block->meta.time_min_ms,
                                      .time_max_ms = ref != NULL ? ref->time_max_ms : block->meta.time_max_ms,
                                      .what = "chunk: wrong checksum"};
        (void)block__chunks_damaged(block, damage, NULL);
        return tell_chunks(verifier, offset, damage.what);
    }
    verifier->samples += chunk->info.sample_count;
    if (ref != NULL && (ref->offset != offset || ref->bytes != bytes ||
                        ref->time_min_ms != chunk->time_min_ms || ref->time_max_ms != chunk->time_max_ms))
        return tell_chunks(verifier, offset, "chunk: not the one that the index tells of");
    struct sample_columns *columns = &verifier->columns;
    columns->count = 0;
    int status = chunk_decode(chunk->bits, chunk->info, INT64_MIN, INT64_MAX, columns);
    if (status == STATUS_NO_MEMORY)
        return no_memory(verifier);
    if (status < 0 || columns->count != chunk->info.sample_count)
        return tell_chunks(verifier, offset, "chunk: its bits do not decode");
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (size_t i = 0; i < columns->count; i++) {
        low = columns->times_ms[i] < low ? columns->times_ms[i] : low;
        high = columns->times_ms[i] > high ? columns->times_ms[i] : high;
    }
    if (low != chunk->time_min_ms || high != chunk->time_max_ms)
        return tell_chunks(verifier, offset, "chunk: its samples are not at the times it tells of");
    return STATUS_OK;
}

static int labels_verify(struct block_verifier *verifier, const struct block__run *run) {
    struct label label;
    bool named = false;
    for (struct slice rest = run->labels; label_next(&rest, &label, NULL); verifier->labels++) {
        named = named || slice_equal(label.name, slice_str(LABEL_NAME_METRIC));
        verifier->sum_chunks += mixed(mixed(hash_of(label.name), hash_of(label.value)), run->ordinal);
    }
    int status = STATUS_OK;
    if (!named)
        TRY(tell_chunks(verifier, run->offset, "series: it has no metric name"));
    if (verifier->last >= 0 && block_series_order(buf_slice(&verifier->last_labels), run->labels) >= 0)
        TRY(tell_chunks(verifier, run->offset, "series: out of order"));
    buf_clear(&verifier->last_labels);
    buf_append(&verifier->last_labels, run->labels.data, run->labels.len);
    if (verifier->last_labels.failed)
        return no_memory(verifier);
out:
    return status;
}

static int run_verify(struct block_verifier *verifier, const struct block__run *run) {
    int status = STATUS_OK;
    struct block *block = verifier->block;
    verifier->series++;
    TRY(labels_verify(verifier, run));
    if (!block__run_padding_zero(block->chunks, run))
        TRY(tell_chunks(verifier, block__run_data(run) + run->data_bytes, "padding: not zero"));
    struct block_series series = {0};
    struct error_detail inner = {0};
    status = block_view_series(verifier->view, run->ordinal, INT64_MIN, INT64_MAX, &series, &inner);
    if (status == STATUS_NO_MEMORY)
        return no_memory(verifier);
    bool known = status == STATUS_OK;
    if (!known)
        TRY(tell_chunks(verifier, run->offset, "series: not in the index"));
    if (known && series.id != run->id)
        TRY(tell_chunks(verifier, run->offset, "series: another id in the index"));
    if (run->chunk_count > verifier->lengths_capacity) {
        mem_free(verifier->lengths);
        verifier->lengths_capacity = 0;
        verifier->lengths = mem_alloc(run->chunk_count * sizeof *verifier->lengths);
        if (verifier->lengths == NULL)
            return no_memory(verifier);
        verifier->lengths_capacity = run->chunk_count;
    }
    bool table = block__run_table(block->chunks, &block->base, run, verifier->lengths) == STATUS_OK;
    if (!table)
        TRY(tell_chunks(verifier, run->offset + run->head_bytes, "table of chunks: wrong checksum"));
    if (known && series.chunk_count != run->chunk_count && (table || series.chunk_count > 0))
        TRY(tell_chunks(verifier, run->offset, "series: another number of chunks in the index"));
    uint64_t offset = block__run_data(run);
    struct block_chunk before = {.time_min_ms = INT64_MIN};
    for (uint32_t i = 0; i < run->chunk_count; i++) {
        const struct block_chunk_ref *ref = i < series.chunk_count ? &series.chunks[i] : NULL;
        struct block_chunk chunk = before;
        if (!table && ref == NULL)
            break;
        if (!table)
            offset = ref->offset;
        uint32_t bytes = table ? verifier->lengths[i] : ref->bytes;
        if (offset > block->chunks.len || bytes > block->chunks.len - offset)
            break;
        TRY(chunk_verify(verifier, run, offset, bytes, ref, &chunk));
        if (chunk.time_min_ms < before.time_min_ms ||
            (chunk.time_min_ms == before.time_min_ms && chunk.log_position < before.log_position))
            TRY(tell_chunks(verifier, offset, "chunk: out of order"));
        before = chunk;
        offset += bytes;
    }
    status = STATUS_OK;
out:
    return status;
}

static void crc_to(struct block_verifier *verifier, uint64_t offset) {
    if (offset > verifier->crc_offset) {
        verifier->crc = crc32c(verifier->crc, verifier->block->chunks.data + verifier->crc_offset,
                               (size_t)(offset - verifier->crc_offset));
        verifier->crc_offset = offset;
    }
}

static int runs_end(struct block_verifier *verifier) {
    int status = STATUS_OK;
    const struct block *block = verifier->block;
    const struct block_meta *meta = &block->meta;
    const struct block__index_info *info = &block->index.info;
    crc_to(verifier, block->chunks.len);
    if (block->meta_read && (meta->chunks.bytes != block->chunks.len || meta->chunks.crc != verifier->crc))
        TRY(tell_chunks(verifier, 0, "chunks: not the size or checksum that meta.json tells of"));
    if (meta->series_count != verifier->series || meta->chunk_count != verifier->chunks ||
        meta->sample_count != verifier->samples)
        TRY(tell_chunks(
            verifier, block->runs_end,
            "chunks: not as many series, chunks or samples as meta.json or the trailer tells of"));
    if (info->series_count != verifier->series)
        TRY(tell(verifier, BLOCK__FILE_INDEX, 0, "index: tells of another number of series than there are"));
out:
    return status;
}

static int runs_step(struct block_verifier *verifier) {
    int status = STATUS_OK;
    struct block *block = verifier->block;
    uint64_t stop = verifier->offset + STEP_BYTES;
    while (verifier->offset < block->runs_end && verifier->offset < stop) {
        struct block__run run;
        uint64_t from = verifier->offset;
        if (block__run_read(block->chunks, &block->base, from, &run) < 0 ||
            !block__run_labels_canonical(&run) || (int64_t)run.ordinal <= verifier->last) {
            TRY(tell_chunks(verifier, from, "series: wrong checksum"));
            do {
                from += BLOCK__RUN_ALIGN;
                status = block__run_find(block->chunks, &block->base, from, block->runs_end, &run);
                from = run.offset;
            } while (status == STATUS_OK && (int64_t)run.ordinal <= verifier->last);
            if (status < 0) {
                verifier->offset = block->runs_end;
                break;
            }
        }
        TRY(run_verify(verifier, &run));
        verifier->last = run.ordinal;
        verifier->offset = block__run_end(&run);
    }
    crc_to(verifier, verifier->offset < block->chunks.len ? verifier->offset : block->chunks.len);
    status = STATUS_OK;
    if (verifier->offset >= block->runs_end) {
        TRY(runs_end(verifier));
        verifier->phase = PHASE_INDEX_FILE;
    }
out:
    return status;
}

/* ---- The file index.mdb ------------------------------------------------------------------------------- */

static int index_file_open(struct block_verifier *verifier) {
    int status = STATUS_OK;
    struct block *block = verifier->block;
    const struct block_meta *meta = &block->meta;
    struct error_detail inner = {0};
    verifier->offset = 0;
    verifier->crc = 0;
    status = block__file_read(block, BLOCK__FILE_SUM, (uint64_t)1 << 30, &verifier->sums, &inner);
    if (status < 0)
        return error_set(verifier->detail, status, "%s", inner.text);
    if (block->meta_read && (meta->index_sum.bytes != verifier->sums.len ||
                             meta->index_sum.crc != crc32c(0, verifier->sums.data, verifier->sums.len)))
        TRY(tell(verifier, BLOCK__FILE_SUM, 0,
                 "index checksums: not the size or checksum that meta.json tells of"));
    uint64_t salt;
    if (block__index_sum_read(buf_slice(&verifier->sums), &salt, &verifier->pages, &verifier->page_crcs) <
        0) {
        verifier->pages = 0;
        TRY(tell(verifier, BLOCK__FILE_SUM, 0, "index checksums: damaged"));
    }
    char *path = block__path(block->dir, BLOCK__FILE_INDEX);
    verifier->data = mem_alloc((size_t)STEP_BYTES);
    if (path == NULL || verifier->data == NULL)
        status = no_memory(verifier);
    else
        status = io_file_open(block->io, path, IO_OPEN_READ, verifier->detail, &verifier->index_file);
    mem_free(path);
out:
    return status;
}

/* A rebuilt index is in scratch space: what is wrong with the file was told already. */
static int index_file_step(struct block_verifier *verifier) {
    int status = STATUS_OK;
    struct block *block = verifier->block;
    if (block->index_rebuilt) {
        verifier->phase = PHASE_NAMES;
        return STATUS_OK;
    }
    if (verifier->index_file == NULL)
        TRY(index_file_open(verifier));
    size_t got;
    status =
        io_read(block->io, verifier->index_file, verifier->offset, verifier->data, (size_t)STEP_BYTES, &got);
    if (status < 0) {
        error_set(verifier->detail, status, "%s/%s at offset %llu: %s", block->dir, BLOCK__FILE_INDEX,
                  (unsigned long long)verifier->offset, status_message(status));
        goto out;
    }
    verifier->crc = crc32c(verifier->crc, verifier->data, got);
    for (size_t at = 0; at + BLOCK__INDEX_PAGE_BYTES <= got; at += BLOCK__INDEX_PAGE_BYTES) {
        uint64_t page = (verifier->offset + at) / BLOCK__INDEX_PAGE_BYTES;
        if (page < verifier->pages && block__index_page_crc(block->base.salt, page, verifier->data + at) !=
                                          load_u32(verifier->page_crcs + 4 * page))
            TRY(tell(verifier, BLOCK__FILE_INDEX, verifier->offset + at, "index page: wrong checksum"));
    }
    verifier->offset += got;
    if (got < STEP_BYTES) {
        const struct block_file_sum *sum = &block->meta.index;
        if (verifier->offset != verifier->pages * BLOCK__INDEX_PAGE_BYTES ||
            (block->meta_read && (sum->bytes != verifier->offset || sum->crc != verifier->crc)))
            TRY(tell(verifier, BLOCK__FILE_INDEX, 0,
                     "index: not the size or checksum that meta.json tells of"));
        verifier->phase = PHASE_NAMES;
    }
out:
    return status;
}

/* ---- The tables of the index -------------------------------------------------------------------------- */

static int tell_index(struct block_verifier *verifier, const char *what) {
    return tell(verifier, BLOCK__FILE_INDEX, 0, what);
}

static int text_follows(struct block_verifier *verifier, struct slice text, const char *what) {
    int status = STATUS_OK;
    if (verifier->has_last && slice_compare(buf_slice(&verifier->last_text), text) >= 0)
        TRY(tell_index(verifier, what));
    verifier->has_last = true;
    buf_clear(&verifier->last_text);
    buf_append(&verifier->last_text, text.data, text.len);
    if (verifier->last_text.failed)
        return no_memory(verifier);
out:
    return status;
}

static int on_name(void *context, struct slice text, uint32_t number, const struct block__name_entry *entry) {
    struct block_verifier *verifier = context;
    int status = text_follows(verifier, text, "names: out of order");
    if (status < 0)
        return status;
    if (verifier->name_count == verifier->name_capacity) {
        size_t capacity = verifier->name_capacity == 0 ? 64 : 2 * verifier->name_capacity;
        struct name *names = mem_realloc(verifier->names, capacity * sizeof *names);
        if (names == NULL)
            return no_memory(verifier);
        verifier->names = names;
        verifier->name_capacity = capacity;
    }
    if (number != verifier->name_count)
        return tell_index(verifier, "names: out of order");
    verifier->names[verifier->name_count++] =
        (struct name){.hash = hash_of(text), .entry = *entry, .number = number};
    return STATUS_OK;
}

static int names_step(struct block_verifier *verifier) {
    int status = STATUS_OK;
    TRY(block__reading_begin(verifier->block, verifier->detail, &verifier->reading));
    verifier->is_reading = true;
    TRY(block__reading_names(&verifier->reading, on_name, verifier));
    if (verifier->name_count != verifier->block->index.info.name_count)
        TRY(tell_index(verifier, "names: not as many as the index tells of"));
    verifier->has_last = false;
    verifier->page = verifier->name_count > 0 ? verifier->names[0].entry.page_first : 0;
    verifier->phase = PHASE_VALUES;
out:
    return status;
}

static int on_value(struct block_verifier *verifier, struct name *name, struct slice value,
                    const struct block__value_entry *entry) {
    int status = text_follows(verifier, value, "values: out of order");
    if (status < 0)
        return status;
    if (entry->pair != verifier->pair++)
        TRY(tell_index(verifier, "values: pairs are not numbered one after the other"));
    uint64_t hash = mixed(name->hash, hash_of(value)), count = 0;
    struct block__walk walk;
    struct block__run_of_ordinals run;
    TRY(block__walk_value(&verifier->reading, entry, 0, &walk));
    while ((status = block__walk_next(&walk, &run)) == STATUS_OK) {
        count += run.length;
        for (uint32_t i = 0; i < run.length; i++) {
            verifier->sum_index += mixed(hash, run.first + i);
            name->present += mixed(name->number, run.first + i);
        }
    }
    if (status < 0)
        goto out;
    name->series += count;
    status = STATUS_OK;
    if (count != entry->series_count)
        TRY(tell_index(verifier, "values: not as many series as the index tells of"));
out:
    return status;
}

static int name_end(struct block_verifier *verifier, const struct name *name) {
    int status = STATUS_OK;
    if (name->series != name->entry.series_count ||
        verifier->pair != name->entry.pair_first + name->entry.pair_count)
        TRY(tell_index(verifier, "names: not as many series or values as the index tells of"));
    if (name->entry.present == BLOCK__PRESENT_NONE)
        return STATUS_OK;
    bool all = name->entry.present == BLOCK__PRESENT_ALL;
    struct block__walk walk;
    struct block__run_of_ordinals run;
    uint64_t sum = 0;
    TRY(block__walk_table(&verifier->reading, all ? BLOCK__TABLE_POSTINGS : BLOCK__TABLE_PRESENT,
                          all ? BLOCK__PAIR_ALL : name->number, 0, &walk));
    while ((status = block__walk_next(&walk, &run)) == STATUS_OK)
        for (uint32_t i = 0; i < run.length; i++)
            sum += mixed(name->number, run.first + i);
    if (status < 0)
        goto out;
    status = STATUS_OK;
    if (sum != name->present)
        TRY(tell_index(verifier, "names: the series that have one are not those that its values tell of"));
out:
    return status;
}

static int values_step(struct block_verifier *verifier) {
    int status = STATUS_OK;
    struct block__page_reader *reader = &verifier->reading.page;
    for (int pages = 0; pages < STEP_PAGES && verifier->name_at < verifier->name_count; pages++) {
        struct name *name = &verifier->names[verifier->name_at];
        struct slice page, value;
        TRY(block__reading_page(&verifier->reading, BLOCK__TABLE_VALUES, verifier->page, &page));
        status = block__page_reader_start(reader, page);
        while (status == STATUS_OK) {
            struct block__value_entry entry;
            status = block__page_next_value(reader, &value, &entry);
            if (status == STATUS_OK)
                TRY(on_value(verifier, name, value, &entry));
        }
        if (status < 0) {
            status = status == STATUS_CORRUPT
                         ? block__reading_corrupt(&verifier->reading, BLOCK__TABLE_VALUES)
                         : no_memory(verifier);
            goto out;
        }
        if (++verifier->page < name->entry.page_first + name->entry.page_count)
            continue;
        TRY(name_end(verifier, name));
        verifier->has_last = false;
        if (++verifier->name_at < verifier->name_count &&
            verifier->names[verifier->name_at].entry.page_first != verifier->page) {
            TRY(tell_index(verifier, "names: their values do not stand one behind the other"));
            verifier->page = verifier->names[verifier->name_at].entry.page_first;
        }
    }
    status = STATUS_OK;
    if (verifier->name_at == verifier->name_count) {
        if (verifier->sum_chunks != verifier->sum_index)
            TRY(tell_index(verifier, "index: its labels are not those of the series"));
        if (verifier->labels != verifier->block->index.info.label_count ||
            verifier->pair != verifier->block->index.info.pair_count)
            TRY(tell_index(verifier, "index: not as many labels as it tells of"));
        verifier->phase = PHASE_DONE;
    }
out:
    return status;
}

/* ---- Steps -------------------------------------------------------------------------------------------- */

static int on_damage(void *context, const struct block_damage *damage) {
    return tell(context, damage->file, damage->offset, damage->what);
}

int block_verifier_open(struct block *block, int (*each)(void *context, const struct block_finding *finding),
                        void *context, struct block_verifier **out) {
    struct block_verifier *verifier = mem_zalloc(sizeof *verifier);
    if (verifier == NULL)
        return STATUS_NO_MEMORY;
    verifier->block = block;
    verifier->each = each;
    verifier->context = context;
    verifier->last = -1;
    verifier->offset = BLOCK__HEADER_BYTES;
    buf_init(&verifier->last_labels);
    buf_init(&verifier->last_text);
    buf_init(&verifier->sums);
    int status = block_view_open(block, &verifier->view);
    if (status < 0)
        block_verifier_close(verifier);
    else
        *out = verifier;
    return status;
}

void block_verifier_close(struct block_verifier *verifier) {
    if (verifier == NULL)
        return;
    block_view_close(verifier->view);
    if (verifier->is_reading)
        block__reading_end(&verifier->reading);
    io_file_close(verifier->block->io, verifier->index_file);
    buf_release(&verifier->last_labels);
    buf_release(&verifier->last_text);
    buf_release(&verifier->sums);
    sample_columns_release(&verifier->columns);
    mem_free(verifier->lengths);
    mem_free(verifier->names);
    mem_free(verifier->data);
    mem_free(verifier);
}

static unsigned share(uint64_t part, uint64_t whole, unsigned of) {
    return whole == 0 || part >= whole ? of : (unsigned)((double)part / (double)whole * of);
}

static unsigned done_of(const struct block_verifier *verifier) {
    switch (verifier->phase) {
    case PHASE_OPENING:
        return 0;
    case PHASE_RUNS:
        return share(verifier->offset, verifier->block->runs_end, 900);
    case PHASE_INDEX_FILE:
        return 900 + share(verifier->offset, verifier->pages * BLOCK__INDEX_PAGE_BYTES, 50);
    case PHASE_NAMES:
    case PHASE_VALUES:
        return 950 + share(verifier->page, verifier->block->index.info.value_pages, 49);
    case PHASE_DONE:
        break;
    }
    return 1000;
}

int block_verifier_step(struct block_verifier *verifier, unsigned *done_out, struct error_detail *detail) {
    int status = STATUS_OK;
    verifier->detail = detail;
    verifier->reading.detail = detail;
    switch (verifier->phase) {
    case PHASE_OPENING:
        status = block_damage_each(verifier->block, on_damage, verifier);
        verifier->phase = PHASE_RUNS;
        break;
    case PHASE_RUNS:
        status = runs_step(verifier);
        break;
    case PHASE_INDEX_FILE:
        status = index_file_step(verifier);
        break;
    case PHASE_NAMES:
        status = names_step(verifier);
        break;
    case PHASE_VALUES:
        status = values_step(verifier);
        break;
    case PHASE_DONE:
        status = STATUS_END;
        break;
    }
    if (done_out != NULL)
        *done_out = done_of(verifier);
    return status;
}

int block_verify(struct block *block, int (*each)(void *context, const struct block_finding *finding),
                 void *context, struct error_detail *detail) {
    struct block_verifier *verifier;
    int status = block_verifier_open(block, each, context, &verifier);
    if (status < 0)
        return error_set(detail, status, "verifying a block: %s", status_message(status));
    while ((status = block_verifier_step(verifier, NULL, detail)) == STATUS_OK)
        ;
    block_verifier_close(verifier);
    return status < 0 ? status : STATUS_OK;
}
