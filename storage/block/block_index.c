/* block_index.c: opening an index that can be believed, and finding names, values and postings in it. */
#include "base/alloc.h"
#include "base/assert.h"
#include "storage/block/block_index_build.h"
#include "storage/block/block_private.h"

#define READ_BYTES    ((size_t)1 << 20)
#define SUM_BYTES_MAX ((uint64_t)1 << 30)

/* ---- Opening ------------------------------------------------------------------------------------------ */

int block__index_open_path(struct block__index *index, const char *path, size_t map_bytes,
                           struct error_detail *detail) {
    int status = STATUS_OK;
    MDB_txn *txn = NULL;
    int result = mdb_env_create(&index->env);
    if (result == 0)
        result = mdb_env_set_maxdbs(index->env, BLOCK__INDEX_TABLES);
    if (result == 0)
        result = mdb_env_set_mapsize(index->env, map_bytes);
    if (result == 0)
        result = mdb_env_open(index->env, path, MDB_NOSUBDIR | MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0600);
    if (result == 0)
        result = mdb_txn_begin(index->env, NULL, MDB_RDONLY, &txn);
    for (size_t i = 0; i < BLOCK__INDEX_TABLES && result == 0; i++)
        result = mdb_dbi_open(txn, block__table_names[i], 0, &index->tables[i]);
    MDB_val key = {4, (void *)(uintptr_t) "info"}, value;
    if (result == 0)
        result = mdb_get(txn, index->tables[BLOCK__TABLE_INFO], &key, &value);
    if (result != 0) {
        status = result == MDB_NOTFOUND ? STATUS_CORRUPT : block__lmdb_status(result);
        error_set(detail, status, "opening %s: %s", path, mdb_strerror(result));
        goto out;
    }
    status = block__info_read(slice_of(value.mv_data, value.mv_size), &index->info);
    if (status == STATUS_NEWER_FORMAT)
        error_newer(detail, NULL, path, load_u32(value.mv_data), BLOCK__INDEX_VERSION);
    if (status < 0) {
        error_set(detail, status, "opening %s: damaged", path);
        goto out;
    }
    /* Keeps the handles of the tables. */
    result = mdb_txn_commit(txn);
    txn = NULL;
    if (result != 0)
        status = error_set(detail, block__lmdb_status(result), "opening %s: %s", path, mdb_strerror(result));
out:
    if (txn != NULL)
        mdb_txn_abort(txn);
    if (status < 0 && index->env != NULL) {
        mdb_env_close(index->env);
        index->env = NULL;
    }
    return status;
}

int block__file_read(struct block *block, const char *name, uint64_t bytes_max, struct buf *out,
                     struct error_detail *detail) {
    int status = STATUS_OK;
    struct io_file *file = NULL;
    char *path = block__path(block->dir, name);
    if (path == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "opening %s: out of memory", name);
    uint64_t bytes;
    TRY(io_file_open(block->io, path, IO_OPEN_READ, detail, &file));
    TRY(io_file_size(block->io, file, &bytes));
    if (bytes > bytes_max) {
        status = error_set(detail, STATUS_TOO_LARGE, "%s is too large", path);
        goto out;
    }
    uint8_t *data = buf_reserve(out, (size_t)bytes + 1);
    if (data == NULL) {
        status = error_set(detail, STATUS_NO_MEMORY, "reading %s: out of memory", path);
        goto out;
    }
    TRY(io_read(block->io, file, 0, data, (size_t)bytes, &out->len));
out:
    if (status < 0)
        error_set(detail, status, "reading %s: %s", path, status_message(status));
    io_file_close(block->io, file);
    mem_free(path);
    return status;
}

static int damaged(struct block_damage *damage, int status, const char *file, uint64_t offset, uint64_t bytes,
                   const char *what) {
    *damage = (struct block_damage){.file = file,
                                    .offset = offset,
                                    .bytes = bytes,
                                    .ordinal = BLOCK_ORDINAL_NONE,
                                    .time_min_ms = INT64_MIN,
                                    .time_max_ms = INT64_MAX,
                                    .what = what};
    return status;
}

/* Is every page of the file the one that was written? */
static int pages_check(struct block *block, struct io_file *file, uint64_t pages, const uint8_t *crcs,
                       struct block_damage *damage, struct error_detail *detail) {
    int status = STATUS_OK;
    uint8_t *data = mem_alloc(READ_BYTES);
    if (data == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "checking an index: out of memory");
    for (uint64_t page = 0; page < pages;) {
        size_t got, want = READ_BYTES;
        if (pages - page < want / BLOCK__INDEX_PAGE_BYTES)
            want = (size_t)(pages - page) * BLOCK__INDEX_PAGE_BYTES;
        uint64_t offset = page * BLOCK__INDEX_PAGE_BYTES;
        status = io_read(block->io, file, offset, data, want, &got);
        if (status < 0 || got < want) {
            status = damaged(damage, STATUS_CORRUPT, BLOCK__FILE_INDEX, offset + (status < 0 ? 0 : got), 0,
                             status < 0 ? "index: cannot be read" : "index: the file ends early");
            break;
        }
        for (size_t at = 0; at < want && status == STATUS_OK; at += BLOCK__INDEX_PAGE_BYTES, page++)
            if (block__index_page_crc(block->base.salt, page, data + at) != load_u32(crcs + 4 * page))
                status = damaged(damage, STATUS_CORRUPT, BLOCK__FILE_INDEX, offset + at,
                                 BLOCK__INDEX_PAGE_BYTES, "index page: wrong checksum");
        if (status < 0)
            break;
    }
    mem_free(data);
    return status;
}

/* Reads index.sum and opens index.mdb; *damage says what is wrong with them. */
static int files_open(struct block *block, struct block_damage *damage, struct error_detail *detail) {
    int status = STATUS_OK;
    uint64_t salt, bytes;
    const uint8_t *crcs;
    char *path = block__path(block->dir, BLOCK__FILE_INDEX);
    if (path == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "opening a block: out of memory");
    status = block__file_read(block, BLOCK__FILE_SUM, SUM_BYTES_MAX, &block->index_sums, detail);
    if (status < 0) {
        damaged(damage, status, BLOCK__FILE_SUM, 0, 0,
                status == STATUS_NOT_FOUND ? "index checksums: the file is missing"
                                           : "index checksums: cannot be read");
        goto out;
    }
    struct slice sums = buf_slice(&block->index_sums);
    status = block__index_sum_read(sums, &salt, &block->index_pages, &crcs);
    if (status == STATUS_NEWER_FORMAT) {
        error_newer(detail, block->dir, BLOCK__FILE_SUM, load_u32(sums.data + 8), BLOCK__INDEX_VERSION);
        goto out;
    }
    if (status < 0 || salt != block->base.salt) {
        status = damaged(damage, STATUS_CORRUPT, BLOCK__FILE_SUM, 0, sums.len,
                         status < 0 ? "index checksums: damaged" : "index checksums: of another block");
        goto out;
    }
    status = io_file_open(block->io, path, IO_OPEN_READ, detail, &block->index_file);
    if (status >= 0)
        status = io_file_size(block->io, block->index_file, &bytes);
    if (status < 0) {
        damaged(damage, status, BLOCK__FILE_INDEX, 0, 0,
                status == STATUS_NOT_FOUND ? "index: the file is missing" : "index: cannot be read");
        goto out;
    }
    uint64_t end = block->index_pages * BLOCK__INDEX_PAGE_BYTES;
    if (bytes != end)
        status = damaged(damage, STATUS_CORRUPT, BLOCK__FILE_INDEX, bytes < end ? bytes : end, 0,
                         bytes < end ? "index: the file ends early" : "index: bytes behind the end");
out:
    mem_free(path);
    return status;
}

int block__index_files_open(struct block *block, struct error_detail *detail) {
    struct error_detail inner = {0};
    struct block_damage damage = {0};
    int status = files_open(block, &damage, &inner);
    if (status == STATUS_NO_MEMORY || status == STATUS_NEWER_FORMAT)
        return error_set(detail, status, "%s", inner.text);
    block->index_damaged = status < 0;
    if (status < 0)
        block__damage_add(block, damage);
    return STATUS_OK;
}

void block__index_files_close(struct block *block) {
    io_file_close(block->io, block->index_file);
    buf_release(&block->index_sums);
    block->index_file = NULL;
}

int block__index_open(struct block *block, struct block_damage *damage, struct error_detail *detail) {
    int status = STATUS_OK;
    struct error_detail inner = {0};
    uint64_t bytes = block->index_pages * BLOCK__INDEX_PAGE_BYTES;
    char native[BLOCK__NATIVE_PATH_BYTES];
    TRY(pages_check(block, block->index_file, block->index_pages,
                    block->index_sums.data + BLOCK__INDEX_SUM_HEAD, damage, detail));
    status = block__native_path(block->io, block->index_file, native, &inner);
    if (status < 0)
        return damaged(damage, STATUS_CORRUPT, BLOCK__FILE_INDEX, 0, bytes, "index: cannot be opened");
    status = block__index_open_path(&block->index, native, (size_t)bytes, &inner);
    if (status == STATUS_NO_MEMORY || status == STATUS_NEWER_FORMAT)
        return error_set(detail, status, "%s", inner.text);
    if (status < 0 || block->index.info.salt != block->base.salt) {
        block__index_close(&block->index);
        status = damaged(damage, STATUS_CORRUPT, BLOCK__FILE_INDEX, 0, bytes, "index: cannot be opened");
    }
out:
    return status;
}

void block__index_close(struct block__index *index) {
    if (index->env != NULL)
        mdb_env_close(index->env);
    index->env = NULL;
}

/* ---- Reading ------------------------------------------------------------------------------------------ */

int block__reading_begin(struct block *block, struct error_detail *detail, struct block__reading *reading) {
    *reading = (struct block__reading){.block = block, .detail = detail};
    buf_init(&reading->page.text);
    int status = block_prepare(block, detail);
    if (status < 0)
        return status;
    int result = mdb_txn_begin(block->index.env, NULL, MDB_RDONLY, &reading->txn);
    if (result != 0)
        return error_set(detail, block__lmdb_status(result), "reading the index of %s: %s", block->dir,
                         mdb_strerror(result));
    return STATUS_OK;
}

void block__reading_end(struct block__reading *reading) {
    if (reading->cursor != NULL)
        mdb_cursor_close(reading->cursor);
    if (reading->txn != NULL)
        mdb_txn_abort(reading->txn);
    buf_release(&reading->page.text);
    reading->cursor = NULL;
    reading->txn = NULL;
}

int block__reading_corrupt(struct block__reading *reading, enum block__table table) {
    return error_set(reading->detail, STATUS_CORRUPT, "%s/%s: the table %s contradicts itself",
                     reading->block->dir, BLOCK__FILE_INDEX, block__table_names[table]);
}

static int failed(struct block__reading *reading, enum block__table table, int result) {
    int status = block__lmdb_status(result);
    if (status == STATUS_NOT_FOUND || status == STATUS_CORRUPT)
        return block__reading_corrupt(reading, table);
    return error_set(reading->detail, status, "reading the index of %s: %s", reading->block->dir,
                     mdb_strerror(result));
}

int block__reading_page(struct block__reading *reading, enum block__table table, uint32_t number,
                        struct slice *out) {
    uint8_t bytes[4];
    block__key_write(bytes, number);
    MDB_val key = {sizeof bytes, bytes}, value;
    int result = mdb_get(reading->txn, reading->block->index.tables[table], &key, &value);
    if (result != 0)
        return failed(reading, table, result);
    *out = slice_of(value.mv_data, value.mv_size);
    return STATUS_OK;
}

/* The last of the pages [first, first + count) whose first text is not above `text`; `first` if all are. */
static int page_find(struct block__reading *reading, enum block__table table, uint32_t first, uint32_t count,
                     struct slice text, uint32_t *out) {
    int status = STATUS_OK;
    uint32_t low = first, high = first + count; /* the page is in [low, high) */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        struct slice page, text_first;
        TRY(block__reading_page(reading, table, middle, &page));
        if (block__page_first(page, &text_first) < 0)
            return block__reading_corrupt(reading, table);
        if (slice_compare(text_first, text) <= 0)
            low = middle;
        else
            high = middle;
    }
    *out = low;
out:
    return status;
}

static int page_start(struct block__reading *reading, enum block__table table, uint32_t number) {
    struct slice page;
    int status = block__reading_page(reading, table, number, &page);
    if (status == STATUS_OK && block__page_reader_start(&reading->page, page) < 0)
        status = block__reading_corrupt(reading, table);
    return status;
}

static int page_failed(struct block__reading *reading, enum block__table table, int status) {
    return status == STATUS_CORRUPT
               ? block__reading_corrupt(reading, table)
               : error_set(reading->detail, status, "reading an index: %s", status_message(status));
}

int block__reading_name(struct block__reading *reading, struct slice name, struct block__name_entry *out,
                        uint32_t *number_out) {
    int status = STATUS_OK;
    const struct block__index_info *info = &reading->block->index.info;
    uint32_t page;
    if (info->name_pages == 0)
        return STATUS_NOT_FOUND;
    TRY(page_find(reading, BLOCK__TABLE_NAMES, 0, info->name_pages, name, &page));
    TRY(page_start(reading, BLOCK__TABLE_NAMES, page));
    for (;;) {
        struct slice text;
        uint32_t number = reading->page.number;
        status = block__page_next_name(&reading->page, &text, out);
        if (status < 0)
            return page_failed(reading, BLOCK__TABLE_NAMES, status);
        int order = status == STATUS_END ? 1 : slice_compare(text, name);
        if (order > 0)
            return STATUS_NOT_FOUND;
        if (order == 0) {
            *number_out = number;
            return STATUS_OK;
        }
    }
out:
    return status;
}

int block__reading_value(struct block__reading *reading, const struct block__name_entry *name,
                         struct slice value, struct block__value_entry *out) {
    int status = STATUS_OK;
    uint32_t page;
    TRY(page_find(reading, BLOCK__TABLE_VALUES, name->page_first, name->page_count, value, &page));
    TRY(page_start(reading, BLOCK__TABLE_VALUES, page));
    for (;;) {
        struct slice text;
        status = block__page_next_value(&reading->page, &text, out);
        if (status < 0)
            return page_failed(reading, BLOCK__TABLE_VALUES, status);
        int order = status == STATUS_END ? 1 : slice_compare(text, value);
        if (order >= 0)
            return order == 0 ? STATUS_OK : STATUS_NOT_FOUND;
    }
out:
    return status;
}

int block__reading_values(
    struct block__reading *reading, const struct block__name_entry *name, struct slice from,
    int (*each)(void *context, struct slice value, const struct block__value_entry *entry), void *context) {
    int status = STATUS_OK;
    uint32_t page = name->page_first;
    if (from.len > 0)
        TRY(page_find(reading, BLOCK__TABLE_VALUES, name->page_first, name->page_count, from, &page));
    for (; page < name->page_first + name->page_count; page++) {
        TRY(page_start(reading, BLOCK__TABLE_VALUES, page));
        for (;;) {
            struct slice text;
            struct block__value_entry entry;
            status = block__page_next_value(&reading->page, &text, &entry);
            if (status < 0)
                return page_failed(reading, BLOCK__TABLE_VALUES, status);
            if (status == STATUS_END)
                break;
            if (from.len > 0 && slice_compare(text, from) < 0)
                continue;
            TRY(each(context, text, &entry));
            if (status == STATUS_END)
                return STATUS_OK;
        }
    }
    status = STATUS_OK;
out:
    return status;
}

int block__reading_prefix_count(struct block__reading *reading, const struct block__name_entry *name,
                                struct slice prefix, uint64_t *out) {
    int status = STATUS_OK;
    uint32_t first, low, high = name->page_first + name->page_count;
    TRY(page_find(reading, BLOCK__TABLE_VALUES, name->page_first, name->page_count, prefix, &first));
    /* The last page whose first value begins with the prefix, or `first`. */
    for (low = first; high - low > 1;) {
        uint32_t middle = low + (high - low) / 2;
        struct slice page, text;
        TRY(block__reading_page(reading, BLOCK__TABLE_VALUES, middle, &page));
        if (block__page_first(page, &text) < 0)
            return block__reading_corrupt(reading, BLOCK__TABLE_VALUES);
        if (slice_starts_with(text, prefix))
            low = middle;
        else
            high = middle;
    }
    *out = (uint64_t)(low - first + 1) * (name->pair_count / name->page_count + 1);
out:
    return status;
}

int block__reading_names(struct block__reading *reading,
                         int (*each)(void *context, struct slice name, uint32_t number,
                                     const struct block__name_entry *entry),
                         void *context) {
    int status = STATUS_OK;
    /* `each` may walk over values with the reading's page reader: this one has its own. */
    struct block__page_reader reader = {0};
    buf_init(&reader.text);
    for (uint32_t page = 0; page < reading->block->index.info.name_pages; page++) {
        struct slice bytes;
        TRY(block__reading_page(reading, BLOCK__TABLE_NAMES, page, &bytes));
        status = block__page_reader_start(&reader, bytes);
        while (status == STATUS_OK) {
            struct slice text;
            struct block__name_entry entry;
            uint32_t number = reader.number;
            status = block__page_next_name(&reader, &text, &entry);
            if (status == STATUS_OK) {
                TRY(each(context, text, number, &entry));
                if (status == STATUS_END) {
                    status = STATUS_OK;
                    goto out;
                }
            }
        }
        if (status < 0) {
            status = page_failed(reading, BLOCK__TABLE_NAMES, status);
            goto out;
        }
    }
    status = STATUS_OK;
out:
    buf_release(&reader.text);
    return status;
}

/* ---- Postings ----------------------------------------------------------------------------------------- */

static int cursor_at(struct block__reading *reading, enum block__table table) {
    if (reading->cursor != NULL && reading->table == table)
        return STATUS_OK;
    if (reading->cursor != NULL)
        mdb_cursor_close(reading->cursor);
    reading->cursor = NULL;
    int result = mdb_cursor_open(reading->txn, reading->block->index.tables[table], &reading->cursor);
    reading->table = table;
    return result == 0 ? STATUS_OK : failed(reading, table, result);
}

/* The piece that the cursor found, if it is one of `key`: STATUS_OK or STATUS_END. */
static int piece_take(struct block__walk *walk, int result, const MDB_val *key, const MDB_val *value) {
    if (result == MDB_NOTFOUND)
        return STATUS_END;
    if (result != 0)
        return failed(walk->reading, walk->table, result);
    if (key->mv_size != 8)
        return block__reading_corrupt(walk->reading, walk->table);
    if (block__key_read(key->mv_data) != walk->key)
        return STATUS_END;
    walk->reader = block__postings_reader(slice_of(value->mv_data, value->mv_size));
    return STATUS_OK;
}

int block__walk_table(struct block__reading *reading, enum block__table table, uint32_t key, uint32_t from,
                      struct block__walk *walk) {
    *walk = (struct block__walk){.reading = reading, .table = table, .key = key, .external = true};
    walk->reader = block__postings_reader((struct slice){NULL, 0});
    int status = cursor_at(reading, table);
    if (status < 0)
        return status;
    uint8_t bytes[8];
    block__key_write(bytes, key);
    block__key_write(bytes + 4, from); /* pieces are found by their last ordinal */
    MDB_val k = {sizeof bytes, bytes}, value;
    int result = mdb_cursor_get(reading->cursor, &k, &value, MDB_SET_RANGE);
    status = piece_take(walk, result, &k, &value);
    if (status == STATUS_END)
        walk->external = false; /* nothing to go on with */
    return status < 0 ? status : STATUS_OK;
}

int block__walk_value(struct block__reading *reading, const struct block__value_entry *entry, uint32_t from,
                      struct block__walk *walk) {
    if (entry->external)
        return block__walk_table(reading, BLOCK__TABLE_POSTINGS, entry->pair, from, walk);
    *walk = (struct block__walk){.reading = reading, .table = BLOCK__TABLE_VALUES};
    walk->reader = block__postings_reader(entry->postings);
    return STATUS_OK;
}

int block__walk_next(struct block__walk *walk, struct block__run_of_ordinals *out) {
    for (;;) {
        int status = block__postings_next(&walk->reader, out);
        if (status == STATUS_OK)
            return status;
        if (status < 0)
            return block__reading_corrupt(walk->reading, walk->table);
        if (!walk->external)
            return STATUS_END;
        MDB_val key, value;
        int result = mdb_cursor_get(walk->reading->cursor, &key, &value, MDB_NEXT);
        status = piece_take(walk, result, &key, &value);
        if (status != STATUS_OK)
            return status;
    }
}

static int walk_into(struct block__walk *walk, struct block__set *set) {
    int status;
    struct block__run_of_ordinals run;
    while ((status = block__walk_next(walk, &run)) == STATUS_OK) {
        if (run.first >= set->end)
            return STATUS_OK;
        block__set_add(set, run);
    }
    return status < 0 ? status : STATUS_OK;
}

int block__set_add_value(struct block__reading *reading, const struct block__value_entry *entry,
                         struct block__set *set) {
    struct block__walk walk;
    int status = block__walk_value(reading, entry, set->first, &walk);
    return status < 0 ? status : walk_into(&walk, set);
}

int block__set_add_table(struct block__reading *reading, enum block__table table, uint32_t key,
                         struct block__set *set) {
    struct block__walk walk;
    int status = block__walk_table(reading, table, key, set->first, &walk);
    return status < 0 ? status : walk_into(&walk, set);
}

/* ---- Labels of one series, from the index alone ------------------------------------------------------- */

struct labels_search {
    struct block__reading *reading;
    uint32_t ordinal;
    struct slice name;
    struct buf *out;
};

static int labels_value(void *context, struct slice value, const struct block__value_entry *entry) {
    struct labels_search *search = context;
    struct block__walk walk;
    struct block__run_of_ordinals run;
    int status = block__walk_value(search->reading, entry, search->ordinal, &walk);
    while (status == STATUS_OK) {
        status = block__walk_next(&walk, &run);
        if (status != STATUS_OK || run.first > search->ordinal)
            break;
        if (search->ordinal - run.first < run.length) {
            label_bytes_append(search->out, search->name, value);
            return STATUS_END;
        }
    }
    return status < 0 ? status : STATUS_OK;
}

static int labels_name(void *context, struct slice name, uint32_t number,
                       const struct block__name_entry *entry) {
    struct labels_search *search = context;
    (void)number;
    search->name = name;
    return block__reading_values(search->reading, entry, (struct slice){NULL, 0}, labels_value, search);
}

int block__reading_labels(struct block__reading *reading, uint32_t ordinal, struct buf *out) {
    struct labels_search search = {reading, ordinal, {NULL, 0}, out};
    buf_clear(out);
    int status = block__reading_names(reading, labels_name, &search);
    if (status == STATUS_OK && out->failed)
        status = error_set(reading->detail, STATUS_NO_MEMORY, "reading an index: out of memory");
    return status;
}
