/* block_private.h: what the files of storage/block share: the open block and the reading of its index. */
#ifndef TIDALITE_STORAGE_BLOCK_PRIVATE_H
#define TIDALITE_STORAGE_BLOCK_PRIVATE_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "storage/block/block_index_format.h"

#define BLOCK__FILE_CHUNKS "chunks"
#define BLOCK__FILE_INDEX  "index.mdb"
#define BLOCK__FILE_SUM    "index.sum"
#define BLOCK__FILE_META   "meta.json"

#define BLOCK__DAMAGE_MAX 1000

/* "<dir>/<name>", mem_free it; NULL without memory. */
char *block__path(const char *dir, const char *name);

/* The directory that `dir` stands in; mem_free it; NULL without memory. */
char *block__parent(const char *dir);

/* ---- The index, open ---------------------------------------------------------------------------------- */

struct block__index {
    MDB_env *env; /* NULL: not open */
    int fd;       /* of the scratch file, if it is a rebuilt one; else -1 */
    MDB_dbi tables[BLOCK__INDEX_TABLES];
    struct block__index_info info;
};

struct block {
    struct io *io;
    char *dir;
    struct block__base base;
    struct block_meta meta;
    struct io_file *chunks_file;
    struct slice chunks; /* the file, mapped */
    uint64_t runs_end;   /* where the runs end: at the trailer, or with the file if it is not there */
    bool trailer_found;
    bool meta_read; /* meta.json is whole */

    struct io_file *index_file; /* index.mdb, and index.sum: from the opening on, for whoever prepares */
    struct buf index_sums;
    uint64_t index_pages;
    bool index_damaged; /* as far as is seen without reading it: it has to be rebuilt */

    pthread_mutex_t index_lock; /* held while the index is opened or rebuilt, once; across I/O, see block.h */
    atomic_bool index_ready;    /* what follows is there and does not change any more */
    bool index_rebuilt;
    struct block__index index;

    pthread_mutex_t damage_lock; /* of what follows; held for a copy of one entry, never across I/O */
    struct block_damage *damage;
    size_t damage_kept;
    uint64_t damage_count;
};

/* The whole of a small file of the block. STATUS_TOO_LARGE over `bytes_max`. */
int block__file_read(struct block *block, const char *name, uint64_t bytes_max, struct buf *out,
                     struct error_detail *detail);

/* Reads index.sum and opens index.mdb, unread; what is wrong with them goes to the list of damage, and then
 * block->index_damaged is set. STATUS_NO_MEMORY, STATUS_NEWER_FORMAT. */
int block__index_files_open(struct block *block, struct error_detail *detail);
void block__index_files_close(struct block *block);

/* Checks every page of index.mdb and opens it. STATUS_CORRUPT, with the damage in *damage (file, offset,
 * what); STATUS_NEWER_FORMAT, STATUS_NO_MEMORY. Of `io` it uses what any thread may. */
int block__index_open(struct block *block, struct block_damage *damage, struct error_detail *detail);
void block__index_close(struct block__index *index);

/* Opens the environment at `path`, whose bytes can be believed, and reads its info. */
int block__index_open_path(struct block__index *index, const char *path, size_t map_bytes,
                           struct error_detail *detail);

/* Builds it anew from `chunks` in scratch space, and lists what is damaged there. Fills in what of the meta
 * is not known otherwise. */
int block__index_rebuild(struct block *block, struct error_detail *detail);

/* ---- Reading the index -------------------------------------------------------------------------------- */

/* One thread's look at the index. */
struct block__reading {
    struct block *block;
    MDB_txn *txn;
    MDB_cursor *cursor;      /* of the table that was looked at last */
    enum block__table table; /* that table */
    struct error_detail *detail;
    struct block__page_reader page; /* for whoever walks over pages */
};

int block__reading_begin(struct block *block, struct error_detail *detail, struct block__reading *reading);
void block__reading_end(struct block__reading *reading);

/* STATUS_CORRUPT with a text: the index contradicts itself at that table. */
int block__reading_corrupt(struct block__reading *reading, enum block__table table);

/* The value of a numbered page. */
int block__reading_page(struct block__reading *reading, enum block__table table, uint32_t number,
                        struct slice *out);

/* The entry of the name; *number_out is its number. STATUS_NOT_FOUND if there is none. */
int block__reading_name(struct block__reading *reading, struct slice name, struct block__name_entry *out,
                        uint32_t *number_out);

/* The entry of the value. STATUS_NOT_FOUND if there is none. Borrowed until the transaction's end. */
int block__reading_value(struct block__reading *reading, const struct block__name_entry *name,
                         struct slice value, struct block__value_entry *out);

/* Calls `each` for the values of the name, from the first that is not below `from`, in order. STATUS_END from
 * it ends the walk. */
int block__reading_values(
    struct block__reading *reading, const struct block__name_entry *name, struct slice from,
    int (*each)(void *context, struct slice value, const struct block__value_entry *entry), void *context);

/* About how many values of the name begin with the prefix: from the pages that they stand in. */
int block__reading_prefix_count(struct block__reading *reading, const struct block__name_entry *name,
                                struct slice prefix, uint64_t *out);

/* Calls `each` for all names, in order, likewise. */
int block__reading_names(struct block__reading *reading,
                         int (*each)(void *context, struct slice name, uint32_t number,
                                     const struct block__name_entry *entry),
                         void *context);

/* Walks over postings from the first run that reaches `from` on. */
struct block__walk {
    struct block__reading *reading;
    enum block__table table; /* of pieces, if external */
    uint32_t key;
    bool external;
    struct block__postings_reader reader;
};

int block__walk_value(struct block__reading *reading, const struct block__value_entry *entry, uint32_t from,
                      struct block__walk *walk);
int block__walk_table(struct block__reading *reading, enum block__table table, uint32_t key, uint32_t from,
                      struct block__walk *walk);

/* STATUS_OK, STATUS_END, STATUS_CORRUPT. */
int block__walk_next(struct block__walk *walk, struct block__run_of_ordinals *out);

/* Adds what is inside the set's bounds. */
int block__set_add_value(struct block__reading *reading, const struct block__value_entry *entry,
                         struct block__set *set);
int block__set_add_table(struct block__reading *reading, enum block__table table, uint32_t key,
                         struct block__set *set);

/* The set of the series that satisfy all matchers; trimmed. The caller releases it. */
int block__select_set(struct block__reading *reading, const struct matcher *matchers, size_t count,
                      struct block__set *out);

/* Labels of the ordinal as the index knows them: all pairs that have it. Slow. */
int block__reading_labels(struct block__reading *reading, uint32_t ordinal, struct buf *out);

/* ---- Damage ------------------------------------------------------------------------------------------- */

/* Adds it to the list, once. */
void block__damage_add(struct block *block, struct block_damage damage);

/* Damage of a piece of `chunks`: lists it, sets `detail`, returns STATUS_CORRUPT. */
int block__chunks_damaged(struct block *block, struct block_damage damage, struct error_detail *detail);

#endif
