/* test_manifest.c: what is stored comes back; every byte flipped, every length, a newer version, every fault
 * on the way: an error or the right manifest, and never another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/rand.h"
#include "storage/manifest/manifest.h"
#include "tests/lib/fault.h"

struct place {
    char dir[64];
    char path[80];
    struct io *io;
};

static void place_open(struct place *place) {
    struct error_detail detail = {0};
    snprintf(place->dir, sizeof place->dir, "/tmp/tidalite-test-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    snprintf(place->path, sizeof place->path, "%s/manifest", place->dir);
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, &detail, &place->io), STATUS_OK);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void place_close(struct place *place) {
    io_close(place->io);
    nftw(place->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void make(struct manifest *manifest, uint64_t seed, size_t blocks, size_t covered, size_t deletes) {
    struct rand rand;
    rand_init(&rand, seed);
    manifest_init(manifest);
    manifest->generation = rand_u64(&rand);
    manifest->id_next = rand_u64(&rand);
    manifest->block_next = rand_u64(&rand);
    manifest->cut_ms = (int64_t)rand_u64(&rand);
    for (size_t i = 0; i < blocks; i++) {
        const struct manifest_block block = {.id = rand_u64(&rand),
                                             .level = (uint32_t)rand_u64(&rand),
                                             .time_min_ms = i == 0 ? INT64_MIN : (int64_t)rand_u64(&rand),
                                             .time_max_ms = i == 0 ? INT64_MAX : (int64_t)rand_u64(&rand),
                                             .position = rand_u64(&rand),
                                             .deleted_to = rand_u64(&rand),
                                             .series_count = rand_u64(&rand),
                                             .sample_count = rand_u64(&rand),
                                             .bytes = rand_u64(&rand)};
        assert_int_equal(manifest_block_add(manifest, &block), STATUS_OK);
    }
    for (size_t i = 0; i < covered; i++) {
        const struct manifest_covered one = {(int64_t)rand_u64(&rand), (int64_t)rand_u64(&rand),
                                             rand_u64(&rand)};
        assert_int_equal(manifest_covered_add(manifest, &one), STATUS_OK);
    }
    for (size_t i = 0; i < deletes; i++) {
        uint8_t bytes[300];
        for (size_t j = 0; j < sizeof bytes; j++)
            bytes[j] = (uint8_t)rand_u64(&rand);
        uint64_t len = i == 0 ? 0 : rand_below(&rand, sizeof bytes);
        assert_int_equal(manifest_delete_add(manifest, rand_u64(&rand), slice_of(bytes, (size_t)len)),
                         STATUS_OK);
    }
}

static bool same(const struct manifest *a, const struct manifest *b) {
    bool equal = a->generation == b->generation && a->id_next == b->id_next &&
                 a->block_next == b->block_next && a->cut_ms == b->cut_ms &&
                 a->block_count == b->block_count && a->covered_count == b->covered_count &&
                 a->delete_count == b->delete_count;
    for (size_t i = 0; equal && i < a->block_count; i++) {
        const struct manifest_block *x = &a->blocks[i], *y = &b->blocks[i];
        equal = x->id == y->id && x->level == y->level && x->time_min_ms == y->time_min_ms &&
                x->time_max_ms == y->time_max_ms && x->position == y->position &&
                x->deleted_to == y->deleted_to && x->series_count == y->series_count &&
                x->sample_count == y->sample_count && x->bytes == y->bytes;
    }
    for (size_t i = 0; equal && i < a->covered_count; i++)
        equal = memcmp(&a->covered[i], &b->covered[i], sizeof a->covered[i]) == 0;
    for (size_t i = 0; equal && i < a->delete_count; i++)
        equal = a->deletes[i].position == b->deletes[i].position &&
                slice_equal(slice_of(a->deletes[i].payload, a->deletes[i].payload_len),
                            slice_of(b->deletes[i].payload, b->deletes[i].payload_len));
    return equal;
}

static void store(struct place *place, const struct manifest *manifest) {
    struct error_detail detail = {0};
    assert_int_equal(manifest_store(place->io, place->dir, manifest, &detail), STATUS_OK);
}

static void expect(struct place *place, const struct manifest *want) {
    struct error_detail detail = {0};
    struct manifest have;
    if (manifest_load(place->io, place->dir, &detail, &have) != STATUS_OK)
        fail_msg("%s", detail.text);
    assert_true(same(&have, want));
    manifest_release(&have);
}

static size_t bytes_read(const struct place *place, uint8_t **out) {
    FILE *file = fopen(place->path, "rb");
    assert_non_null(file);
    *out = malloc(1 << 20);
    assert_non_null(*out);
    size_t len = fread(*out, 1, 1 << 20, file);
    fclose(file);
    return len;
}

static void bytes_write(const struct place *place, const uint8_t *bytes, size_t len) {
    FILE *file = fopen(place->path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    fclose(file);
}

static int load_status(struct place *place, const struct manifest *want) {
    struct error_detail detail = {0};
    struct manifest have;
    int status = manifest_load(place->io, place->dir, &detail, &have);
    if (status == STATUS_OK) {
        assert_true(same(&have, want));
        manifest_release(&have);
    } else {
        assert_non_null(strstr(detail.text, "/manifest"));
    }
    return status;
}

static void test_round_trip(void **state) {
    (void)state;
    struct place place;
    struct manifest manifest, copy, other;
    struct error_detail detail = {0};
    place_open(&place);
    assert_int_equal(manifest_load(place.io, place.dir, &detail, &other), STATUS_NOT_FOUND);
    manifest_init(&manifest);
    store(&place, &manifest);
    expect(&place, &manifest);
    static const size_t sizes[][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {3, 2, 4}, {700, 60, 300}, {0, 0, 0}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        make(&manifest, i, sizes[i][0], sizes[i][1], sizes[i][2]);
        store(&place, &manifest);
        expect(&place, &manifest);
        assert_int_equal(manifest_copy(&manifest, &copy), STATUS_OK);
        assert_true(same(&manifest, &copy));
        if (copy.block_count > 0) {
            size_t before = copy.block_count;
            manifest_block_remove(&copy, copy.blocks[before / 2].id);
            assert_int_equal(copy.block_count, before - 1);
        }
        manifest_deletes_clear(&copy);
        assert_int_equal(copy.delete_count, 0);
        manifest_release(&copy);
        manifest_release(&manifest);
    }
    assert_int_equal(access(place.path, F_OK), 0);
    place_close(&place);
}

static void test_covered(void **state) {
    (void)state;
    struct manifest manifest;
    manifest_init(&manifest);
    const struct manifest_covered ranges[] = {{0, 10, 100}, {10, 20, 50}, {INT64_MIN, 0, 7}};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(manifest_covered_add(&manifest, &ranges[i]), STATUS_OK);
    assert_true(manifest_covers(&manifest, 0, 99));
    assert_false(manifest_covers(&manifest, 0, 100));
    assert_true(manifest_covers(&manifest, 9, 50));
    assert_false(manifest_covers(&manifest, 10, 50));
    assert_true(manifest_covers(&manifest, 19, 49));
    assert_false(manifest_covers(&manifest, 20, 0));
    assert_true(manifest_covers(&manifest, INT64_MIN, 6));
    manifest_covered_prune(&manifest, 50);
    assert_int_equal(manifest.covered_count, 1);
    assert_false(manifest_covers(&manifest, 10, 0));
    assert_true(manifest_covers(&manifest, 1, 60));
    /* what a snapshot of that position holds is covered, however short the log has become */
    const struct manifest_covered covered = {20, 30, 200};
    const struct manifest_snapshot snapshot = {.number = 1, .position = 200};
    assert_int_equal(manifest_covered_add(&manifest, &covered), STATUS_OK);
    manifest_snapshot_add(&manifest, &snapshot);
    manifest_covered_prune(&manifest, 1000);
    assert_true(manifest_covers(&manifest, 20, 199));
    const struct manifest_snapshot later = {.number = 2, .position = 201};
    manifest_snapshot_add(&manifest, &later);
    manifest_snapshot_add(&manifest, &later);
    manifest_covered_prune(&manifest, 1000);
    assert_false(manifest_covers(&manifest, 20, 199));
    manifest_release(&manifest);
}

/* One damaged copy costs nothing; which bytes count is seen from both sides: with the other copy gone each
 * that is summed is needed. */
static void test_flips(void **state) {
    (void)state;
    struct place place;
    struct manifest manifest;
    uint8_t *bytes;
    place_open(&place);
    make(&manifest, 1, 3, 2, 2);
    store(&place, &manifest);
    size_t len = bytes_read(&place, &bytes), half = len / 2;
    assert_true(len % 8192 == 0);
    assert_memory_equal(bytes, bytes + half, half);
    for (size_t at = 0; at < len; at++) {
        uint8_t bit = (uint8_t)(1 << (at % 8));
        bytes[at] ^= bit;
        bytes_write(&place, bytes, len);
        assert_int_equal(load_status(&place, &manifest), STATUS_OK);
        bytes[at] ^= bit;
    }
    size_t body_end = 32 + (size_t)load_u64(bytes + 16);
    uint8_t *zeros = calloc(1, half);
    for (int which = 0; which < 2; which++) {
        uint8_t *alone = malloc(len);
        memcpy(alone, bytes, len);
        memcpy(alone + (which == 0 ? half : 0), zeros, half);
        bytes_write(&place, alone, len);
        assert_int_equal(load_status(&place, &manifest), STATUS_OK);
        for (size_t at = 0; at < half; at++) {
            size_t byte = at + (which == 0 ? 0 : half);
            alone[byte] ^= (uint8_t)(1 << (at % 8));
            bytes_write(&place, alone, len);
            int status = load_status(&place, &manifest);
            assert_int_equal(status, at < body_end ? STATUS_CORRUPT : STATUS_OK);
            alone[byte] ^= (uint8_t)(1 << (at % 8));
        }
        free(alone);
    }
    free(zeros);
    free(bytes);
    manifest_release(&manifest);
    place_close(&place);
}

static void test_lengths(void **state) {
    (void)state;
    struct place place;
    struct manifest manifest;
    uint8_t *bytes;
    place_open(&place);
    make(&manifest, 2, 3, 2, 2);
    store(&place, &manifest);
    size_t len = bytes_read(&place, &bytes), body_end = 32 + (size_t)load_u64(bytes + 16);
    for (size_t cut = 0; cut <= len; cut += cut < body_end + 8 ? 1 : 97) {
        bytes_write(&place, bytes, cut);
        assert_int_equal(load_status(&place, &manifest), cut < body_end ? STATUS_CORRUPT : STATUS_OK);
    }
    free(bytes);
    manifest_release(&manifest);
    place_close(&place);
}

static void reseal(uint8_t *copy) {
    store_u32(copy + 12, crc32c(crc32c(0, copy, 12), copy + 16, 16 + (size_t)load_u64(copy + 16)));
}

/* With a right checksum: another version, and bodies that do not add up. */
static void test_written_wrong(void **state) {
    (void)state;
    struct place place;
    struct manifest manifest;
    uint8_t *bytes;
    place_open(&place);
    make(&manifest, 3, 2, 2, 2);
    store(&place, &manifest);
    size_t len = bytes_read(&place, &bytes), half = len / 2;
    uint8_t *changed = malloc(len);
    assert_non_null(changed);
    memcpy(changed, bytes, len);
    for (int copy = 0; copy < 2; copy++) {
        store_u32(changed + (size_t)copy * half + 8, 2);
        reseal(changed + (size_t)copy * half);
    }
    bytes_write(&place, changed, len);
    assert_int_equal(load_status(&place, &manifest), STATUS_NEWER_FORMAT);
    /* Counts and lengths of the body: at 24 blocks, 32 covered, 40 deletes, 48 their bytes. */
    for (size_t field = 32 + 24; field <= 32 + 48; field += 8)
        for (int bit = 0; bit < 64; bit++) {
            memcpy(changed, bytes, len);
            for (int copy = 0; copy < 2; copy++) {
                uint8_t *at = changed + (size_t)copy * half;
                store_u64(at + field, load_u64(at + field) ^ (uint64_t)1 << bit);
                reseal(at);
            }
            bytes_write(&place, changed, len);
            assert_int_equal(load_status(&place, &manifest), STATUS_CORRUPT);
        }
    free(changed);
    free(bytes);
    manifest_release(&manifest);
    place_close(&place);
}

/* Whatever fails while one takes the place of another: one of the two counts. */
static void test_faults(void **state) {
    (void)state;
    struct place place;
    struct manifest first, second;
    place_open(&place);
    make(&first, 4, 3, 2, 3);
    make(&second, 5, 4, 1, 2);
    for (int kind = 0; kind < FAULT_KIND_COUNT; kind++)
        for (int repeat = 0; repeat < 2; repeat++) {
            struct fault_sweep sweep = {.kind = (enum fault_kind)kind, .repeat = repeat == 1};
            FAULT_SWEEP(&sweep) {
                struct error_detail detail = {0};
                struct manifest have;
                store(&place, &first);
                fault_arm(&sweep, place.io);
                int status = manifest_store(place.io, place.dir, &second, &detail);
                fault_disarm(&sweep, place.io);
                assert_true(status == STATUS_OK || strlen(detail.text) > 0);
                assert_int_equal(manifest_load(place.io, place.dir, &detail, &have), STATUS_OK);
                assert_true(same(&have, &second) || (status < 0 && same(&have, &first)));
                manifest_release(&have);
            }
            assert_true(sweep.runs > 1 || kind == FAULT_KIND_IO_SHORT);
            sweep = (struct fault_sweep){.kind = (enum fault_kind)kind, .repeat = repeat == 1};
            store(&place, &first);
            FAULT_SWEEP(&sweep) {
                struct error_detail detail = {0};
                struct manifest have, copy;
                fault_arm(&sweep, place.io);
                int status = manifest_load(place.io, place.dir, &detail, &have);
                int copied = status == STATUS_OK ? manifest_copy(&have, &copy) : status;
                fault_disarm(&sweep, place.io);
                assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY || status == STATUS_IO ||
                            status == STATUS_NO_SPACE);
                if (copied == STATUS_OK) {
                    assert_true(same(&copy, &first));
                    manifest_release(&copy);
                }
                if (status == STATUS_OK) {
                    assert_true(same(&have, &first));
                    manifest_release(&have);
                }
            }
        }
    manifest_release(&first);
    manifest_release(&second);
    place_close(&place);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_covered),
        cmocka_unit_test(test_flips),         cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_written_wrong), cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
