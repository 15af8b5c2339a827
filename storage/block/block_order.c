/* block_order.c: the order of series in a block, which everything that merges or cuts relies on. */
#include "base/crc32c.h"
#include "storage/block/block.h"

unsigned block_shard(struct slice metric_name) {
    return crc32c(0, metric_name.data, metric_name.len) >> 26;
}

_Static_assert(BLOCK_SHARDS == 1 << (32 - 26), "the top bits of the checksum number the shards");

unsigned block_shard_of_labels(struct slice labels) {
    return block_shard(label_bytes_get(labels, slice_str(LABEL_NAME_METRIC)));
}

int block_series_order(struct slice a, struct slice b) {
    /* The same metric name in the same place: the same shard, whatever it is. */
    int order = slice_compare(a, b);
    if (order == 0)
        return 0;
    unsigned shard_a = block_shard_of_labels(a), shard_b = block_shard_of_labels(b);
    return shard_a != shard_b ? (shard_a > shard_b) - (shard_a < shard_b) : order;
}
