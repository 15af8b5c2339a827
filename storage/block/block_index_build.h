/* block_index_build.h: makes an index out of series that come in order: into a scratch LMDB environment, and
 * from there as a clean copy, byte by byte. For storage/block alone. */
#ifndef TIDALITE_STORAGE_BLOCK_INDEX_BUILD_H
#define TIDALITE_STORAGE_BLOCK_INDEX_BUILD_H

#include "storage/block/block_index_format.h"
#include "storage/block/block_native.h"

struct block__index_builder;

/* `dir` says where scratch files may be. */
int block__index_builder_open(struct io *io, const char *dir, uint64_t salt, struct error_detail *detail,
                              struct block__index_builder **out);

/* NULL is fine. */
void block__index_builder_close(struct block__index_builder *builder);

/* The next series; ordinals ascend, holes are fine. Some milliseconds now and then. */
int block__index_builder_add(struct block__index_builder *builder, const struct block__run *run,
                             const struct block_chunk_ref *refs, size_t count, struct error_detail *detail);

/* Finishes, a slice of some milliseconds a call: STATUS_OK, then STATUS_END: all is in the environment. */
int block__index_builder_step(struct block__index_builder *builder, struct error_detail *detail);

/* After STATUS_END: the scratch environment's descriptor, for reading the index in place; the caller closes
 * it. The builder can only be closed then. */
int block__index_builder_detach(struct block__index_builder *builder);

/* After STATUS_END: a clean copy of the index, front to back. *got_out < len only at the end; then all is
 * well, or an error is returned. Blocks for the copying thread, which is always about to write. */
int block__index_builder_read(struct block__index_builder *builder, uint8_t *data, size_t len,
                              size_t *got_out, struct error_detail *detail);

uint64_t block__index_builder_memory_bytes(const struct block__index_builder *builder);

/* A thread that streams a clean copy of an environment into a pipe. */
struct block__index_copy;
int block__index_copy_start(void *env, struct error_detail *detail, struct block__index_copy **out);
int block__index_copy_read(struct block__index_copy *copy, uint8_t *data, size_t len, size_t *got_out,
                           struct error_detail *detail);
void block__index_copy_close(struct block__index_copy *copy); /* NULL is fine; ends it early if need be */

/* The status for what LMDB returned. */
int block__lmdb_status(int result);

#endif
