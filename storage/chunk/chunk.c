/* chunk.c: the bits of a chunk; docs/format/chunk.md has the table.
 *
 * Appending spells a sample as a few pieces of up to 64 bits, makes room for their sum, then writes: nothing
 * is touched when memory is short. Decoding looks at the next 64 bits at a time; a read past the end sees
 * zeros and is found out by the position afterwards.
 *
 * The appender's memory of start timestamps (the last one, and the last difference written) is in the last 16
 * bytes of the chunk's buffer, and only once a start was given: a chunk without starts pays nothing. */
#include "storage/chunk/chunk.h"

#include "base/assert.h"
#include "base/bytes.h"

#define WINDOW_NONE       0xff /* leading: no value window yet */
#define LEADING_MAX       31   /* five bits */
#define TRAILING_MASK     0x3f
#define LAST_STALE        0x80 /* flag in trailing: the last sample was a stale marker */
#define START_FIRST       0x80 /* start_byte: the first sample has a start */
#define START_CHANGE_MASK 0x7f
#define START_STATE_BYTES 16
#define PIECES_MAX        16
#define SAMPLE_BITS_MAX   (80 + 64 + 80 + 72)
_Static_assert(CHUNK_SAMPLES_MAX *SAMPLE_BITS_MAX <= UINT16_MAX, "bit_count holds the worst chunk");
_Static_assert(CHUNK_SAMPLES_MAX <= START_CHANGE_MASK, "an index of a change fits the start byte");

struct pieces {
    uint64_t bits[PIECES_MAX];
    uint8_t len[PIECES_MAX];
    unsigned count;
    unsigned total;
};

static inline void put(struct pieces *pieces, uint64_t bits, unsigned len) {
    pieces->bits[pieces->count] = bits;
    pieces->len[pieces->count++] = (uint8_t)len;
    pieces->total += len;
}

/* A LEB128 varint as whole bytes, at most eight a piece. */
static void put_uvarint(struct pieces *pieces, uint64_t v) {
    uint8_t bytes[VARINT_BYTES_MAX];
    size_t len = (size_t)(varint_write(bytes, v) - bytes);
    uint64_t bits = 0;
    unsigned count = 0;
    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | bytes[i];
        if (++count == 8 || i + 1 == len) {
            put(pieces, bits, count * 8);
            bits = 0;
            count = 0;
        }
    }
}

/* Does v fit n bits? The range is −(2^(n−1)−1) … 2^(n−1), as in Prometheus. */
static inline bool fits(int64_t v, unsigned n) {
    return v >= -((INT64_C(1) << (n - 1)) - 1) && v <= INT64_C(1) << (n - 1);
}

static inline uint64_t low_bits(uint64_t v, unsigned n) {
    return n == 64 ? v : v & ((UINT64_C(1) << n) - 1);
}

static const uint8_t varbit_len[9] = {0, 3, 6, 9, 12, 18, 25, 56, 64};

static void put_varbit(struct pieces *pieces, int64_t v) {
    unsigned bucket = 0;
    if (v != 0)
        for (bucket = 1; bucket < 8 && !fits(v, varbit_len[bucket]); bucket++)
            ;
    if (bucket == 8)
        put(pieces, 0xff, 8);
    else
        put(pieces, ((1u << bucket) - 1) << 1, bucket + 1);
    if (bucket > 0)
        put(pieces, low_bits((uint64_t)v, varbit_len[bucket]), varbit_len[bucket]);
}

/* The XOR of a value with the baseline through the window, new if the old one is too narrow. `reuse` and
 * `renew` are the control bits of the two cases. */
static void put_xor(struct pieces *pieces, struct chunk_open *next, uint64_t xor, uint64_t reuse,
                    unsigned reuse_len, uint64_t renew, unsigned renew_len) {
    unsigned leading = (unsigned)__builtin_clzll(xor), trailing = (unsigned)__builtin_ctzll(xor);
    if (leading > LEADING_MAX)
        leading = LEADING_MAX;
    if (next->leading != WINDOW_NONE && leading >= next->leading && trailing >= next->trailing) {
        put(pieces, reuse, reuse_len);
        put(pieces, xor >> next->trailing, 64u - next->leading - next->trailing);
        return;
    }
    unsigned width = 64 - leading - trailing;
    next->leading = (uint8_t)leading;
    next->trailing = (uint8_t)trailing;
    put(pieces, renew << 11 | leading << 6 | (width & 63), renew_len + 11);
    put(pieces, xor >> trailing, width);
}

/* V: a value behind a time that said nothing about it. */
static void put_value(struct pieces *pieces, struct chunk_open *next, uint64_t bits) {
    uint64_t xor = bits ^ next->baseline_bits;
    if (bits == STALE_NAN_BITS) {
        put(pieces, 7, 3);
        return;
    }
    if (xor == 0)
        put(pieces, 0, 1);
    else
        put_xor(pieces, next, xor, 2, 2, 6, 3);
    next->baseline_bits = bits;
}

static void put_joint(struct pieces *pieces, struct chunk_open *next, int64_t dod, uint64_t bits) {
    if (dod == 0) {
        uint64_t xor = bits ^ next->baseline_bits;
        if (bits == STALE_NAN_BITS) {
            put(pieces, 0x1f, 5);
        } else if (xor == 0) {
            put(pieces, 0, 1);
        } else {
            put_xor(pieces, next, xor, 2 << 1, 3, (2 << 1) | 1, 3); /* `10`, then N: `0` or `1` */
            next->baseline_bits = bits;
        }
        return;
    }
    if (dod >= -4096 && dod <= 4095) {
        put(pieces, UINT64_C(6) << 13 | low_bits((uint64_t)dod, 13), 16);
    } else if (dod >= -524288 && dod <= 524287) {
        put(pieces, UINT64_C(14) << 20 | low_bits((uint64_t)dod, 20), 24);
    } else {
        put(pieces, 30, 5);
        put(pieces, (uint64_t)dod, 64);
    }
    put_value(pieces, next, bits);
}

static uint8_t *start_state(const struct chunk_open *chunk) {
    return chunk->bytes + chunk->capacity - START_STATE_BYTES;
}

/* The start timestamp's part, and what must be remembered. Returns whether the chunk uses starts from now on.
 */
static bool put_start(struct pieces *pieces, struct chunk_open *next, const struct chunk_open *chunk,
                      int64_t time_ms, int64_t start_ms, int64_t state[2]) {
    unsigned index = chunk->info.sample_count;
    uint8_t byte = chunk->info.start_byte;
    if (byte == 0 && start_ms == START_NONE)
        return false;
    if (index == 0) {
        put_uvarint(pieces, zigzag((int64_t)((uint64_t)time_ms - (uint64_t)start_ms)));
        next->info.start_byte = START_FIRST;
        state[0] = start_ms;
        state[1] = 0;
        return true;
    }
    int64_t last_start = START_NONE, last_difference = 0;
    if (byte != 0) {
        last_start = (int64_t)load_u64(start_state(chunk));
        last_difference = (int64_t)load_u64(start_state(chunk) + 8);
    }
    int64_t difference = (int64_t)((uint64_t)chunk->time_ms - (uint64_t)start_ms);
    if ((byte & START_CHANGE_MASK) != 0) {
        put_varbit(pieces, (int64_t)((uint64_t)difference - (uint64_t)last_difference));
    } else if (start_ms != last_start) {
        next->info.start_byte = (uint8_t)(byte | index);
        put_varbit(pieces, difference);
    }
    state[0] = start_ms;
    state[1] = difference;
    return true;
}

/* Writes the low `len` bits at bit position `at`; bits behind the position may hold anything. */
static void bits_write(uint8_t *bytes, size_t at, uint64_t bits, unsigned len) {
    uint8_t *p = bytes + (at >> 3);
    unsigned used = at & 7;
    bits = len == 64 ? bits : bits << (64 - len);
    unsigned first = used == 0 ? 0 : *p & (0xff00u >> used) & 0xff;
    uint64_t high = bits >> used;
    *p++ = (uint8_t)(first | (unsigned)(high >> 56));
    unsigned written = 8 - used;
    uint64_t rest = bits << written;
    for (; written < len; written += 8) {
        *p++ = (uint8_t)(rest >> 56);
        rest <<= 8;
    }
}

uint64_t chunk_last_value_bits(const struct chunk_open *chunk) {
    return (chunk->trailing & LAST_STALE) != 0 ? STALE_NAN_BITS : chunk->baseline_bits;
}

int chunk_append(struct chunk_open *chunk, struct sample sample, int64_t start_ms, chunk_grow_fn grow,
                 void *grow_context) {
    ASSERT(!chunk_is_full(chunk));
    struct pieces pieces;
    pieces.count = 0;
    pieces.total = 0;
    struct chunk_open next = *chunk;
    next.trailing &= TRAILING_MASK;
    int64_t state[2];
    uint64_t delta = (uint64_t)sample.time_ms - (uint64_t)chunk->time_ms;
    if (chunk->info.sample_count == 0) {
        next.leading = WINDOW_NONE;
        put_uvarint(&pieces, zigzag(sample.time_ms));
        put(&pieces, sample.value_bits, 64);
        next.baseline_bits = sample.value_bits == STALE_NAN_BITS ? 0 : sample.value_bits;
        delta = 0;
    } else if (chunk->info.sample_count == 1) {
        put_uvarint(&pieces, delta);
        put_value(&pieces, &next, sample.value_bits);
    } else {
        put_joint(&pieces, &next, (int64_t)(delta - (uint64_t)chunk->delta_ms), sample.value_bits);
    }
    bool has_start = put_start(&pieces, &next, chunk, sample.time_ms, start_ms, state);

    size_t used = ((size_t)chunk->bit_count + 7) / 8;
    size_t need = ((size_t)chunk->bit_count + pieces.total + 7) / 8 + (has_start ? START_STATE_BYTES : 0);
    if (need > chunk->capacity) {
        size_t capacity;
        uint8_t *bytes = grow(grow_context, chunk->bytes, chunk->capacity, used, need, &capacity);
        if (bytes == NULL)
            return STATUS_NO_MEMORY;
        ASSERT(capacity >= need && capacity <= UINT16_MAX);
        next.bytes = bytes;
        next.capacity = (uint16_t)capacity;
    }
    size_t at = next.bit_count;
    for (unsigned i = 0; i < pieces.count; i++) {
        bits_write(next.bytes, at, pieces.bits[i], pieces.len[i]);
        at += pieces.len[i];
    }
    if (has_start) {
        store_u64(start_state(&next), (uint64_t)state[0]);
        store_u64(start_state(&next) + 8, (uint64_t)state[1]);
    }
    next.bit_count = (uint16_t)at;
    next.delta_ms = (int64_t)delta;
    next.time_ms = sample.time_ms;
    if (sample.value_bits == STALE_NAN_BITS)
        next.trailing |= LAST_STALE;
    next.info.sample_count++;
    *chunk = next;
    return STATUS_OK;
}

struct slice chunk_bytes(const struct chunk_open *chunk) {
    return slice_of(chunk->bytes, ((size_t)chunk->bit_count + 7) / 8);
}

/* ---- reading ---- */

struct reader {
    const uint8_t *bytes;
    size_t len;
    size_t at; /* bits */
};

/* The next 64 bits, zeros behind the end. */
static inline uint64_t peek(const struct reader *reader) {
    size_t byte = reader->at >> 3;
    unsigned used = reader->at & 7;
    if (__builtin_expect(byte + 9 <= reader->len, 1)) {
        uint64_t word = __builtin_bswap64(load_u64(reader->bytes + byte));
        return used == 0 ? word : word << used | (uint64_t)reader->bytes[byte + 8] >> (8 - used);
    }
    uint64_t word = 0;
    unsigned last = 0;
    for (size_t i = 0; i < 9; i++) {
        unsigned v = byte + i < reader->len ? reader->bytes[byte + i] : 0;
        if (i < 8)
            word = word << 8 | v;
        else
            last = v;
    }
    return used == 0 ? word : word << used | last >> (8 - used);
}

static inline uint64_t take(struct reader *reader, unsigned len) {
    uint64_t bits = peek(reader);
    reader->at += len;
    return len == 0 ? 0 : bits >> (64 - len);
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

static int64_t take_varbit(struct reader *reader) {
    uint64_t ones = (uint64_t)__builtin_clzll(~peek(reader) | (UINT64_C(1) << 55));
    unsigned bucket = ones > 8 ? 8 : (unsigned)ones;
    reader->at += bucket == 8 ? 8 : bucket + 1;
    unsigned len = varbit_len[bucket];
    if (len == 0)
        return 0;
    uint64_t bits = take(reader, len);
    if (len < 64 && bits > UINT64_C(1) << (len - 1))
        bits -= UINT64_C(1) << len;
    return (int64_t)bits;
}

struct value_state {
    uint64_t baseline_bits;
    unsigned leading;
    unsigned trailing;
    bool has_window;
};

/* The bits of an XOR, after its control bits. Returns false where there is no window to reuse. */
static inline bool take_xor(struct reader *reader, struct value_state *state, bool renew) {
    if (renew) {
        unsigned window = (unsigned)take(reader, 11);
        unsigned width = window & 63;
        if (width == 0)
            width = 64;
        state->leading = window >> 6;
        if (state->leading + width > 64)
            return false;
        state->trailing = 64 - state->leading - width;
        state->has_window = true;
    } else if (!state->has_window) {
        return false;
    }
    unsigned width = 64 - state->leading - state->trailing;
    state->baseline_bits ^= take(reader, width) << state->trailing;
    return true;
}

static inline bool take_value(struct reader *reader, struct value_state *state, uint64_t *bits) {
    uint64_t control = peek(reader) >> 61;
    if (control < 4) {
        reader->at += 1;
    } else if (control == 7) {
        reader->at += 3;
        *bits = STALE_NAN_BITS;
        return true;
    } else {
        reader->at += control == 6 ? 3 : 2;
        if (!take_xor(reader, state, control == 6))
            return false;
    }
    *bits = state->baseline_bits;
    return true;
}

/* Time and value of the third sample and those after it. */
static inline bool take_joint(struct reader *reader, struct value_state *state, uint64_t *delta,
                              uint64_t *bits) {
    uint64_t word = peek(reader);
    if (word >> 63 == 0) {
        reader->at += 1;
        *bits = state->baseline_bits;
        return true;
    }
    if (word >> 62 == 2) {
        reader->at += 3;
        if (!take_xor(reader, state, (word >> 61 & 1) != 0))
            return false;
        *bits = state->baseline_bits;
        return true;
    }
    if (word >> 61 == 6) {
        *delta += (uint64_t)((int64_t)(word << 3) >> 51);
        reader->at += 16;
    } else if (word >> 60 == 14) {
        *delta += (uint64_t)((int64_t)(word << 4) >> 44);
        reader->at += 24;
    } else if (word >> 59 == 30) {
        reader->at += 5;
        *delta += take(reader, 64);
    } else {
        reader->at += 5;
        *bits = STALE_NAN_BITS;
        return true;
    }
    return take_value(reader, state, bits);
}

/* The start of sample `index`; `difference` carries the last one written. */
static int64_t take_start(struct reader *reader, uint8_t byte, unsigned index, uint64_t previous_time,
                          int64_t start_ms, uint64_t *difference) {
    unsigned change = byte & START_CHANGE_MASK;
    if (change == 0 || index < change)
        return start_ms;
    uint64_t v = (uint64_t)take_varbit(reader);
    *difference = index == change ? v : *difference + v;
    return (int64_t)(previous_time - *difference);
}

int chunk_decode(struct slice bytes, struct chunk_info info, int64_t time_min_ms, int64_t time_max_ms,
                 struct sample_columns *columns) {
    size_t count_before = columns->count;
    int has_starts_before = columns->has_starts;
    int status = sample_columns_reserve(columns, info.sample_count);
    if (status < 0)
        return status;
    struct reader reader = {bytes.data, bytes.len, 0};
    struct value_state state = {0};
    uint64_t time = 0, delta = 0, bits = 0, difference = 0;
    int64_t start_ms = START_NONE;
    size_t count = count_before;
    if (info.start_byte != 0)
        columns->has_starts = 1;
    for (unsigned index = 0; index < info.sample_count; index++) {
        uint64_t previous_time = time;
        if (__builtin_expect(index >= 2, 1)) {
            if (!take_joint(&reader, &state, &delta, &bits))
                goto corrupt;
            time += delta;
        } else if (index == 0) {
            uint64_t v;
            if (!take_uvarint(&reader, &v))
                goto corrupt;
            time = (uint64_t)unzigzag(v);
            bits = take(&reader, 64);
            state.baseline_bits = bits == STALE_NAN_BITS ? 0 : bits;
            if ((info.start_byte & START_FIRST) != 0) {
                if (!take_uvarint(&reader, &v))
                    goto corrupt;
                start_ms = (int64_t)(time - (uint64_t)unzigzag(v));
            }
        } else {
            if (!take_uvarint(&reader, &delta))
                goto corrupt;
            time += delta;
            if (!take_value(&reader, &state, &bits))
                goto corrupt;
        }
        if (info.start_byte != 0 && index > 0)
            start_ms = take_start(&reader, info.start_byte, index, previous_time, start_ms, &difference);
        if (reader.at > reader.len * 8)
            goto corrupt;
        if ((int64_t)time >= time_min_ms && (int64_t)time <= time_max_ms) {
            columns->times_ms[count] = (int64_t)time;
            columns->values[count] = bits_double(bits);
            columns->starts_ms[count] = start_ms;
            count++;
        }
    }
    if ((reader.at + 7) / 8 != bytes.len)
        goto corrupt;
    columns->count = count;
    return STATUS_OK;
corrupt:
    columns->has_starts = has_starts_before;
    return STATUS_CORRUPT;
}
