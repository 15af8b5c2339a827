/* fuzz_snappy: any bytes as a snappy block, and as the data of one.
 * Held against the library used directly: the same blocks are valid, with the same size and bytes; where a
 * block is refused, the walk over its elements finds the reason; whatever was compressed comes back. */
#include <snappy-c.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "proto/proto.h"
#include "proto/proto_private.h"

#define DECODED_MAX ((size_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Noreturn void finding(const char *what, const char *detail) {
    fprintf(stderr, "finding: %s (%s)\n", what, detail);
    abort();
}

static void check_block(struct slice block, struct buf *out) {
    struct error_detail detail = {0};
    size_t declared = 0, ours = 0, offset;
    bool has_length = snappy_uncompressed_length((const char *)block.data, block.len, &declared) == SNAPPY_OK;
    int size_status = proto_snappy_size(block, SIZE_MAX, &detail, &ours);
    bool length_refused = strstr(detail.text, "no valid length") != NULL;
    if (length_refused == has_length)
        finding("a length that only one of us takes", detail.text);
    if (size_status == STATUS_OK && declared != ours)
        finding("another length", "");

    struct error_detail decode_detail = {0};
    int status = proto_snappy_decode(block, DECODED_MAX, &decode_detail, out);
    uint8_t *made = has_length && declared <= DECODED_MAX ? mem_alloc(declared) : NULL;
    size_t made_len = declared;
    bool valid = made != NULL &&
                 snappy_uncompress((const char *)block.data, block.len, (char *)made, &made_len) == SNAPPY_OK;
    if (valid != (status == STATUS_OK))
        finding("the library does not agree", decode_detail.text);
    if (valid && !slice_equal(buf_slice(out), slice_of(made, made_len)))
        finding("other bytes", "");
    if (!valid && (out->len != 0 || strstr(decode_detail.text, "snappy: ") != decode_detail.text))
        finding("an error that does not say why", decode_detail.text);
    if (status != STATUS_TOO_LARGE && (snappy_fault_find(block, &offset) == NULL) != valid)
        finding("the walk does not agree", decode_detail.text);
    mem_free(made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct buf out;
    buf_init(&out);
    check_block(slice_of(data, size), &out);

    size_t len = snappy_max_compressed_length(size);
    uint8_t *block = mem_alloc(len);
    if (block != NULL && snappy_compress((const char *)data, size, (char *)block, &len) == SNAPPY_OK) {
        if (proto_snappy_decode(slice_of(block, len), DECODED_MAX, NULL, &out) != STATUS_OK ||
            !slice_equal(buf_slice(&out), slice_of(data, size)))
            finding("the data does not come back", "");
    }
    mem_free(block);
    buf_release(&out);
    return 0;
}
