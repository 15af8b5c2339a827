/* fuzz_seeds: writes the first corpora for fuzz_write_request and fuzz_snappy, always the same.
 *
 *     fuzz_seeds DIR      → DIR/fuzz_write_request/NN, DIR/fuzz_snappy/NN (the directories exist) */
#include <snappy-c.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "tests/unit/proto/generate.h"

#define SEEDS          48
#define SEED_BYTES_MAX 1500 /* a fuzzer learns more from small ones */

static void file_write(const char *dir, const char *name, unsigned number, struct slice bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/%02u", dir, name, number);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes.data, 1, bytes.len, file) != bytes.len || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_seeds DIR\n");
        return 2;
    }
    struct buf message;
    buf_init(&message);
    unsigned written = 0;
    for (uint64_t seed = 1; written < SEEDS; seed++) {
        buf_clear(&message);
        write_request_generate(seed, seed % 2 == 0 ? SPELLING_PLAIN : SPELLING_ODD, &message);
        if (message.len == 0 || message.len > SEED_BYTES_MAX)
            continue;
        file_write(argv[1], "fuzz_write_request", written, buf_slice(&message));
        size_t len = snappy_max_compressed_length(message.len);
        uint8_t *block = mem_alloc(len);
        if (block == NULL ||
            snappy_compress((const char *)message.data, message.len, (char *)block, &len) != SNAPPY_OK)
            return 1;
        file_write(argv[1], "fuzz_snappy", written, slice_of(block, len));
        mem_free(block);
        written++;
    }
    buf_release(&message);
    return 0;
}
