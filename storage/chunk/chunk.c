/* chunk.c: the bits of a chunk; docs/format/chunk.md has the table.
 *
 * Appending collects a sample's bits in 64-bit words, makes room for them, then writes: nothing is touched
 * when memory is short. The commonest sample of all, unchanged and in step, is one zero bit, which the
 * padding of the last byte already holds: it costs a count.
 *
 * Decoding looks at the next bits with one load. Near the end of the bytes the rest is copied in front of
 * zeros, so that no load has to look where the end is; a sample that ran past it is found out by its
 * position.
 *
 * What the appender must remember of start timestamps is in the last eight bytes of the chunk's buffer, and
 * only once a start was given: a chunk without starts pays nothing. It is the first sample's start until one
 * differs, from then on the last difference written. */
#include "storage/chunk/chunk.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mutation.h"

#define WINDOW_NONE       0xff /* leading: no value window yet */
#define LEADING_MAX       31   /* five bits */
#define LAST_STALE        0x80 /* flag in trailing: the last sample was a stale marker */
#define START_FIRST       0x80 /* start_byte: the first sample has a start */
#define START_CHANGE_MASK 0x7f
#define START_STATE_BYTES 8

#define VARINT_BITS_MAX (VARINT_BYTES_MAX * 8)
#define VALUE_BITS_MAX  (3 + 11 + 64)
#define VARBIT_BITS_MAX 72
#define FIRST_BITS_MAX  (VARINT_BITS_MAX + 64 + VARINT_BITS_MAX)
#define SECOND_BITS_MAX (VARINT_BITS_MAX + VALUE_BITS_MAX + VARBIT_BITS_MAX)
#define JOINT_BITS_MAX  (5 + 64 + VALUE_BITS_MAX + VARBIT_BITS_MAX)
#define CHUNK_BITS_MAX  (FIRST_BITS_MAX + SECOND_BITS_MAX + (CHUNK_SAMPLES_MAX - 2) * JOINT_BITS_MAX)
_Static_assert(CHUNK_BITS_MAX <= UINT16_MAX, "bit_count holds the worst chunk");
_Static_assert(CHUNK_SAMPLES_MAX - 1 < START_CHANGE_MASK,
               "an index of a change fits the start byte, and is never the "
               "127 that XOR2 has a rule of its own for");

static const uint8_t varbit_len[9] = {0, 3, 6, 9, 12, 18, 25, 56, 64};

/* ---- appending ---- */

/* Bits of one sample behind those of the byte it starts in. */
struct writer {
    uint64_t words[5]; /* as they go to memory; 5 * 64 > 7 + the most bits of a sample */
    unsigned count;    /* of full words */
    uint64_t last;     /* bits of the word after them, from the top */
    unsigned last_len; /* 0 … 63 */
};
_Static_assert(7 + SECOND_BITS_MAX < 5 * 64 && SECOND_BITS_MAX >= FIRST_BITS_MAX &&
                   SECOND_BITS_MAX >= JOINT_BITS_MAX,
               "a writer holds the longest sample");

/* `bits` < 2^len, len 1 … 64. */
static inline void put(struct writer *writer, uint64_t bits, unsigned len) {
    unsigned room = 64 - writer->last_len;
    if (len < room) {
        writer->last |= bits << (room - len);
        writer->last_len += len;
        return;
    }
    unsigned rest = len - room;
    writer->words[writer->count++] = __builtin_bswap64(writer->last | bits >> rest);
    writer->last = rest == 0 ? 0 : bits << (64 - rest);
    writer->last_len = rest;
}

static void put_uvarint(struct writer *writer, uint64_t v) {
    for (; v >= 0x80; v >>= 7)
        put(writer, (v & 0x7f) | 0x80, 8);
    put(writer, v, 8);
}

static inline uint64_t low_bits(uint64_t v, unsigned n) {
    return n == 64 ? v : v & ((UINT64_C(1) << n) - 1);
}

/* Does v fit n bits? The range is −(2^(n−1)−1) … 2^(n−1), as in Prometheus. */
static inline bool varbit_fits(int64_t v, unsigned n) {
    return v >= -((INT64_C(1) << (n - 1)) - 1) && v <= INT64_C(1) << (n - 1);
}

static void put_varbit(struct writer *writer, int64_t v) {
    if (v == 0) {
        put(writer, 0, 1);
        return;
    }
    unsigned bucket = 1;
    while (bucket < 8 && !varbit_fits(v, varbit_len[bucket]))
        bucket++;
    if (bucket == 8)
        put(writer, 0xff, 8);
    else
        put(writer, ((1u << bucket) - 1) << 1, bucket + 1);
    put(writer, low_bits((uint64_t)v, varbit_len[bucket]), varbit_len[bucket]);
}

/* The XOR of a value with the baseline through the window, new if the old one is too narrow. `reuse` and
 * `renew` (three bits) are the control bits of the two cases. */
static inline void put_xor(struct writer *writer, struct chunk_open *next, uint64_t xor, uint64_t reuse,
                           unsigned reuse_len, uint64_t renew) {
    unsigned leading = (unsigned)__builtin_clzll(xor), trailing = (unsigned)__builtin_ctzll(xor);
    if (leading > LEADING_MAX)
        leading = LEADING_MAX;
    if (leading >= next->leading && trailing >= next->trailing) {
        unsigned width = 64u - next->leading - next->trailing;
        put(writer, reuse, reuse_len);
        put(writer, xor >> next->trailing, width);
        return;
    }
    unsigned width = 64 - leading - trailing;
    next->leading = (uint8_t)leading;
    next->trailing = (uint8_t)trailing;
    put(writer, renew << 11 | leading << 6 | (width & 63), 3 + 11);
    put(writer, xor >> trailing, width);
}
_Static_assert(WINDOW_NONE > LEADING_MAX, "before the first window none is wide enough to be reused");

/* V: a value behind a time that said nothing about it. */
static void put_value(struct writer *writer, struct chunk_open *next, uint64_t bits) {
    uint64_t xor = bits ^ next->baseline_bits;
    if (bits == STALE_NAN_BITS) {
        put(writer, 7, 3);
        return;
    }
    if (xor == 0)
        put(writer, 0, 1);
    else
        put_xor(writer, next, xor, 2, 2, 6);
    next->baseline_bits = bits;
}

/* Time and value of the third sample and those after it. */
static inline void put_joint(struct writer *writer, struct chunk_open *next, int64_t dod, uint64_t bits) {
    if (dod == 0) {
        uint64_t xor = bits ^ next->baseline_bits;
        if (bits == STALE_NAN_BITS) {
            put(writer, 0x1f, 5);
        } else if (xor == 0) {
            put(writer, 0, 1);
        } else {
            put_xor(writer, next, xor, 4, 3, 5); /* `10`, then N: `0` or `1` */
            next->baseline_bits = bits;
        }
        return;
    }
    if (dod >= -4096 && dod <= 4095) {
        put(writer, UINT64_C(6) << 13 | low_bits((uint64_t)dod, 13), 16);
    } else if (dod >= -524288 && dod <= 524287) {
        put(writer, UINT64_C(14) << 20 | low_bits((uint64_t)dod, 20), 24);
    } else {
        put(writer, 30, 5);
        put(writer, (uint64_t)dod, 64);
    }
    put_value(writer, next, bits);
}

static uint8_t *start_state(const struct chunk_open *chunk) {
    return chunk->bytes + chunk->capacity - START_STATE_BYTES;
}

/* The start's part of a sample of a chunk that has starts, or has its first one now. Returns the state that
 * the next call needs. */
static uint64_t put_start(struct writer *writer, struct chunk_open *next, const struct chunk_open *chunk,
                          int64_t time_ms, int64_t start_ms) {
    unsigned index = chunk->info.sample_count;
    uint8_t byte = chunk->info.start_byte;
    if (index == 0) {
        put_uvarint(writer, zigzag((int64_t)((uint64_t)time_ms - (uint64_t)start_ms)));
        next->info.start_byte = START_FIRST;
        return (uint64_t)start_ms;
    }
    uint64_t state = byte == 0 ? (uint64_t)START_NONE : load_u64(start_state(chunk));
    uint64_t difference = (uint64_t)chunk->time_ms - (uint64_t)start_ms;
    if ((byte & START_CHANGE_MASK) != 0) {
        put_varbit(writer, (int64_t)(difference - state));
        return difference;
    }
    if ((uint64_t)start_ms == state)
        return state;
    next->info.start_byte = (uint8_t)(byte | index);
    put_varbit(writer, (int64_t)difference);
    return difference;
}

/* `len` bytes to `to`, which has room for `room`: in whole words where that fits, and never byte by byte. */
static inline void words_store(uint8_t *to, size_t room, const uint64_t *words, size_t len) {
    size_t at = 0;
    for (; at < len && at + 8 <= room; at += 8)
        store_u64(to + at, words[at / 8]);
    if (at >= len)
        return;
    const uint8_t *from = (const uint8_t *)words;
    size_t rest = len - at;
    if (rest >= 4) {
        memcpy(to + at, from + at, 4);
        memcpy(to + len - 4, from + len - 4, 4);
    } else if (rest >= 2) {
        memcpy(to + at, from + at, 2);
        memcpy(to + len - 2, from + len - 2, 2);
    } else {
        to[at] = from[at];
    }
}

uint64_t chunk_last_value_bits(const struct chunk_open *chunk) {
    return (chunk->trailing & LAST_STALE) != 0 ? STALE_NAN_BITS : chunk->baseline_bits;
}

int chunk_append(struct chunk_open *chunk, struct sample sample, int64_t start_ms, chunk_grow_fn grow,
                 void *grow_context) {
    ASSERT(!chunk_is_full(chunk));
    unsigned index = chunk->info.sample_count;
    bool has_start = start_ms != START_NONE || chunk->info.start_byte != 0;
    bool stale = sample.value_bits == STALE_NAN_BITS;
    uint64_t delta = (uint64_t)sample.time_ms - (uint64_t)chunk->time_ms;
    unsigned used = chunk->bit_count & 7;
    if (index >= 2 && delta == (uint64_t)chunk->delta_ms && sample.value_bits == chunk->baseline_bits &&
        !has_start && used != 0 && !stale) {
        chunk->time_ms = sample.time_ms;
        chunk->bit_count++;
        chunk->trailing &= (uint8_t)~LAST_STALE;
        chunk->info.sample_count++;
        return STATUS_OK;
    }

    struct chunk_open next = *chunk;
    next.trailing &= (uint8_t)~LAST_STALE;
    struct writer writer;
    writer.count = 0;
    writer.last = used == 0 ? 0 : (uint64_t)chunk->bytes[chunk->bit_count >> 3] << 56;
    writer.last_len = used;
    if (index >= 2) {
        put_joint(&writer, &next, (int64_t)(delta - (uint64_t)chunk->delta_ms), sample.value_bits);
    } else if (index == 1) {
        put_uvarint(&writer, delta);
        put_value(&writer, &next, sample.value_bits);
    } else {
        delta = 0;
        next.leading = WINDOW_NONE;
        put_uvarint(&writer, zigzag(sample.time_ms));
        put(&writer, sample.value_bits, 64);
        next.baseline_bits = stale ? 0 : sample.value_bits;
    }
    uint64_t state = has_start ? put_start(&writer, &next, chunk, sample.time_ms, start_ms) : 0;

    size_t at = chunk->bit_count >> 3;
    size_t bits = writer.count * 64 + writer.last_len;
    size_t len = (bits + 7) / 8;
    size_t reserved = has_start ? START_STATE_BYTES : 0;
    if (__builtin_expect(at + len + reserved > chunk->capacity, 0)) {
        size_t capacity;
        uint8_t *bytes = grow(grow_context, chunk->bytes, chunk->capacity, chunk_bytes(chunk).len,
                              at + len + reserved, &capacity);
        if (bytes == NULL)
            return STATUS_NO_MEMORY;
        ASSERT(capacity >= at + len + reserved && capacity <= UINT16_MAX);
        next.bytes = bytes;
        next.capacity = (uint16_t)capacity;
    }
    writer.words[writer.count] = __builtin_bswap64(writer.last);
    words_store(next.bytes + at, next.capacity - reserved - at, writer.words, len);
    if (has_start)
        store_u64(start_state(&next), state);
    next.bit_count = (uint16_t)(at * 8 + bits);
    next.delta_ms = (int64_t)delta;
    next.time_ms = sample.time_ms;
    if (stale)
        next.trailing |= LAST_STALE;
    next.info.sample_count++;
    *chunk = next;
    return STATUS_OK;
}

struct slice chunk_bytes(const struct chunk_open *chunk) {
    return slice_of(chunk->bytes, ((size_t)chunk->bit_count + 7) / 8);
}

/* ---- reading ---- */

/* A sample that starts at a bit position reads no byte further than this from it. */
#define SAMPLE_BYTES_MAX 48
_Static_assert((7 + SECOND_BITS_MAX) / 8 + 16 <= SAMPLE_BYTES_MAX,
               "the longest sample and the loads of its last bits");

/* Small, and its address goes nowhere that is not inlined: in the loop over samples it lives in registers. */
struct reader {
    const uint8_t *bytes;
    size_t at;    /* bits */
    size_t limit; /* bits: while at <= limit the next sample may be read without looking at the end */
    uint64_t baseline_bits; /* what the next value is XORed with */
    uint64_t window_mask;   /* the window's width, as bits from the top */
    unsigned window_width;  /* WINDOW_NONE before there is one */
    unsigned window_leading;
};

/* The whole input and, once the reader has come there, its end in front of zeros. */
struct ending {
    struct slice input;
    size_t base; /* bits of the input before tail[0] */
    bool reached;
    uint8_t tail[2 * SAMPLE_BYTES_MAX];
};

static __attribute__((noinline)) struct reader reader_to_tail(struct reader reader, struct ending *ending) {
    size_t skip = reader.at >> 3;
    size_t rest = ending->input.len - skip;
    ASSERT(!ending->reached && rest <= SAMPLE_BYTES_MAX);
    if (rest > 0)
        memcpy(ending->tail, ending->input.data + skip, rest);
    memset(ending->tail + rest, 0, SAMPLE_BYTES_MAX);
    ending->base = skip * 8;
    ending->reached = true;
    reader.bytes = ending->tail;
    reader.at &= 7;
    reader.limit = rest * 8;
    return reader;
}

/* To be asked before each sample: false when the one before ran past the end. */
static inline bool reader_ready(struct reader *reader, struct ending *ending) {
    if (__builtin_expect(reader->at <= reader->limit, 1))
        return true;
    if (ending->reached)
        return MUTATED(BELIEVE_CHUNK_LEN);
    *reader = reader_to_tail(*reader, ending);
    return true;
}

static struct reader reader_make(struct slice input, struct ending *ending) {
    struct reader reader = {.bytes = input.data, .window_width = WINDOW_NONE};
    ending->input = input;
    ending->base = 0;
    ending->reached = false;
    if (input.len <= SAMPLE_BYTES_MAX)
        return reader_to_tail(reader, ending);
    reader.limit = (input.len - SAMPLE_BYTES_MAX) * 8;
    return reader;
}

#define PEEK_BITS 57

/* The next bits from the top; the first PEEK_BITS of them are sure to be there. */
static inline uint64_t peek(const struct reader *reader) {
    return __builtin_bswap64(load_u64(reader->bytes + (reader->at >> 3))) << (reader->at & 7);
}

static inline uint64_t peek_64(const struct reader *reader) {
    const uint8_t *p = reader->bytes + (reader->at >> 3);
    unsigned used = reader->at & 7;
    return __builtin_bswap64(load_u64(p)) << used | (uint64_t)p[8] >> (8 - used);
}

static inline uint64_t take(struct reader *reader, unsigned len) {
    uint64_t word = peek_64(reader);
    reader->at += len;
    return word >> (64 - len);
}

static bool take_uvarint(struct reader *reader, uint64_t *v) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint64_t byte = take(reader, 8);
        if (shift == 63 && byte > 1)
            return false;
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *v = value;
            return true;
        }
    }
    return false;
}

static uint64_t take_varbit(struct reader *reader) {
    unsigned bucket = (unsigned)__builtin_clzll(~peek(reader) | UINT64_C(1) << 55);
    reader->at += bucket == 8 ? 8 : bucket + 1;
    unsigned len = varbit_len[bucket];
    if (len == 0)
        return 0;
    uint64_t bits = take(reader, len);
    if (len < 64 && bits > UINT64_C(1) << (len - 1))
        bits -= UINT64_C(1) << len;
    return bits;
}

/* A new baseline from an XOR. `word` are the bits from its control bits on, which are `control` many. False
 * if there is no window to reuse, or a new one is wider than a value. */
static inline __attribute__((always_inline)) bool take_xor(struct reader *reader, uint64_t word,
                                                           unsigned control, bool renew) {
    if (renew) {
        unsigned leading = (unsigned)(word << control >> 59);
        unsigned width = (unsigned)(word << (control + 5) >> 58);
        width = width == 0 ? 64 : width;
        if (leading + width > 64)
            return false;
        reader->window_width = width;
        reader->window_leading = leading;
        reader->window_mask = ~UINT64_C(0) << (64 - width);
        control += 11;
    }
    reader->at += control;
    uint64_t xor = word << control;
    if (__builtin_expect(control + reader->window_width > PEEK_BITS, 0)) {
        if (reader->window_width == WINDOW_NONE)
            return false;
        xor = peek_64(reader);
    }
    reader->baseline_bits ^= (xor&reader->window_mask) >> reader->window_leading;
    reader->at += reader->window_width;
    return true;
}

/* V. False where the bits are not a value. */
static inline __attribute__((always_inline)) bool take_value(struct reader *reader, uint64_t *bits) {
    uint64_t word = peek(reader);
    unsigned control = (unsigned)(word >> 61);
    if (control < 4) {
        reader->at += 1;
    } else if (control == 7) {
        reader->at += 3;
        *bits = STALE_NAN_BITS;
        return true;
    } else if (!take_xor(reader, word, control == 6 ? 3 : 2, control == 6)) {
        return false;
    }
    *bits = reader->baseline_bits;
    return true;
}

/* Time and value of the third sample and those after it; `word` is peek(). */
static inline __attribute__((always_inline)) bool take_joint(struct reader *reader, uint64_t word,
                                                             uint64_t *delta, uint64_t *bits) {
    if (word >> 62 < 2) {
        reader->at += 1;
    } else if (word >> 62 == 2) {
        if (!take_xor(reader, word, 3, (word >> 61 & 1) != 0))
            return false;
    } else if (word >> 59 == 31) {
        reader->at += 5;
        *bits = STALE_NAN_BITS;
        return true;
    } else {
        if (word >> 61 == 6) {
            *delta += (uint64_t)((int64_t)(word << 3) >> 51);
            reader->at += 16;
        } else if (word >> 60 == 14) {
            *delta += (uint64_t)((int64_t)(word << 4) >> 44);
            reader->at += 24;
        } else {
            reader->at += 5;
            *delta += take(reader, 64);
        }
        return take_value(reader, bits);
    }
    *bits = reader->baseline_bits;
    return true;
}

/* Where samples go, if their time is in the window: always written, counted only then. Columns have room for
 * all. */
struct sink {
    int64_t *times_ms;
    double *values;
    int64_t *starts_ms;
    size_t count;
    uint64_t time_min;
    uint64_t time_span;
};

static inline void sink_put(struct sink *sink, uint64_t time, uint64_t bits) {
    sink->times_ms[sink->count] = (int64_t)time;
    sink->values[sink->count] = bits_double(bits);
    sink->count += time - sink->time_min <= sink->time_span;
}

/* Samples 2 and on of a chunk whose starts do not change before `end`. */
static bool joint_run(struct reader *reader_in_out, struct ending *ending, struct sink *sink_in_out,
                      unsigned index, unsigned end, uint64_t *time_in_out, uint64_t *delta_in_out) {
    struct reader reader = *reader_in_out;
    struct sink sink = *sink_in_out;
    uint64_t time = *time_in_out, delta = *delta_in_out;
    while (index < end) {
        if (!reader_ready(&reader, ending))
            return false;
        uint64_t word = peek(&reader);
        if (word >> 63 == 0) {
            /* As many unchanged samples as there are zero bits. */
            unsigned run = (unsigned)__builtin_clzll(word | UINT64_C(1) << (63 - PEEK_BITS));
            run = run < end - index ? run : end - index;
            reader.at += run;
            index += run;
            for (; run > 0; run--) {
                time += delta;
                sink_put(&sink, time, reader.baseline_bits);
            }
            continue;
        }
        uint64_t bits;
        if (!take_joint(&reader, word, &delta, &bits))
            return false;
        time += delta;
        sink_put(&sink, time, bits);
        index++;
    }
    *reader_in_out = reader;
    *sink_in_out = sink;
    *time_in_out = time;
    *delta_in_out = delta;
    return true;
}

static bool chunk_read(struct reader *reader, struct ending *ending, struct chunk_info info,
                       struct sink *sink) {
    unsigned count = info.sample_count, change = info.start_byte & START_CHANGE_MASK;
    if (count == 0)
        return true;
    uint64_t time, delta = 0, bits, v;
    uint64_t start = (uint64_t)START_NONE, difference = 0;
    if (!take_uvarint(reader, &v))
        return false;
    time = (uint64_t)unzigzag(v);
    bits = take(reader, 64);
    reader->baseline_bits = bits == STALE_NAN_BITS ? 0 : bits;
    if ((info.start_byte & START_FIRST) != 0) {
        if (!take_uvarint(reader, &v))
            return false;
        start = time - (uint64_t)unzigzag(v);
    }
    size_t before = sink->count;
    sink_put(sink, time, bits);

    unsigned same_end =
        change == 0 || change > count ? count : change; /* up to here all have the first start */
    unsigned index = 1;
    for (; index < count && index < 2 && index < same_end; index++) {
        if (!reader_ready(reader, ending) || !take_uvarint(reader, &delta) || !take_value(reader, &bits))
            return false;
        time += delta;
        sink_put(sink, time, bits);
    }
    if (index == 2 && index < same_end) {
        if (!joint_run(reader, ending, sink, index, same_end, &time, &delta))
            return false;
        index = same_end;
    }
    for (size_t i = before; i < sink->count; i++)
        sink->starts_ms[i] = (int64_t)start;

    for (; index < count; index++) {
        uint64_t time_before = time;
        if (!reader_ready(reader, ending))
            return false;
        if (index == 1 ? !take_uvarint(reader, &delta) || !take_value(reader, &bits)
                       : !take_joint(reader, peek(reader), &delta, &bits))
            return false;
        time += delta;
        difference += take_varbit(reader);
        sink->starts_ms[sink->count] = (int64_t)(time_before - difference);
        sink_put(sink, time, bits);
    }
    return true;
}

int chunk_decode(struct slice bytes, struct chunk_info info, int64_t time_min_ms, int64_t time_max_ms,
                 struct sample_columns *columns) {
    int status = sample_columns_reserve(columns, info.sample_count);
    if (status < 0)
        return status;
    struct ending ending;
    struct reader reader = reader_make(bytes, &ending);
    struct sink sink = {.times_ms = columns->times_ms,
                        .values = columns->values,
                        .starts_ms = columns->starts_ms,
                        .count = columns->count,
                        .time_min = (uint64_t)time_min_ms,
                        .time_span = (uint64_t)time_max_ms - (uint64_t)time_min_ms};
    if (!chunk_read(&reader, &ending, info, &sink) || (ending.base + reader.at + 7) / 8 != bytes.len)
        return STATUS_CORRUPT;
    if (time_min_ms > time_max_ms)
        return STATUS_OK;
    columns->count = sink.count;
    if (info.start_byte != 0)
        columns->has_starts = 1;
    return STATUS_OK;
}
