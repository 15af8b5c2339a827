/* block_index_build.c: series in order → the tables of an index.
 *
 * While series are added, the table `series` grows at its end and the label pairs go to an external sort. The
 * steps then take the pairs in order and write `values`, `postings`, `present` and, a page at a time,
 * `names`. Every table is appended to in key order, so its pages are full. A transaction is committed every
 * COMMIT_BYTES: LMDB keeps what is not committed in anonymous memory. */
#include "storage/block/block_index_build.h"

#include <lmdb.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "storage/block/block_pairs.h"

#define COMMIT_BYTES ((uint64_t)4 << 20)
#define MAP_BYTES    ((size_t)1 << 38) /* address space, not memory */
#define STEP_COST    262144            /* ordinals in a step; a pair counts as PAIR_COST */
#define PAIR_COST    64

/* Postings on their way into a table, in pieces. */
struct pieces {
    enum block__table table;
    uint32_t key; /* pair or name */
    struct buf bytes;
    uint64_t next; /* for the encoding */
    uint32_t last; /* ordinal */
    bool external; /* a piece has been put */
    struct block__run_joiner joiner;
};

/* The series that have the current name, for the table `present`: a list while they are few, then bits. */
#define PRESENT_FEW 1024
struct present {
    struct block__run_of_ordinals few[PRESENT_FEW];
    uint32_t few_count;
    struct block__set set; /* over all ordinals; made when first needed, empty between names */
    bool in_set;
};

enum phase { PHASE_ADDING, PHASE_PAIRS, PHASE_INFO, PHASE_DONE };

struct block__index_builder {
    struct io *io;
    enum phase phase;
    struct block__index_info info;
    uint32_t shard; /* of the last series */

    MDB_env *env;
    int fd;
    MDB_txn *txn;
    MDB_dbi tables[BLOCK__INDEX_TABLES];
    uint64_t uncommitted;

    struct block__group_writer group;
    struct buf value; /* being put */
    struct buf all;   /* postings of all series; one run unless some are missing */
    uint64_t all_next;
    struct block__run_joiner all_joiner;
    struct block__pairs *pairs;

    /* PHASE_PAIRS */
    bool in_pair;
    struct pieces postings;
    uint64_t pair_series;
    struct buf text; /* the current pair's value */
    struct block__page_writer values;
    struct buf name; /* the current name */
    bool has_name;
    struct block__name_entry name_entry;
    struct block__page_writer names;
    struct present present;
    struct pieces present_pieces;

    struct block__index_copy *copy;
};

static int no_memory(struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "building an index: out of memory");
}

static int lmdb_failed(int result, const char *what, struct error_detail *detail) {
    return error_set(detail, block__lmdb_status(result), "building an index: %s: %s", what,
                     mdb_strerror(result));
}

/* ---- The environment ---------------------------------------------------------------------------------- */

static int env_open(struct block__index_builder *builder, const char *dir, struct error_detail *detail) {
    char path[BLOCK__NATIVE_PATH_BYTES];
    int status = block__scratch_open(builder->io, dir, &builder->fd, path, detail);
    if (status < 0)
        return status;
    int result = mdb_env_create(&builder->env);
    if (result == 0)
        result = mdb_env_set_maxdbs(builder->env, BLOCK__INDEX_TABLES);
    if (result == 0)
        result = mdb_env_set_mapsize(builder->env, MAP_BYTES);
    if (result == 0)
        result = mdb_env_open(builder->env, path,
                              MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NOSYNC | MDB_NOMETASYNC, 0600);
    if (result == 0)
        result = mdb_txn_begin(builder->env, NULL, 0, &builder->txn);
    for (size_t i = 0; i < BLOCK__INDEX_TABLES && result == 0; i++)
        result = mdb_dbi_open(builder->txn, block__table_names[i], MDB_CREATE, &builder->tables[i]);
    return result == 0 ? STATUS_OK : lmdb_failed(result, "opening", detail);
}

static int commit(struct block__index_builder *builder, bool go_on, struct error_detail *detail) {
    MDB_txn *txn = builder->txn;
    builder->txn = NULL;
    builder->uncommitted = 0;
    int result = mdb_txn_commit(txn);
    if (result == 0 && go_on)
        result = mdb_txn_begin(builder->env, NULL, 0, &builder->txn);
    return result == 0 ? STATUS_OK : lmdb_failed(result, "committing", detail);
}

/* Puts what stands in `value` behind all that is in the table. */
static int put(struct block__index_builder *builder, enum block__table table, const uint8_t *key,
               size_t key_len, const struct buf *value, struct error_detail *detail) {
    if (value->failed)
        return no_memory(detail);
    MDB_val k = {key_len, (void *)(uintptr_t)key}, v = {value->len, value->data};
    int result = mdb_put(builder->txn, builder->tables[table], &k, &v, MDB_APPEND);
    if (result != 0)
        return lmdb_failed(result, "putting", detail);
    builder->uncommitted += value->len + key_len;
    return builder->uncommitted >= COMMIT_BYTES ? commit(builder, true, detail) : STATUS_OK;
}

static int put_numbered(struct block__index_builder *builder, enum block__table table, uint32_t number,
                        const struct buf *value, struct error_detail *detail) {
    uint8_t key[4];
    block__key_write(key, number);
    return put(builder, table, key, sizeof key, value, detail);
}

/* ---- Pieces of postings ------------------------------------------------------------------------------- */

static void pieces_start(struct pieces *pieces, enum block__table table, uint32_t key) {
    pieces->table = table;
    pieces->key = key;
    buf_clear(&pieces->bytes);
    pieces->next = 0;
    pieces->external = false;
    pieces->joiner = (struct block__run_joiner){0};
}

static int pieces_put(struct block__index_builder *builder, struct pieces *pieces,
                      struct error_detail *detail) {
    uint8_t key[8];
    block__key_write(key, pieces->key);
    block__key_write(key + 4, pieces->last);
    int status = put(builder, pieces->table, key, sizeof key, &pieces->bytes, detail);
    buf_clear(&pieces->bytes);
    pieces->next = 0;
    pieces->external = true;
    return status;
}

static int pieces_write(struct block__index_builder *builder, struct pieces *pieces,
                        struct block__run_of_ordinals run, struct error_detail *detail) {
    int status = STATUS_OK;
    if (pieces->bytes.len + BLOCK__POSTINGS_ITEM_MAX > BLOCK__INDEX_VALUE_BYTES)
        TRY(pieces_put(builder, pieces, detail));
    uint8_t *p = buf_reserve(&pieces->bytes, BLOCK__POSTINGS_ITEM_MAX);
    if (p == NULL)
        return no_memory(detail);
    pieces->bytes.len += (size_t)(block__postings_write(p, pieces->next, run) - p);
    pieces->next = (uint64_t)run.first + run.length;
    pieces->last = run.first + run.length - 1;
out:
    return status;
}

static int pieces_add(struct block__index_builder *builder, struct pieces *pieces,
                      struct block__run_of_ordinals run, struct error_detail *detail) {
    struct block__run_of_ordinals whole;
    return block__run_join(&pieces->joiner, run, &whole) ? pieces_write(builder, pieces, whole, detail)
                                                         : STATUS_OK;
}

/* Short ones stay in `bytes` if `may_stay`; otherwise all of them are in the table afterwards. */
static int pieces_end(struct block__index_builder *builder, struct pieces *pieces, bool may_stay,
                      struct error_detail *detail) {
    int status = STATUS_OK;
    if (pieces->joiner.run.length > 0)
        TRY(pieces_write(builder, pieces, pieces->joiner.run, detail));
    pieces->joiner = (struct block__run_joiner){0};
    if (pieces->bytes.len > 0 &&
        (!may_stay || pieces->external || pieces->bytes.len > BLOCK__POSTINGS_INLINE))
        TRY(pieces_put(builder, pieces, detail));
out:
    return status;
}

/* ---- Opening, closing --------------------------------------------------------------------------------- */

int block__index_builder_open(struct io *io, const char *dir, uint64_t salt, struct error_detail *detail,
                              struct block__index_builder **out) {
    int status = STATUS_OK;
    struct block__index_builder *builder = mem_zalloc(sizeof *builder);
    if (builder == NULL)
        return no_memory(detail);
    builder->io = io;
    builder->fd = -1;
    builder->info.salt = salt;
    block__group_writer_init(&builder->group);
    block__page_writer_init(&builder->values);
    block__page_writer_init(&builder->names);
    TRY(env_open(builder, dir, detail));
    TRY(block__pairs_open(io, dir, salt, detail, &builder->pairs));
out:
    if (status < 0)
        block__index_builder_close(builder);
    else
        *out = builder;
    return status;
}

void block__index_builder_close(struct block__index_builder *builder) {
    if (builder == NULL)
        return;
    block__index_copy_close(builder->copy);
    if (builder->txn != NULL)
        mdb_txn_abort(builder->txn);
    if (builder->env != NULL)
        mdb_env_close(builder->env);
    if (builder->fd >= 0)
        close(builder->fd);
    block__pairs_close(builder->pairs);
    block__group_writer_release(&builder->group);
    block__page_writer_release(&builder->values);
    block__page_writer_release(&builder->names);
    block__set_release(&builder->present.set);
    buf_release(&builder->value);
    buf_release(&builder->all);
    buf_release(&builder->postings.bytes);
    buf_release(&builder->present_pieces.bytes);
    buf_release(&builder->text);
    buf_release(&builder->name);
    mem_free(builder);
}

uint64_t block__index_builder_memory_bytes(const struct block__index_builder *builder) {
    uint64_t set = builder->present.set.words == NULL ? 0 : builder->info.ordinal_count / 8;
    return sizeof *builder + builder->uncommitted + builder->uncommitted / 8 +
           builder->group.entries.capacity + builder->values.entries.capacity +
           builder->names.entries.capacity + builder->value.capacity + set +
           (builder->pairs == NULL ? 0 : block__pairs_memory_bytes(builder->pairs));
}

/* ---- Adding ------------------------------------------------------------------------------------------- */

static int group_put(struct block__index_builder *builder, struct error_detail *detail) {
    uint32_t last = builder->group.first + builder->group.count - 1;
    buf_clear(&builder->value);
    block__group_take(&builder->group, &builder->value);
    return put_numbered(builder, BLOCK__TABLE_SERIES, last, &builder->value, detail);
}

static int all_write(struct block__index_builder *builder, struct block__run_of_ordinals run,
                     struct error_detail *detail) {
    uint8_t *p = buf_reserve(&builder->all, BLOCK__POSTINGS_ITEM_MAX);
    if (p == NULL)
        return no_memory(detail);
    builder->all.len += (size_t)(block__postings_write(p, builder->all_next, run) - p);
    builder->all_next = (uint64_t)run.first + run.length;
    return STATUS_OK;
}

static int all_add(struct block__index_builder *builder, struct block__run_of_ordinals run,
                   struct error_detail *detail) {
    struct block__run_of_ordinals whole;
    return block__run_join(&builder->all_joiner, run, &whole) ? all_write(builder, whole, detail) : STATUS_OK;
}

/* To the end of the table of postings, where its key belongs. */
static int all_put(struct block__index_builder *builder, struct error_detail *detail) {
    int status = STATUS_OK;
    if (builder->all_joiner.run.length > 0)
        TRY(all_write(builder, builder->all_joiner.run, detail));
    pieces_start(&builder->postings, BLOCK__TABLE_POSTINGS, BLOCK__PAIR_ALL);
    struct block__postings_reader reader = block__postings_reader(buf_slice(&builder->all));
    struct block__run_of_ordinals run;
    while (block__postings_next(&reader, &run) == STATUS_OK)
        TRY(pieces_write(builder, &builder->postings, run, detail));
    TRY(pieces_end(builder, &builder->postings, false, detail));
out:
    return status;
}

int block__index_builder_add(struct block__index_builder *builder, const struct block__run *run,
                             const struct block_chunk_ref *refs, size_t count, struct error_detail *detail) {
    int status = STATUS_OK;
    struct block__index_info *info = &builder->info;
    ASSERT(builder->phase == PHASE_ADDING && run->ordinal >= info->ordinal_count);
    if (run->ordinal >= BLOCK__ORDINALS_MAX)
        return error_set(detail, STATUS_TOO_LARGE, "a block holds at most %u series", BLOCK__ORDINALS_MAX);
    /* Roughly what an entry takes: a group may be a little longer or shorter than it could be. */
    size_t room = 24 + 8 * count;
    if (builder->group.count > 0 && (run->ordinal != builder->group.first + builder->group.count ||
                                     builder->group.entries.len + room > BLOCK__INDEX_VALUE_BYTES - 40))
        TRY(group_put(builder, detail));
    block__group_add(&builder->group, run, refs, count);
    if (builder->group.entries.failed)
        return no_memory(detail);
    TRY(all_add(builder, (struct block__run_of_ordinals){run->ordinal, 1}, detail));
    for (uint32_t shard = block_shard_of_labels(run->labels); builder->shard < shard;)
        info->shard_first[++builder->shard] = run->ordinal;
    struct label label;
    for (struct slice rest = run->labels; label_next(&rest, &label, NULL); info->label_count++)
        TRY(block__pairs_add(builder->pairs, run->ordinal, label.name, label.value, detail));
    info->ordinal_count = run->ordinal + 1;
    info->series_count++;
    info->chunk_count += count;
out:
    return status;
}

/* ---- Pairs -------------------------------------------------------------------------------------------- */

static int present_add(struct block__index_builder *builder, struct block__run_of_ordinals run,
                       struct error_detail *detail) {
    struct present *present = &builder->present;
    if (!present->in_set && present->few_count < PRESENT_FEW) {
        present->few[present->few_count++] = run;
        return STATUS_OK;
    }
    if (!present->in_set) {
        if (present->set.words == NULL && block__set_init(&present->set, 0, builder->info.ordinal_count) < 0)
            return no_memory(detail);
        present->in_set = true;
        for (uint32_t i = 0; i < present->few_count; i++)
            block__set_add(&present->set, present->few[i]);
    }
    block__set_add(&present->set, run);
    return STATUS_OK;
}

/* Ends the name's set, stored if it is worth it. */
static int present_end(struct block__index_builder *builder, struct error_detail *detail) {
    int status = STATUS_OK;
    struct present *present = &builder->present;
    struct block__name_entry *entry = &builder->name_entry;
    if (entry->series_count == builder->info.series_count)
        entry->present = BLOCK__PRESENT_ALL;
    if (present->in_set) {
        bool store = entry->present != BLOCK__PRESENT_ALL && entry->pair_count > 1;
        if (store)
            entry->present = BLOCK__PRESENT_STORED;
        pieces_start(&builder->present_pieces, BLOCK__TABLE_PRESENT,
                     builder->names.first + builder->names.count);
        struct block__run_of_ordinals run = {0};
        while (store && block__set_next(&present->set, run.first + run.length, &run) == STATUS_OK)
            TRY(pieces_write(builder, &builder->present_pieces, run, detail));
        if (store)
            TRY(pieces_end(builder, &builder->present_pieces, false, detail));
        memset(present->set.words, 0, (size_t)(present->set.end - present->set.first) / 8);
    }
    present->in_set = false;
    present->few_count = 0;
out:
    return status;
}

static int values_put(struct block__index_builder *builder, struct error_detail *detail) {
    buf_clear(&builder->value);
    block__page_take(&builder->values, &builder->value);
    builder->name_entry.page_count++;
    return put_numbered(builder, BLOCK__TABLE_VALUES, builder->info.value_pages++, &builder->value, detail);
}

static int names_put(struct block__index_builder *builder, struct error_detail *detail) {
    buf_clear(&builder->value);
    block__page_take(&builder->names, &builder->value);
    return put_numbered(builder, BLOCK__TABLE_NAMES, builder->info.name_pages++, &builder->value, detail);
}

#define NAME_ENTRY_BYTES_MAX  ((size_t)32)
#define VALUE_ENTRY_BYTES_MAX ((size_t)12)

static int name_end(struct block__index_builder *builder, struct error_detail *detail) {
    int status = STATUS_OK;
    if (!builder->has_name)
        return STATUS_OK;
    builder->has_name = false;
    if (builder->values.count > 0)
        TRY(values_put(builder, detail));
    TRY(present_end(builder, detail));
    struct slice name = buf_slice(&builder->name);
    if (block__page_full(&builder->names, name, NAME_ENTRY_BYTES_MAX))
        TRY(names_put(builder, detail));
    block__page_add_name(&builder->names, name, &builder->name_entry);
    if (builder->names.entries.failed)
        return no_memory(detail);
    builder->info.name_count++;
out:
    return status;
}

static int pair_begin(struct block__index_builder *builder, struct slice name, struct slice value,
                      struct error_detail *detail) {
    int status = STATUS_OK;
    if (!builder->has_name || !slice_equal(buf_slice(&builder->name), name)) {
        TRY(name_end(builder, detail));
        buf_clear(&builder->name);
        buf_append(&builder->name, name.data, name.len);
        builder->name_entry = (struct block__name_entry){.page_first = builder->info.value_pages,
                                                         .pair_first = builder->info.pair_count};
        builder->has_name = true;
    }
    buf_clear(&builder->text);
    buf_append(&builder->text, value.data, value.len);
    if (builder->name.failed || builder->text.failed)
        return no_memory(detail);
    if (builder->info.pair_count == BLOCK__PAIR_ALL)
        return error_set(detail, STATUS_TOO_LARGE, "a block holds at most %u label pairs", BLOCK__PAIR_ALL);
    pieces_start(&builder->postings, BLOCK__TABLE_POSTINGS, builder->info.pair_count);
    builder->in_pair = true;
out:
    return status;
}

static int pair_end(struct block__index_builder *builder, struct error_detail *detail) {
    int status = STATUS_OK;
    builder->in_pair = false;
    TRY(pieces_end(builder, &builder->postings, true, detail));
    struct block__value_entry entry = {
        .series_count = builder->pair_series,
        .external = builder->postings.external,
        .postings = buf_slice(&builder->postings.bytes),
    };
    struct slice value = buf_slice(&builder->text);
    if (block__page_full(&builder->values, value, VALUE_ENTRY_BYTES_MAX + entry.postings.len))
        TRY(values_put(builder, detail));
    block__page_add_value(&builder->values, value, &entry);
    if (builder->values.entries.failed)
        return no_memory(detail);
    builder->name_entry.pair_count++;
    builder->name_entry.series_count += builder->pair_series;
    builder->info.pair_count++;
out:
    return status;
}

static int pairs_step(struct block__index_builder *builder, struct error_detail *detail) {
    int status = STATUS_OK;
    for (int cost = 0; cost < STEP_COST;) {
        if (!builder->in_pair) {
            struct slice name, value;
            TRY(block__pairs_next(builder->pairs, &name, &value, &builder->pair_series, detail));
            if (status == STATUS_END) {
                TRY(name_end(builder, detail));
                if (builder->names.count > 0)
                    TRY(names_put(builder, detail));
                TRY(all_put(builder, detail));
                return STATUS_END;
            }
            TRY(pair_begin(builder, name, value, detail));
            cost += PAIR_COST + (int)(value.len / 16);
        }
        struct block__run_of_ordinals run;
        TRY(block__pairs_ordinals(builder->pairs, &run, detail));
        if (status == STATUS_END) {
            TRY(pair_end(builder, detail));
            continue;
        }
        TRY(pieces_add(builder, &builder->postings, run, detail));
        TRY(present_add(builder, run, detail));
        cost++;
    }
    return STATUS_OK;
out:
    return status;
}

int block__index_builder_step(struct block__index_builder *builder, struct error_detail *detail) {
    int status = STATUS_OK;
    switch (builder->phase) {
    case PHASE_ADDING:
        if (builder->group.count > 0)
            TRY(group_put(builder, detail));
        while (builder->shard < BLOCK_SHARDS)
            builder->info.shard_first[++builder->shard] = builder->info.ordinal_count;
        TRY(block__pairs_sort(builder->pairs, detail));
        builder->phase = PHASE_PAIRS;
        return STATUS_OK;
    case PHASE_PAIRS:
        TRY(pairs_step(builder, detail));
        if (status == STATUS_END)
            builder->phase = PHASE_INFO;
        return STATUS_OK;
    case PHASE_INFO:
        block__pairs_close(builder->pairs);
        builder->pairs = NULL;
        buf_clear(&builder->value);
        block__info_append(&builder->value, &builder->info);
        TRY(put(builder, BLOCK__TABLE_INFO, (const uint8_t *)"info", 4, &builder->value, detail));
        TRY(commit(builder, false, detail));
        builder->phase = PHASE_DONE;
        return STATUS_END;
    case PHASE_DONE:
        return STATUS_END;
    }
out:
    return status;
}

/* ---- Taking it ---------------------------------------------------------------------------------------- */

int block__index_builder_detach(struct block__index_builder *builder) {
    ASSERT(builder->phase == PHASE_DONE && builder->copy == NULL && builder->env != NULL);
    mdb_env_close(builder->env);
    builder->env = NULL;
    int fd = builder->fd;
    builder->fd = -1;
    return fd;
}

int block__index_builder_read(struct block__index_builder *builder, uint8_t *data, size_t len,
                              size_t *got_out, struct error_detail *detail) {
    ASSERT(builder->phase == PHASE_DONE && builder->env != NULL);
    int status = STATUS_OK;
    if (builder->copy == NULL)
        TRY(block__index_copy_start(builder->env, detail, &builder->copy));
    TRY(block__index_copy_read(builder->copy, data, len, got_out, detail));
out:
    return status;
}
