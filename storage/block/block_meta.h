/* block_meta.h: meta.json. For storage/block alone. */
#ifndef TIDALITE_STORAGE_BLOCK_META_H
#define TIDALITE_STORAGE_BLOCK_META_H

#include "storage/block/block.h"

#define BLOCK__META_FORMAT    1
#define BLOCK__META_BYTES_MAX ((uint64_t)65536)

void block__meta_print(struct buf *buf, const struct block_meta *meta);

/* STATUS_OK, STATUS_CORRUPT, STATUS_NEWER_FORMAT, STATUS_NO_MEMORY; *out gets new sources (mem_free). Accepts
 * exactly what block__meta_print writes. *format_out is set with STATUS_NEWER_FORMAT: which one. */
int block__meta_parse(struct slice text, struct block_meta *out, uint64_t *format_out);

#endif
