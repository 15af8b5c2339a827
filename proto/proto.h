/* proto.h: bytes of a remote-write request → a write_batch.
 *
 *     snappy block (google/snappy, format_description.txt; block format, not framed)
 *       → prometheus.WriteRequest (remote.proto; remote write 1.0)
 *         → struct write_batch (base/batch.h)
 *
 * Everything is bounded before it is allocated: the declared size of the snappy block is read first. No
 * function here blocks, keeps state or trusts a byte. */
#ifndef TIDALITE_PROTO_H
#define TIDALITE_PROTO_H

#include <stddef.h>

#include "base/arena.h"
#include "base/batch.h"
#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

/* The decoded size that a snappy block declares, into *decoded_bytes.
 * STATUS_BAD_SNAPPY if the block has no valid length, or declares more than a block of its size can make (64
 * bytes for every three); STATUS_TOO_LARGE if it declares more than `decoded_bytes_max`; `detail` says which,
 * with the number. Looks at no more than the first five bytes. */
int proto_snappy_size(struct slice block, size_t decoded_bytes_max, struct error_detail *detail,
                      size_t *decoded_bytes);

/* Decompresses the whole block into `out` (cleared first; its memory is reused between requests), bounded as
 * proto_snappy_size. STATUS_BAD_SNAPPY with the offset of the fault in `detail`, STATUS_TOO_LARGE,
 * STATUS_NO_MEMORY; on error `out` is empty. */
int proto_snappy_decode(struct slice block, size_t decoded_bytes_max, struct error_detail *detail,
                        struct buf *out);

/* Decodes a prometheus.WriteRequest into *batch: series in message order, samples in message order. Arrays
 * come from `arena`; labels borrow from `message` where it spells them as label bytes (Prometheus does), else
 * they are spelled anew in `arena`: the result is well-formed label bytes either way. Unknown fields are
 * skipped, fields may come in any order, repeated scalars: the last wins, as protobuf demands.
 * Histograms, exemplars and metadata are counted, and not decoded beyond the validity of the message
 * (write_request.c says what is valid). Takes at most 16 bytes of arena for each byte of the message, and
 * much less for real ones (40 a series of one sample); a bound on `arena` is kept. Time is linear in
 * message.len. STATUS_BAD_PROTOBUF with the byte offset in `detail`; STATUS_NO_MEMORY; STATUS_TOO_LARGE over
 * 4 GiB. *batch is written on success only; what an error leaves in the arena is garbage. */
int proto_write_request_decode(struct slice message, struct arena *arena, struct error_detail *detail,
                               struct write_batch *batch);

#endif
