/* fuzz_block.c: a small block whose files are edited as the input says, opened, asked, verified, repaired.
 * Checksums are put right where the input wants it, or the fuzzer would never get behind them.
 *
 * Checks: opening ends with one of the statuses it may end with; nothing is read outside of the files; what
 * is selected ascends and is in range; what the cursor gives can be asked for by ordinal; as long as no
 * checksum was forged, every chunk and every label set that is read is one that was written; after a repair
 * nothing is wrong with the index any more.
 *
 * The index is LMDB's, which trusts its file: with right checksums only the values in its tables are edited.
 *
 * Input: two bytes of options, then edits: target, piece, offset (2 bytes), length and bytes. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/block/block_meta.h"
#include "storage/block/block_private.h"
#include "tests/lib/chunk_grow.h"

#define FILE_BYTES_MAX ((size_t)128 << 10)
#define PIECES_MAX     512
#define SERIES         24

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char parent[] = "/dev/shm/tidalite-fuzz-block-XXXXXX";
static char dir[64];
static struct io *io;

enum file { FILE_CHUNKS, FILE_INDEX, FILE_SUM, FILE_META, FILE_COUNT };
static const char *const names[FILE_COUNT] = {"chunks", "index.mdb", "index.sum", "meta.json"};
static uint8_t *base[FILE_COUNT], *edited[FILE_COUNT];
static size_t lens[FILE_COUNT];

/* Of `chunks`, with a checksum; of the index, a table's value. */
struct piece {
    size_t offset, len, crc_at, body; /* checksum of [body, offset + len) */
    uint32_t kind;
};
static struct piece pieces[PIECES_MAX], values[PIECES_MAX];
static size_t piece_count, value_count;

/* Checksums of everything that may be answered: chunks' bits and label sets. */
static uint32_t known[PIECES_MAX];
static size_t known_count;

static _Noreturn void finding(const char *what) {
    fprintf(stderr, "finding: %s\n", what);
    abort();
}

static void file_path(enum file file, char *path, size_t bytes) {
    snprintf(path, bytes, "%s/%s", dir, names[file]);
}

static void file_write(enum file file, const uint8_t *data, size_t len) {
    char path[128];
    file_path(file, path, sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        abort();
    close(fd);
}

static int remove_each(void *context, const char *name) {
    (void)context;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return unlink(path);
}

static void clean_up(void) {
    io_list_dir(io, dir, remove_each, NULL);
    rmdir(dir);
    rmdir(parent);
}

/* ---- The block ---------------------------------------------------------------------------------------- */

static void know(struct slice s) {
    if (known_count == PIECES_MAX)
        abort();
    known[known_count++] = crc32c(0, s.data, s.len);
}

static void expect_known(struct slice s, const char *what) {
    uint32_t crc = crc32c(0, s.data, s.len);
    for (size_t i = 0; i < known_count; i++)
        if (known[i] == crc)
            return;
    finding(what);
}

static void series_add(struct block_writer *writer, unsigned number) {
    struct buf labels;
    struct block_chunk chunks[3];
    char text[32];
    buf_init(&labels);
    snprintf(text, sizeof text, "%c", 'a' + number / 8);
    label_bytes_append(&labels, slice_str("__name__"), slice_str("metric"));
    label_bytes_append(&labels, slice_str("az"), slice_str(text));
    snprintf(text, sizeof text, "pod-%03u", number);
    label_bytes_append(&labels, slice_str("pod"), slice_str(text));
    if (number % 3 == 1)
        label_bytes_append(&labels, slice_str("x"), slice_str("y"));
    unsigned count = 1 + number % 3;
    int64_t time_ms = 1000;
    for (unsigned c = 0; c < count; c++) {
        struct chunk_open open = {0};
        chunks[c] = (struct block_chunk){.time_min_ms = time_ms, .log_position = 100 + c};
        for (unsigned i = 0; i < 4 + number; i++, time_ms += 15)
            if (chunk_append(&open, (struct sample){time_ms, (uint64_t)number << 40 | i}, START_NONE,
                             chunk_grow, NULL) < 0)
                abort();
        chunks[c].time_max_ms = open.time_ms;
        chunks[c].info = open.info;
        struct slice bits = chunk_bytes(&open);
        chunks[c].bits = bits; /* the buffer is freed below */
        know(bits);
    }
    know(buf_slice(&labels));
    if (block_writer_add(writer, buf_slice(&labels), number * 7, chunks, count, NULL) < 0)
        abort();
    for (unsigned c = 0; c < count; c++)
        mem_free((void *)(uintptr_t)chunks[c].bits.data);
    buf_release(&labels);
}

static void piece_add(size_t offset, size_t len, size_t crc_at, size_t body, uint32_t kind) {
    if (piece_count == PIECES_MAX)
        abort();
    pieces[piece_count++] = (struct piece){offset, len, crc_at, body, kind};
}

static void pieces_find(struct block *block) {
    uint32_t lengths[16];
    uint64_t offset = BLOCK__HEADER_BYTES;
    piece_add(0, BLOCK__HEADER_BYTES, 60, 0, 0);
    for (struct block__run run; offset < block->runs_end; offset = block__run_end(&run)) {
        if (block__run_read(block->chunks, &block->base, offset, &run) < 0 ||
            block__run_table(block->chunks, &block->base, &run, lengths) < 0)
            abort();
        size_t table = offset + run.head_bytes, at = block__run_data(&run);
        piece_add(offset, run.head_bytes, offset + 4, offset + 8, 1);
        piece_add(table, run.table_bytes, table, table + 4, 2);
        for (uint32_t i = 0; i < run.chunk_count; at += lengths[i++])
            piece_add(at, lengths[i], at, at + 4, 3);
    }
    piece_add(offset, lens[FILE_CHUNKS] - offset, offset + 12, offset + 16, 4);
}

static void values_find(struct block *block) {
    MDB_txn *txn;
    if (mdb_txn_begin(block->index.env, NULL, MDB_RDONLY, &txn) != 0)
        abort();
    /* not the counts: how much memory a set takes is believed of an index with right checksums */
    for (size_t t = 0; t < BLOCK__TABLE_INFO; t++) {
        MDB_cursor *cursor;
        MDB_val key, value;
        if (mdb_cursor_open(txn, block->index.tables[t], &cursor) != 0)
            abort();
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0 && value_count < PIECES_MAX) {
            /* where in the file: by its bytes, which stand there once */
            uint8_t *at = memmem(base[FILE_INDEX], lens[FILE_INDEX], value.mv_data, value.mv_size);
            if (at != NULL && value.mv_size >= 3)
                values[value_count++] =
                    (struct piece){(size_t)(at - base[FILE_INDEX]), value.mv_size, 0, 0, 0};
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY | O_CLOEXEC));
    if (mkdtemp(parent) == NULL || io_open(IO_BACKEND_SYSCALL, NULL, &io) != STATUS_OK)
        abort();
    atexit(clean_up);
    snprintf(dir, sizeof dir, "%s/b", parent);
    struct block_writer_options options = {
        .io = io, .dir = dir, .id = 5, .level = 1, .salt = 99, .time_base_ms = 900, .position_base = 100};
    struct block_writer *writer;
    struct block *block;
    if (block_writer_open(&options, NULL, &writer) < 0)
        abort();
    for (unsigned i = 0; i < SERIES; i++)
        series_add(writer, i);
    while (block_writer_step(writer, NULL) == STATUS_OK)
        ;
    block_writer_close(writer);
    for (enum file f = 0; f < FILE_COUNT; f++) {
        char path[128];
        file_path(f, path, sizeof path);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        base[f] = malloc(FILE_BYTES_MAX);
        edited[f] = malloc(FILE_BYTES_MAX);
        ssize_t got = fd < 0 ? -1 : read(fd, base[f], FILE_BYTES_MAX);
        if (got <= 0 || got == FILE_BYTES_MAX)
            abort();
        lens[f] = (size_t)got;
        close(fd);
    }
    if (block_open(io, dir, NULL, &block) != STATUS_OK)
        abort();
    pieces_find(block);
    values_find(block);
    block_close(block);
    return 0;
}

/* ---- Editing ------------------------------------------------------------------------------------------ */

enum option {
    OPTION_NO_INDEX = 1,
    OPTION_NO_META = 2,
    OPTION_FORGE_CHUNKS = 4, /* the checksums of edited pieces are right */
    OPTION_FORGE_INDEX = 8,  /* only values are edited, and the checksums are right */
    OPTION_CUT = 16,         /* `chunks` ends early */
    OPTION_LATER = 32,
    OPTION_NO_SUM = 64,
    OPTION_REPAIR = 128
};

struct input {
    const uint8_t *next, *end;
};

static uint32_t take(struct input *input, size_t bytes) {
    uint32_t v = 0;
    for (size_t i = 0; i < bytes && input->next < input->end; i++)
        v |= (uint32_t)*input->next++ << 8 * i;
    return v;
}

static void chunks_seal(const struct piece *piece) {
    uint8_t *data = edited[FILE_CHUNKS], seed[24];
    if (piece->kind == 0) {
        store_u32(data + 60, crc32c(0, data, 60));
        return;
    }
    size_t len = piece->offset + piece->len - piece->body;
    if (piece->kind == 1) { /* a head says itself how long it is */
        uint32_t body = load_u32(data + piece->offset + 8);
        if (body > lens[FILE_CHUNKS] - piece->offset - BLOCK__RUN_FIXED)
            return;
        len = body + BLOCK__RUN_FIXED - 8;
    }
    if (piece->kind == 4) { /* the header inside the trailer too */
        uint8_t *header = data + piece->body;
        store_u32(header + 60, crc32c(0, header, 60));
    }
    store_u64(seed, 99);
    store_u64(seed + 8, piece->offset);
    store_u64(seed + 16, (uint64_t)piece->kind << 32 | (uint32_t)len);
    store_u32(data + piece->crc_at, crc32c(crc32c(0, seed, sizeof seed), data + piece->body, len));
}

static void index_seal(void) {
    uint8_t *sum = edited[FILE_SUM];
    for (size_t page = 0; page < lens[FILE_INDEX] / BLOCK__INDEX_PAGE_BYTES; page++)
        store_u32(sum + 40 + 4 * page,
                  block__index_page_crc(99, page, edited[FILE_INDEX] + page * BLOCK__INDEX_PAGE_BYTES));
    store_u32(sum + 32, crc32c(crc32c(0, sum, 32), sum + 40, lens[FILE_SUM] - 40));
}

static void meta_seal(void) {
    static const size_t tail = sizeof "  \"crc32c\": \"00000000\"\n}\n" - 1;
    char digits[9];
    snprintf(digits, sizeof digits, "%08x", crc32c(0, edited[FILE_META], lens[FILE_META] - tail));
    memcpy(edited[FILE_META] + lens[FILE_META] - 12, digits, 8);
}

/* True if a checksum was forged. */
static bool edit(struct input *input, unsigned options) {
    static const struct piece whole = {0};
    enum file file = (enum file)(take(input, 1) % FILE_COUNT);
    uint32_t number = take(input, 1), offset = take(input, 2), len = take(input, 1) % 16 + 1;
    bool values_only = file == FILE_INDEX && options & OPTION_FORGE_INDEX;
    const struct piece *piece = file == FILE_CHUNKS ? &pieces[number % piece_count]
                                : values_only       ? &values[number % value_count]
                                                    : &whole;
    size_t begin = piece == &whole ? 0 : piece->offset, room = piece == &whole ? lens[file] : piece->len;
    begin += offset % room;
    room -= offset % room;
    for (uint32_t i = 0; i < len && i < room; i++)
        edited[file][begin + i] = (uint8_t)take(input, 1);
    if (file == FILE_CHUNKS && options & OPTION_FORGE_CHUNKS) {
        chunks_seal(piece);
        return true;
    }
    if (values_only)
        index_seal();
    if (file == FILE_SUM && options & OPTION_FORGE_INDEX && begin < 40)
        store_u32(edited[FILE_SUM] + 32,
                  crc32c(crc32c(0, edited[FILE_SUM], 32), edited[FILE_SUM] + 40, lens[FILE_SUM] - 40));
    if (file == FILE_META && options & OPTION_FORGE_INDEX)
        meta_seal();
    return values_only || (file == FILE_META && options & OPTION_FORGE_INDEX);
}

/* ---- Asking ------------------------------------------------------------------------------------------- */

static bool may_be(int status) {
    return status == STATUS_OK || status == STATUS_CORRUPT || status == STATUS_NOT_FOUND ||
           status == STATUS_NEWER_FORMAT || status == STATUS_TOO_LARGE;
}

static void touch(struct slice s) {
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < s.len; i++)
        sum = (uint8_t)(sum + s.data[i]);
    (void)sum;
}

static void chunks_ask(struct block *block, const struct block_series *series, bool forged) {
    struct sample_columns columns = {0};
    for (size_t i = 0; i < series->chunk_count; i++) {
        struct block_chunk chunk;
        int status = block_chunk_read(block, series->ordinal, &series->chunks[i], &chunk, NULL);
        if (status == STATUS_CORRUPT)
            continue;
        if (status != STATUS_OK)
            finding("reading a chunk: another status");
        touch(chunk.bits);
        if (!forged)
            expect_known(chunk.bits, "a chunk that was never written");
        (void)chunk_decode(chunk.bits, chunk.info, INT64_MIN, INT64_MAX, &columns);
    }
    sample_columns_release(&columns);
}

static int on_text(void *context, struct slice text, uint64_t series_count) {
    (void)context;
    (void)series_count;
    touch(text);
    return STATUS_OK;
}

static bool even(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    return value.len % 2 == 0;
}

static void select_ask(struct block *block) {
    struct matcher_pattern pattern = {.match = even}, prefix = {.match = even, .prefix = slice_str("pod-0")};
    const struct matcher matchers[] = {
        {.kind = MATCHER_EQUAL, .name = slice_str("az"), .value = slice_str("b")},
        {.kind = MATCHER_NOT_EQUAL, .name = slice_str("x"), .value = slice_str("")},
        {.kind = MATCHER_REGEX, .name = slice_str("pod"), .pattern = &pattern},
        {.kind = MATCHER_NOT_REGEX, .name = slice_str("pod"), .pattern = &prefix},
        {.kind = MATCHER_EQUAL, .name = slice_str("__name__"), .value = slice_str("metric")},
    };
    for (size_t i = 0; i < sizeof matchers / sizeof *matchers; i++) {
        uint32_t *ordinals;
        size_t count;
        int status =
            block_select(block, &matchers[i], i % 2 + 1, INT64_MIN, INT64_MAX, &ordinals, &count, NULL);
        if (status == STATUS_CORRUPT)
            continue;
        if (status != STATUS_OK)
            finding("select: another status");
        for (size_t k = 0; k < count; k++)
            if (ordinals[k] >= block_ordinal_count(block) || (k > 0 && ordinals[k] <= ordinals[k - 1]))
                finding("select: ordinals out of range or order");
        mem_free(ordinals);
    }
    if (!may_be(block_label_names(block, matchers, 1, on_text, NULL, NULL)) ||
        !may_be(block_label_names(block, NULL, 0, on_text, NULL, NULL)) ||
        !may_be(block_label_values(block, slice_str("pod"), matchers, 2, on_text, NULL, NULL)) ||
        !may_be(block_label_values(block, slice_str("az"), NULL, 0, on_text, NULL, NULL)))
        finding("labels: another status");
}

static void labels_check(struct block *block, struct slice labels, bool forged) {
    const uint8_t *begin = block->chunks.data;
    const uint8_t *end = block->chunks.len == 0 ? begin : begin + block->chunks.len;
    if (labels.data >= begin && labels.data < end && labels.len > (size_t)(end - labels.data))
        finding("labels outside of the file");
    touch(labels);
    if (!forged)
        expect_known(labels, "labels that were never written");
}

static int on_finding(void *context, const struct block_finding *found) {
    (void)found;
    (*(size_t *)context)++;
    return STATUS_OK;
}

static void ask(struct block *block, bool forged) {
    struct block_cursor *cursor;
    struct block_series series;
    select_ask(block);
    if (block_cursor_open(block, 0, BLOCK_SHARDS - 1, &cursor) != STATUS_OK)
        finding("no cursor");
    int status;
    while ((status = block_cursor_next(cursor, &series, NULL)) == STATUS_OK) {
        labels_check(block, series.labels, forged);
        chunks_ask(block, &series, forged);
    }
    if (status != STATUS_END && status != STATUS_CORRUPT)
        finding("cursor: another status");
    block_cursor_close(cursor);
    size_t findings = 0;
    if (!may_be(block_verify(block, on_finding, &findings, NULL)))
        finding("verify: another status");
}

static void repair(bool forged) {
    struct block *block;
    if (block_open(io, dir, NULL, &block) != STATUS_OK)
        return;
    if (block_repair(block, NULL) != STATUS_OK)
        finding("could not repair");
    block_close(block);
    if (block_open(io, dir, NULL, &block) != STATUS_OK || block_index_rebuilt(block))
        finding("not repaired");
    ask(block, forged);
    block_close(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    uint32_t options = take(&input, 1), cut = take(&input, 1);
    bool forged = false;
    for (enum file f = 0; f < FILE_COUNT; f++)
        memcpy(edited[f], base[f], lens[f]);
    for (int i = 0; i < 16 && input.next < input.end; i++)
        forged |= edit(&input, options);
    io_list_dir(io, dir, remove_each, NULL);
    for (enum file f = 0; f < FILE_COUNT; f++) {
        bool left_out = (f == FILE_INDEX && options & OPTION_NO_INDEX) ||
                        (f == FILE_META && options & OPTION_NO_META) ||
                        (f == FILE_SUM && options & OPTION_NO_SUM);
        size_t len = f == FILE_CHUNKS && options & OPTION_CUT ? lens[f] * cut / 256 : lens[f];
        if (!left_out)
            file_write(f, edited[f], len);
    }
    struct block *block;
    int status =
        options & OPTION_LATER ? block_open_later(io, dir, NULL, &block) : block_open(io, dir, NULL, &block);
    if (!may_be(status))
        finding("open: another status");
    if (status != STATUS_OK)
        return 0;
    status = block_prepare(block, NULL);
    if (!may_be(status))
        finding("prepare: another status");
    if (status == STATUS_OK)
        ask(block, forged);
    block_close(block);
    if (options & OPTION_REPAIR && status == STATUS_OK)
        repair(forged);
    return 0;
}
