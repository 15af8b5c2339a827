#include "tests/unit/proto/generate.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "base/rand.h"
#include "base/slice.h"

#define FIELDS_MAX 128

enum type { REQUEST, SERIES, LABEL, SAMPLE, EXEMPLAR, HISTOGRAM, SPAN, METADATA };

struct generator {
    struct rand rand;
    enum spelling spelling;
};

/* The fields of one message, apart, so that they can be shuffled before they are joined. */
struct fields {
    struct buf list[FIELDS_MAX];
    size_t count;
};

static bool odd(struct generator *g, uint64_t one_in) {
    return g->spelling == SPELLING_ODD && rand_below(&g->rand, one_in) == 0;
}

/* bytes_max: the longest spelling that protobuf-c takes (5 for tags and lengths). */
static void put_varint(struct generator *g, struct buf *out, uint64_t v, size_t bytes_max) {
    uint8_t bytes[VARINT_BYTES_MAX];
    size_t len = (size_t)(varint_write(bytes, v) - bytes);
    if (len < bytes_max && odd(g, 12)) {
        size_t padded = len + 1 + (size_t)rand_below(&g->rand, bytes_max - len);
        bytes[len - 1] |= 0x80;
        for (; len < padded; len++)
            bytes[len] = len + 1 < padded ? 0x80 : 0;
    }
    buf_append(out, bytes, len);
}

static void put_tag(struct generator *g, struct buf *out, uint32_t number, uint32_t wire) {
    put_varint(g, out, (uint64_t)number << 3 | wire, 5);
}

static void put_bytes(struct generator *g, struct buf *out, uint32_t number, struct slice bytes) {
    put_tag(g, out, number, 2);
    put_varint(g, out, bytes.len, 5);
    buf_append(out, bytes.data, bytes.len);
}

static struct buf *field_add(struct fields *fields) {
    ASSERT(fields->count < FIELDS_MAX);
    struct buf *field = &fields->list[fields->count++];
    buf_init(field);
    return field;
}

static void add_varint(struct generator *g, struct fields *fields, uint32_t number, uint64_t v) {
    struct buf *field = field_add(fields);
    put_tag(g, field, number, 0);
    put_varint(g, field, v, VARINT_BYTES_MAX);
}

static void add_double(struct generator *g, struct fields *fields, uint32_t number, uint64_t bits) {
    struct buf *field = field_add(fields);
    uint8_t bytes[8];
    store_u64(bytes, bits);
    put_tag(g, field, number, 1);
    buf_append(field, bytes, 8);
}

static void add_unknown(struct generator *g, struct fields *fields) {
    static const uint8_t wires[] = {0, 1, 2, 5};
    static const uint32_t numbers[] = {17, 18, 31, 100, 2047, 2048, 1 << 20, (1u << 29) - 1};
    struct buf *field = field_add(fields);
    uint32_t wire = wires[rand_below(&g->rand, sizeof wires)];
    uint32_t number = numbers[rand_below(&g->rand, sizeof numbers / sizeof *numbers)];
    uint8_t bytes[40];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)rand_u64(&g->rand);
    if (wire == 2) {
        put_bytes(g, field, number, slice_of(bytes, (size_t)rand_below(&g->rand, sizeof bytes)));
        return;
    }
    put_tag(g, field, number, wire);
    if (wire == 0)
        put_varint(g, field, rand_u64(&g->rand), VARINT_BYTES_MAX);
    else
        buf_append(field, bytes, wire == 1 ? 8 : 4);
}

static void text_generate(struct generator *g, struct buf *out) {
    static const uint64_t lengths[] = {1, 4, 10, 10, 20, 20, 20, 130, 300};
    uint64_t len = rand_below(&g->rand, lengths[rand_below(&g->rand, sizeof lengths / sizeof *lengths)] + 1);
    if (rand_below(&g->rand, 2000) == 0)
        len = 17000;
    for (uint64_t i = 0; i < len; i++)
        buf_append_byte(out, rand_below(&g->rand, 50) == 0 ? (uint8_t)rand_u64(&g->rand)
                                                           : (uint8_t)('a' + rand_below(&g->rand, 26)));
}

/* Text fields are left out when empty, if the spelling is odd; else they stand there, empty. */
static void add_text(struct generator *g, struct fields *fields, uint32_t number) {
    struct buf text;
    buf_init(&text);
    if (!odd(g, 6))
        text_generate(g, &text);
    if (text.len > 0 || g->spelling == SPELLING_PLAIN || odd(g, 2))
        put_bytes(g, field_add(fields), number, buf_slice(&text));
    buf_release(&text);
}

static uint64_t bits_generate(struct generator *g) {
    static const uint64_t special[] = {0,
                                       UINT64_C(1) << 63,
                                       1,
                                       UINT64_C(0x7ff0000000000002),
                                       UINT64_C(0x7ff8000000000001),
                                       UINT64_C(0x7ff0000000000000),
                                       UINT64_C(0xfff0000000000000)};
    if (rand_below(&g->rand, 3) == 0)
        return special[rand_below(&g->rand, sizeof special / sizeof *special)];
    return rand_below(&g->rand, 2) == 0 ? double_bits((double)rand_below(&g->rand, 100000))
                                        : rand_u64(&g->rand);
}

static uint64_t time_generate(struct generator *g) {
    static const uint64_t special[] = {0,
                                       1,
                                       127,
                                       128,
                                       UINT64_MAX,
                                       INT64_MAX,
                                       (uint64_t)INT64_MIN,
                                       (UINT64_C(1) << 35) - 1,
                                       UINT64_C(1) << 35,
                                       (UINT64_C(1) << 42) - 1,
                                       UINT64_C(1) << 42};
    if (rand_below(&g->rand, 6) == 0)
        return special[rand_below(&g->rand, sizeof special / sizeof *special)];
    return UINT64_C(1700000000000) + rand_below(&g->rand, UINT64_C(100000000000));
}

static void message_generate(struct generator *g, enum type type, struct buf *out);

static void add_messages(struct generator *g, struct fields *fields, uint32_t number, enum type type,
                         uint64_t count_max) {
    for (uint64_t i = rand_below(&g->rand, count_max + 1); i > 0; i--) {
        struct buf inner;
        buf_init(&inner);
        message_generate(g, type, &inner);
        put_bytes(g, field_add(fields), number, buf_slice(&inner));
        buf_release(&inner);
    }
}

/* Repeated numbers: packed, or one by one. */
static void add_numbers(struct generator *g, struct fields *fields, uint32_t number, bool doubles) {
    struct buf packed;
    buf_init(&packed);
    for (uint64_t i = rand_below(&g->rand, 5); i > 0; i--) {
        uint64_t v = bits_generate(g);
        if (odd(g, 2)) {
            if (doubles)
                add_double(g, fields, number, v);
            else
                add_varint(g, fields, number, v);
        } else if (doubles) {
            uint8_t bytes[8];
            store_u64(bytes, v);
            buf_append(&packed, bytes, 8);
        } else {
            put_varint(g, &packed, v, VARINT_BYTES_MAX);
        }
    }
    put_bytes(g, field_add(fields), number, buf_slice(&packed));
    buf_release(&packed);
}

static void fields_generate(struct generator *g, enum type type, struct fields *fields) {
    switch (type) {
    case REQUEST:
        add_messages(g, fields, 1, SERIES, rand_below(&g->rand, 8) == 0 ? 40 : 6);
        if (rand_below(&g->rand, 6) == 0)
            add_messages(g, fields, 3, METADATA, 3);
        if (odd(g, 20))
            add_varint(g, fields, 2, rand_u64(&g->rand));
        break;
    case SERIES:
        add_messages(g, fields, 1, LABEL, 10);
        add_messages(g, fields, 2, SAMPLE, rand_below(&g->rand, 4) == 0 ? 20 : 1);
        if (rand_below(&g->rand, 8) == 0)
            add_messages(g, fields, 3, EXEMPLAR, 2);
        if (rand_below(&g->rand, 8) == 0)
            add_messages(g, fields, 4, HISTOGRAM, 2);
        break;
    case LABEL:
        add_text(g, fields, 1);
        add_text(g, fields, 2);
        break;
    case SAMPLE:
    case EXEMPLAR: {
        uint32_t first = type == SAMPLE ? 1 : 2;
        if (type == EXEMPLAR)
            add_messages(g, fields, 1, LABEL, 3);
        uint64_t bits = bits_generate(g), time = time_generate(g);
        if (bits != 0 || odd(g, 2))
            add_double(g, fields, first, bits);
        if (time != 0 || odd(g, 2))
            add_varint(g, fields, first + 1, time);
        break;
    }
    case HISTOGRAM:
        if (rand_below(&g->rand, 2) == 0)
            add_varint(g, fields, 1, rand_u64(&g->rand));
        else
            add_double(g, fields, 2, bits_generate(g));
        add_double(g, fields, 3, bits_generate(g));
        add_varint(g, fields, 4, rand_below(&g->rand, 20));
        add_double(g, fields, 5, bits_generate(g));
        add_messages(g, fields, 8, SPAN, 2);
        add_numbers(g, fields, 9, false);
        add_numbers(g, fields, 10, true);
        add_messages(g, fields, 11, SPAN, 2);
        add_numbers(g, fields, 12, false);
        add_numbers(g, fields, 13, true);
        add_varint(g, fields, 14, rand_below(&g->rand, 4));
        add_varint(g, fields, 15, time_generate(g));
        add_numbers(g, fields, 16, true);
        break;
    case SPAN:
        add_varint(g, fields, 1, rand_below(&g->rand, 100));
        add_varint(g, fields, 2, rand_below(&g->rand, 100));
        break;
    case METADATA:
        add_varint(g, fields, 1, rand_below(&g->rand, 9));
        add_text(g, fields, 2);
        add_text(g, fields, 4);
        add_text(g, fields, 5);
        break;
    }
}

static void message_generate(struct generator *g, enum type type, struct buf *out) {
    struct fields *fields = mem_zalloc(sizeof *fields);
    ASSERT(fields != NULL);
    fields_generate(g, type, fields);
    /* Scalars given twice; of what may be repeated it makes more. */
    if (fields->count < FIELDS_MAX / 4 && odd(g, 10))
        fields_generate(g, type, fields);
    if (fields->count < FIELDS_MAX && odd(g, 6))
        add_unknown(g, fields);
    if (fields->count > 1 && odd(g, 4)) {
        for (size_t i = fields->count - 1; i > 0; i--) {
            size_t j = (size_t)rand_below(&g->rand, i + 1);
            struct buf swap = fields->list[i];
            fields->list[i] = fields->list[j];
            fields->list[j] = swap;
        }
    }
    for (size_t i = 0; i < fields->count; i++) {
        buf_append(out, fields->list[i].data, fields->list[i].len);
        buf_release(&fields->list[i]);
    }
    mem_free(fields);
}

void write_request_generate(uint64_t seed, enum spelling spelling, struct buf *out) {
    struct generator g = {.spelling = spelling};
    rand_init(&g.rand, seed);
    message_generate(&g, REQUEST, out);
    ASSERT(!out->failed);
}

void bytes_mutate(uint64_t seed, struct buf *message) {
    struct rand rand;
    rand_init(&rand, seed);
    for (uint64_t i = 1 + rand_below(&rand, 3); i > 0 && message->len > 0; i--) {
        size_t at = (size_t)rand_below(&rand, message->len);
        size_t run = (size_t)rand_below(&rand, message->len - at);
        run = run > 12 ? 12 : run;
        switch (rand_below(&rand, 7)) {
        case 0:
            message->data[at] ^= (uint8_t)(1u << rand_below(&rand, 8));
            break;
        case 1:
            message->data[at] = (uint8_t)rand_u64(&rand);
            break;
        case 2:
            message->data[at] = (uint8_t)rand_below(&rand, 0x1b);
            break;
        case 3: /* remove a run */
            memmove(message->data + at, message->data + at + run, message->len - at - run);
            message->len -= run;
            break;
        case 4: /* double a run */
            if (buf_reserve(message, run) != NULL) {
                memmove(message->data + at + run, message->data + at, message->len - at);
                message->len += run;
            }
            break;
        case 5: /* one more byte */
            if (buf_reserve(message, 1) != NULL) {
                memmove(message->data + at + 1, message->data + at, message->len - at);
                message->data[at] = (uint8_t)(rand_below(&rand, 2) == 0 ? 0x80 : rand_u64(&rand));
                message->len++;
            }
            break;
        case 6: /* cut off */
            if (rand_below(&rand, 4) == 0)
                message->len = at;
            break;
        }
    }
}
