/* fuzz_write_request: any bytes as a prometheus.WriteRequest.
 * Nothing may be read outside the message (a heap copy without a byte to spare) or written outside the arena;
 * the answer is protobuf-c's (tests/unit/proto/oracle.h), also when memory is short. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/label.h"
#include "proto/proto.h"
#include "tests/unit/proto/oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Noreturn void finding(const char *what, const char *detail) {
    fprintf(stderr, "finding: %s (%s)\n", what, detail);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* libFuzzer's own copy of the input is as tight, but it is the caller's. */
    uint8_t *copy = mem_alloc(size);
    if (copy == NULL)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    struct slice message = slice_of(copy, size);

    struct arena arena;
    struct error_detail detail = {0};
    struct write_batch batch;
    arena_init(&arena, 64, 16 * size + 4096);
    int status = proto_write_request_decode(message, &arena, &detail, &batch);
    if (status != STATUS_OK && strstr(detail.text, "protobuf: byte ") != detail.text)
        finding("an error that does not say where", detail.text);
    bool compared;
    const char *fault = oracle_judge(message, status, &batch, &compared);
    if (fault != NULL)
        finding(fault, detail.text);
    arena_release(&arena);

    if (status == STATUS_OK && size > 0) {
        int status_short;
        arena_init(&arena, 64, size % 4096);
        status_short = proto_write_request_decode(message, &arena, NULL, &batch);
        if (status_short != STATUS_OK && status_short != STATUS_NO_MEMORY)
            finding("another answer with a small arena", "");
        arena_release(&arena);
    }
    mem_free(copy);
    return 0;
}
