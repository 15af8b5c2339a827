/* snapshot_format.h: the kinds of frames in the files of a snapshot, and their fixed parts; byte tables:
 * docs/format/snapshot.md. */
#ifndef TIDALITE_STORAGE_SNAPSHOT_FORMAT_H
#define TIDALITE_STORAGE_SNAPSHOT_FORMAT_H

/* Frames of the label part. */
#define SNAPSHOT_FRAME_LABELS 1u

/* What is defined in it: a tag, and varints. */
#define LABELS_PAIR      1u /* number, length, label bytes */
#define LABELS_PAIR_FREE 2u /* number */
#define LABELS_SLOT      3u /* slot, id, how many, pair numbers */
#define LABELS_SLOT_FREE 4u /* slot */

/* Frames of the snapshot: slices in the order of slots, the table of the chunk log, the end. */
#define SNAPSHOT_FRAME_SLICE    2u
#define SNAPSHOT_FRAME_CHUNKLOG 3u
#define SNAPSHOT_FRAME_END      4u

#define SNAPSHOT_SLICE_SLOTS 8192u /* of a slice */
#define SNAPSHOT_SLICE_HEAD  16u   /* position u64, first slot u32, zero u32; then the series, one by one: */
#define SNAPSHOT_SERIES_HEAD 13u   /* slot u32, id u64, u8: */
#define SNAPSHOT_HAS_HEAD    1u    /* head_state_write's bytes */
#define SNAPSHOT_HAS_LATE    2u    /* u32 how many; each time u64, value u64, start u64 */
#define SNAPSHOT_HAS_HIDDEN  4u    /* u32 how many; each min i64, max i64: what deletes hide of the head */
#define SNAPSHOT_LATE_BYTES  24u
#define SNAPSHOT_SPAN_BYTES  16u

/* position u64, cut i64, late position u64, id u64, slot end u32, windows u32; each begin i64, position u64
 */
#define SNAPSHOT_END_BYTES    40u
#define SNAPSHOT_WINDOW_BYTES 16u

#endif
