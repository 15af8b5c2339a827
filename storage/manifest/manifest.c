/* manifest.c: see manifest.h and docs/format/manifest.md. */
#include "storage/manifest/manifest.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/kill_point.h"

#define MANIFEST_VERSION   1
#define COPY_ALIGN         4096u
#define HEAD_BYTES         32u
#define FIXED_BYTES        64u
#define BLOCK_BYTES        68u
#define COVERED_BYTES      24u
#define SNAPSHOT_BYTES     40u
#define DELETE_BYTES       12u /* before its payload */
#define MANIFEST_BYTES_MAX ((uint64_t)64 << 20)

static const uint8_t magic[8] = {'T', 'D', 'L', 'T', 'M', 'A', 'N', '\n'};

void manifest_init(struct manifest *manifest) {
    *manifest = (struct manifest){.id_next = 1, .block_next = 1, .cut_ms = INT64_MIN};
}

void manifest_release(struct manifest *manifest) {
    mem_free(manifest->blocks);
    mem_free(manifest->covered);
    manifest_deletes_clear(manifest);
    *manifest = (struct manifest){0};
}

void manifest_deletes_clear(struct manifest *manifest) {
    for (size_t i = 0; i < manifest->delete_count; i++)
        mem_free(manifest->deletes[i].payload);
    mem_free(manifest->deletes);
    manifest->deletes = NULL;
    manifest->delete_count = 0;
}

int manifest_copy(const struct manifest *from, struct manifest *out) {
    struct manifest copy = *from;
    copy.deletes = NULL;
    copy.delete_count = 0;
    copy.blocks = mem_alloc((from->block_count + 1) * sizeof *copy.blocks);
    copy.covered = mem_alloc((from->covered_count + 1) * sizeof *copy.covered);
    if (copy.blocks == NULL || copy.covered == NULL) {
        manifest_release(&copy);
        return STATUS_NO_MEMORY;
    }
    if (from->block_count > 0)
        memcpy(copy.blocks, from->blocks, from->block_count * sizeof *copy.blocks);
    if (from->covered_count > 0)
        memcpy(copy.covered, from->covered, from->covered_count * sizeof *copy.covered);
    for (size_t i = 0; i < from->delete_count; i++) {
        const struct manifest_delete *one = &from->deletes[i];
        int status = manifest_delete_add(&copy, one->position, slice_of(one->payload, one->payload_len));
        if (status < 0) {
            manifest_release(&copy);
            return status;
        }
    }
    *out = copy;
    return STATUS_OK;
}

int manifest_block_add(struct manifest *manifest, const struct manifest_block *block) {
    struct manifest_block *blocks =
        mem_realloc(manifest->blocks, (manifest->block_count + 1) * sizeof *manifest->blocks);
    if (blocks == NULL)
        return STATUS_NO_MEMORY;
    manifest->blocks = blocks;
    manifest->blocks[manifest->block_count++] = *block;
    return STATUS_OK;
}

int manifest_covered_add(struct manifest *manifest, const struct manifest_covered *covered) {
    struct manifest_covered *grown =
        mem_realloc(manifest->covered, (manifest->covered_count + 1) * sizeof *manifest->covered);
    if (grown == NULL)
        return STATUS_NO_MEMORY;
    manifest->covered = grown;
    manifest->covered[manifest->covered_count++] = *covered;
    return STATUS_OK;
}

void manifest_snapshot_add(struct manifest *manifest, const struct manifest_snapshot *snapshot) {
    for (size_t i = MANIFEST_SNAPSHOTS - 1; i > 0; i--)
        manifest->snapshots[i] = manifest->snapshots[i - 1];
    manifest->snapshots[0] = *snapshot;
    if (manifest->snapshot_count < MANIFEST_SNAPSHOTS)
        manifest->snapshot_count++;
}

int manifest_delete_add(struct manifest *manifest, uint64_t position, struct slice payload) {
    struct manifest_delete *grown =
        mem_realloc(manifest->deletes, (manifest->delete_count + 1) * sizeof *manifest->deletes);
    if (grown == NULL)
        return STATUS_NO_MEMORY;
    manifest->deletes = grown;
    uint8_t *copy = mem_alloc(payload.len);
    if (copy == NULL)
        return STATUS_NO_MEMORY;
    if (payload.len > 0)
        memcpy(copy, payload.data, payload.len);
    manifest->deletes[manifest->delete_count++] = (struct manifest_delete){position, copy, payload.len};
    return STATUS_OK;
}

void manifest_block_remove(struct manifest *manifest, uint64_t id) {
    size_t kept = 0;
    for (size_t i = 0; i < manifest->block_count; i++)
        if (manifest->blocks[i].id != id)
            manifest->blocks[kept++] = manifest->blocks[i];
    manifest->block_count = kept;
}

void manifest_covered_prune(struct manifest *manifest, uint64_t position) {
    /* The oldest snapshot holds what was logged up to its position, and also where that is the end of what is
     * covered. */
    if (manifest->snapshot_count > 0) {
        uint64_t oldest = manifest->snapshots[manifest->snapshot_count - 1].position;
        if (oldest > 0 && oldest - 1 < position)
            position = oldest - 1;
    }
    size_t kept = 0;
    for (size_t i = 0; i < manifest->covered_count; i++)
        if (manifest->covered[i].position > position)
            manifest->covered[kept++] = manifest->covered[i];
    manifest->covered_count = kept;
}

bool manifest_covers(const struct manifest *manifest, int64_t time_ms, uint64_t position) {
    for (size_t i = 0; i < manifest->covered_count; i++) {
        const struct manifest_covered *covered = &manifest->covered[i];
        if (time_ms >= covered->begin_ms && time_ms < covered->end_ms && position < covered->position)
            return true;
    }
    return false;
}

/* ---- bytes ---- */

static void put_u32(struct buf *buf, uint32_t v) {
    uint8_t bytes[4];
    store_u32(bytes, v);
    buf_append(buf, bytes, sizeof bytes);
}

static void put_u64(struct buf *buf, uint64_t v) {
    uint8_t bytes[8];
    store_u64(bytes, v);
    buf_append(buf, bytes, sizeof bytes);
}

static uint64_t delete_bytes(const struct manifest *manifest) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < manifest->delete_count; i++)
        bytes += DELETE_BYTES + manifest->deletes[i].payload_len;
    return bytes;
}

static void encode(const struct manifest *manifest, struct buf *body) {
    put_u64(body, manifest->id_next);
    put_u64(body, manifest->block_next);
    put_u64(body, (uint64_t)manifest->cut_ms);
    put_u64(body, manifest->block_count);
    put_u64(body, manifest->covered_count);
    put_u64(body, manifest->snapshot_count);
    put_u64(body, manifest->delete_count);
    put_u64(body, delete_bytes(manifest));
    for (size_t i = 0; i < manifest->block_count; i++) {
        const struct manifest_block *block = &manifest->blocks[i];
        put_u64(body, block->id);
        put_u32(body, block->level);
        put_u64(body, (uint64_t)block->time_min_ms);
        put_u64(body, (uint64_t)block->time_max_ms);
        put_u64(body, block->position);
        put_u64(body, block->deleted_to);
        put_u64(body, block->series_count);
        put_u64(body, block->sample_count);
        put_u64(body, block->bytes);
    }
    for (size_t i = 0; i < manifest->covered_count; i++) {
        put_u64(body, (uint64_t)manifest->covered[i].begin_ms);
        put_u64(body, (uint64_t)manifest->covered[i].end_ms);
        put_u64(body, manifest->covered[i].position);
    }
    for (size_t i = 0; i < manifest->snapshot_count; i++) {
        put_u64(body, manifest->snapshots[i].number);
        put_u64(body, manifest->snapshots[i].bytes);
        put_u64(body, manifest->snapshots[i].position);
        put_u64(body, manifest->snapshots[i].labels_number);
        put_u64(body, manifest->snapshots[i].labels_bytes);
    }
    for (size_t i = 0; i < manifest->delete_count; i++) {
        put_u64(body, manifest->deletes[i].position);
        put_u32(body, (uint32_t)manifest->deletes[i].payload_len);
        buf_append(body, manifest->deletes[i].payload, manifest->deletes[i].payload_len);
    }
}

static int deletes_decode(const uint8_t *p, const uint8_t *end, uint64_t count, struct manifest *out) {
    int status = STATUS_OK;
    for (uint64_t i = 0; i < count; i++) {
        if ((size_t)(end - p) < DELETE_BYTES)
            return STATUS_CORRUPT;
        uint64_t position = load_u64(p);
        uint32_t len = load_u32(p + 8);
        p += DELETE_BYTES;
        if (len > (size_t)(end - p))
            return STATUS_CORRUPT;
        TRY(manifest_delete_add(out, position, slice_of(p, len)));
        p += len;
    }
    status = p == end ? STATUS_OK : STATUS_CORRUPT;
out:
    return status;
}

/* The checksum was right, so a body that does not fit is a mistake of whoever wrote it: not believed either.
 */
static int decode(const uint8_t *p, size_t len, uint64_t generation, struct manifest *out) {
    if (len < FIXED_BYTES)
        return STATUS_CORRUPT;
    uint64_t blocks = load_u64(p + 24), covered = load_u64(p + 32), snapshots = load_u64(p + 40);
    uint64_t deletes = load_u64(p + 48), deletes_len = load_u64(p + 56);
    size_t left = len - FIXED_BYTES;
    if (blocks > left / BLOCK_BYTES || covered > left / COVERED_BYTES || snapshots > MANIFEST_SNAPSHOTS ||
        deletes_len > left ||
        blocks * BLOCK_BYTES + covered * COVERED_BYTES + snapshots * SNAPSHOT_BYTES + deletes_len != left)
        return STATUS_CORRUPT;
    struct manifest manifest = {.generation = generation,
                                .id_next = load_u64(p),
                                .block_next = load_u64(p + 8),
                                .cut_ms = (int64_t)load_u64(p + 16),
                                .block_count = (size_t)blocks,
                                .covered_count = (size_t)covered,
                                .snapshot_count = (size_t)snapshots};
    manifest.blocks = mem_alloc((size_t)(blocks + 1) * sizeof *manifest.blocks);
    manifest.covered = mem_alloc((size_t)(covered + 1) * sizeof *manifest.covered);
    if (manifest.blocks == NULL || manifest.covered == NULL) {
        manifest_release(&manifest);
        return STATUS_NO_MEMORY;
    }
    p += FIXED_BYTES;
    for (size_t i = 0; i < blocks; i++, p += BLOCK_BYTES)
        manifest.blocks[i] = (struct manifest_block){
            .id = load_u64(p),
            .level = load_u32(p + 8),
            .time_min_ms = (int64_t)load_u64(p + 12),
            .time_max_ms = (int64_t)load_u64(p + 20),
            .position = load_u64(p + 28),
            .deleted_to = load_u64(p + 36),
            .series_count = load_u64(p + 44),
            .sample_count = load_u64(p + 52),
            .bytes = load_u64(p + 60),
        };
    for (size_t i = 0; i < covered; i++, p += COVERED_BYTES)
        manifest.covered[i] =
            (struct manifest_covered){(int64_t)load_u64(p), (int64_t)load_u64(p + 8), load_u64(p + 16)};
    for (size_t i = 0; i < snapshots; i++, p += SNAPSHOT_BYTES)
        manifest.snapshots[i] = (struct manifest_snapshot){load_u64(p), load_u64(p + 8), load_u64(p + 16),
                                                           load_u64(p + 24), load_u64(p + 32)};
    int status = deletes_decode(p, p + deletes_len, deletes, &manifest);
    if (status < 0) {
        manifest_release(&manifest);
        return status;
    }
    *out = manifest;
    return STATUS_OK;
}

/* The version of a copy that is whole; 0: it is not. */
static uint32_t copy_version(const uint8_t *bytes, size_t len) {
    if (len < HEAD_BYTES || memcmp(bytes, magic, sizeof magic) != 0)
        return 0;
    uint64_t body_len = load_u64(bytes + 16);
    if (body_len > len - HEAD_BYTES)
        return 0;
    uint32_t crc = crc32c(crc32c(0, bytes, 12), bytes + 16, (size_t)(HEAD_BYTES - 16 + body_len));
    return crc == load_u32(bytes + 12) ? load_u32(bytes + 8) : 0;
}

static int copy_read(const uint8_t *bytes, size_t len, struct manifest *out) {
    uint32_t version = copy_version(bytes, len);
    if (version != MANIFEST_VERSION)
        return version == 0 ? STATUS_CORRUPT : STATUS_NEWER_FORMAT;
    return decode(bytes + HEAD_BYTES, (size_t)load_u64(bytes + 16), load_u64(bytes + 24), out);
}

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

uint64_t manifest_position_max(const struct manifest *manifest) {
    uint64_t max = 0;
    for (size_t i = 0; i < manifest->block_count; i++)
        max = larger(max, larger(manifest->blocks[i].position, manifest->blocks[i].deleted_to));
    for (size_t i = 0; i < manifest->covered_count; i++)
        max = larger(max, manifest->covered[i].position);
    for (size_t i = 0; i < manifest->snapshot_count; i++)
        max = larger(max, manifest->snapshots[i].position);
    for (size_t i = 0; i < manifest->delete_count; i++)
        max = larger(max, manifest->deletes[i].position);
    return max;
}

/* ---- the file ---- */

static int path_make(const char *dir, const char *name, char *out, size_t bytes) {
    return (size_t)snprintf(out, bytes, "%s/%s", dir, name) < bytes ? STATUS_OK : STATUS_TOO_LARGE;
}

static int file_read(struct io *io, const char *dir, uint8_t **bytes_out, size_t *len_out) {
    int status = STATUS_OK;
    char path[4096];
    struct io_file *file = NULL;
    uint8_t *bytes = NULL;
    uint64_t size;
    TRY(path_make(dir, "manifest", path, sizeof path));
    TRY(io_file_open(io, path, IO_OPEN_READ, NULL, &file));
    TRY(io_file_size(io, file, &size));
    if (size > MANIFEST_BYTES_MAX) {
        status = STATUS_CORRUPT;
        goto out;
    }
    bytes = mem_alloc((size_t)size);
    if (bytes == NULL) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    TRY(io_read(io, file, 0, bytes, (size_t)size, len_out));
    *bytes_out = bytes;
    bytes = NULL;
out:
    mem_free(bytes);
    io_file_close(io, file);
    return status;
}

int manifest_load(struct io *io, const char *dir, struct error_detail *detail, struct manifest *out) {
    uint8_t *bytes = NULL;
    size_t len;
    int status = file_read(io, dir, &bytes, &len);
    if (status == STATUS_NOT_FOUND)
        return status;
    if (status == STATUS_OK) {
        /* Two copies of equal length stand one behind the other; the first needs nothing of a file that was
         * cut. */
        size_t half = len / 2;
        status = copy_read(bytes, len, out);
        if (status == STATUS_CORRUPT)
            status = copy_read(bytes + half, len - half, out);
    }
    if (status == STATUS_NEWER_FORMAT) {
        bool first = copy_version(bytes, len) != 0;
        error_newer(detail, dir, "manifest",
                    first ? copy_version(bytes, len) : copy_version(bytes + len / 2, len - len / 2),
                    MANIFEST_VERSION);
    }
    if (status < 0)
        error_set(detail, status, "%s/manifest: %s", dir, status_message(status));
    mem_free(bytes);
    return status;
}

int manifest_verify(struct io *io, const char *dir,
                    void (*each)(void *context, uint64_t offset, const char *what), void *context,
                    struct error_detail *detail) {
    uint8_t *bytes = NULL;
    size_t len;
    struct manifest copies[2] = {{0}, {0}};
    int status = file_read(io, dir, &bytes, &len);
    if (status < 0)
        return error_set(detail, status, "%s/manifest: %s", dir, status_message(status));
    size_t half = len / 2;
    int results[2] = {copy_read(bytes, len, &copies[0]), copy_read(bytes + half, len - half, &copies[1])};
    for (size_t i = 0; i < 2; i++) {
        if (results[i] == STATUS_CORRUPT)
            each(context, i * half, i == 0 ? "the first copy is damaged" : "the second copy is damaged");
        else if (results[i] < 0)
            status = error_set(detail, results[i], "%s/manifest: %s", dir, status_message(results[i]));
    }
    if (status == STATUS_OK && results[0] == STATUS_OK && results[1] == STATUS_OK &&
        memcmp(bytes, bytes + half, half) != 0)
        each(context, half, "the two copies differ");
    manifest_release(&copies[0]);
    manifest_release(&copies[1]);
    mem_free(bytes);
    return status;
}

int manifest_store(struct io *io, const char *dir, const struct manifest *manifest,
                   struct error_detail *detail) {
    int status = STATUS_OK;
    char path[4096], temporary[4096];
    struct io_file *file = NULL;
    struct buf bytes;
    buf_init(&bytes);
    uint8_t head[HEAD_BYTES] = {0};
    buf_append(&bytes, head, sizeof head);
    encode(manifest, &bytes);
    while (!bytes.failed && bytes.len % COPY_ALIGN != 0)
        buf_append_byte(&bytes, 0);
    if (bytes.failed) {
        status = STATUS_NO_MEMORY;
        goto out;
    }
    uint64_t body_len = FIXED_BYTES + manifest->block_count * BLOCK_BYTES +
                        manifest->covered_count * COVERED_BYTES + manifest->snapshot_count * SNAPSHOT_BYTES +
                        delete_bytes(manifest);
    memcpy(bytes.data, magic, sizeof magic);
    store_u32(bytes.data + 8, MANIFEST_VERSION);
    store_u64(bytes.data + 16, body_len);
    store_u64(bytes.data + 24, manifest->generation);
    store_u32(bytes.data + 12,
              crc32c(crc32c(0, bytes.data, 12), bytes.data + 16, (size_t)(HEAD_BYTES - 16 + body_len)));

    TRY(path_make(dir, "manifest", path, sizeof path));
    TRY(path_make(dir, "manifest.tmp", temporary, sizeof temporary));
    TRY(io_file_open(io, temporary, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_TRUNCATE, detail, &file));
    TRY(io_write(io, file, 0, bytes.data, bytes.len));
    TRY(io_write(io, file, bytes.len, bytes.data, bytes.len));
    TRY(io_sync(io, file));
    KILL_POINT("manifest_written");
    TRY(io_rename(io, temporary, path));
    KILL_POINT("manifest_renamed");
    TRY(io_sync_dir(io, dir));
out:
    if (status < 0)
        error_set(detail, status, "writing %s/manifest: %s", dir, status_message(status));
    io_file_close(io, file);
    buf_release(&bytes);
    return status;
}
