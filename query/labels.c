/* labels.c: label sets: reading, changing, printing, and the table that numbers them. */
#include <stdlib.h>

#include "base/bytes.h"
#include "query/eval.h"

struct slice labels_get(const struct label *labels, size_t count, struct slice name) {
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(labels[i].name, name))
            return labels[i].value;
    }
    return slice_of(NULL, 0);
}

int labels_compare(const struct label *a, size_t a_count, const struct label *b, size_t b_count) {
    size_t count = a_count < b_count ? a_count : b_count;
    for (size_t i = 0; i < count; i++) {
        int order = slice_compare(a[i].name, b[i].name);
        if (order == 0)
            order = slice_compare(a[i].value, b[i].value);
        if (order != 0)
            return order;
    }
    return (a_count > b_count) - (a_count < b_count);
}

bool labels_equal(const struct label *a, size_t a_count, const struct label *b, size_t b_count) {
    return a_count == b_count && labels_compare(a, a_count, b, b_count) == 0;
}

void labels_drop_name(struct eval_series *series) {
    size_t kept = 0;
    for (size_t i = 0; i < series->label_count; i++) {
        struct slice name = series->labels[i].name;
        bool reserved = name.len == 8 && name.data[0] == '_' &&
                        (memcmp(name.data, "__name__", 8) == 0 || memcmp(name.data, "__type__", 8) == 0 ||
                         memcmp(name.data, "__unit__", 8) == 0);
        if (!reserved)
            series->labels[kept++] = series->labels[i];
    }
    series->label_count = kept;
}

void labels_print_braces(struct buf *buf, const struct label *labels, size_t count) {
    buf_append_byte(buf, '{');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_append_str(buf, ", ");
        label_print(buf, &labels[i]);
    }
    buf_append_byte(buf, '}');
}

void labels_set(struct label *labels, size_t *count, struct slice name, struct slice value) {
    size_t at = 0;
    while (at < *count && slice_compare(labels[at].name, name) < 0)
        at++;
    bool found = at < *count && slice_equal(labels[at].name, name);
    if (value.len == 0) {
        if (found) {
            memmove(labels + at, labels + at + 1, (*count - at - 1) * sizeof *labels);
            (*count)--;
        }
        return;
    }
    if (!found) {
        memmove(labels + at + 1, labels + at, (*count - at) * sizeof *labels);
        (*count)++;
        labels[at].name = name;
    }
    labels[at].value = value;
}

/* Far apart in a long list, halving the rest of it is quicker than walking. */
#define NAMES_WALK_MAX 32

bool names_have(const struct slice *names, size_t count, size_t *at, struct slice name) {
    if (count - *at > NAMES_WALK_MAX) {
        size_t low = *at, high = count;
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if (slice_compare(names[middle], name) < 0)
                low = middle + 1;
            else
                high = middle;
        }
        *at = low;
        return low < count && slice_equal(names[low], name);
    }
    int order = 1;
    while (*at < count && (order = slice_compare(names[*at], name)) < 0)
        (*at)++;
    return *at < count && order == 0;
}

size_t labels_select(const struct label *labels, size_t count, const struct slice *names, size_t name_count,
                     bool keep, struct label *out) {
    size_t n = 0, at = 0;
    for (size_t i = 0; i < count; i++) {
        bool listed = names_have(names, name_count, &at, labels[i].name);
        if (keep ? listed : !listed && !slice_equal(labels[i].name, NAME_LABEL))
            out[n++] = labels[i];
    }
    return n;
}

bool names_stay_unique(const struct slice *names, size_t count, bool without) {
    for (size_t i = 0; !without && i < count; i++) {
        if (names[i].len == 8 && names[i].data[0] == '_')
            return false; /* perhaps a name that goes */
    }
    return true;
}

static int compare_names(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

int names_sort(struct eval *eval, const struct slice *names, size_t count, struct slice **out,
               size_t *count_out) {
    struct slice *sorted = eval_alloc(eval, (count + 1) * sizeof *sorted);
    if (sorted == NULL)
        return eval_no_room(eval);
    if (count > 0) {
        memcpy(sorted, names, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, compare_names);
    }
    size_t unique = 0;
    for (size_t i = 0; i < count; i++) {
        if (unique == 0 || !slice_equal(sorted[unique - 1], sorted[i]))
            sorted[unique++] = sorted[i];
    }
    *out = sorted;
    *count_out = unique;
    return STATUS_OK;
}

int labels_keep(struct eval *eval, const struct label *labels, size_t count, struct label **out) {
    /* One more, for labels_set. */
    struct label *copy = eval_alloc(eval, (count + 1) * sizeof *copy);
    if (copy == NULL)
        return eval_no_room(eval);
    if (count > 0)
        memcpy(copy, labels, count * sizeof *copy);
    *out = copy;
    return STATUS_OK;
}

static uint64_t fold(uint64_t a, uint64_t b) {
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t bytes_hash(uint64_t hash, struct slice s) {
    const uint8_t *p = s.data;
    size_t len = s.len;
    hash ^= fold(len + UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xd6e8feb86659fd93));
    for (; len >= 8; len -= 8, p += 8)
        hash = fold(hash ^ load_u64(p), UINT64_C(0xa0761d6478bd642f));
    if (len > 0) {
        uint64_t tail = 0;
        memcpy(&tail, p, len);
        hash = fold(hash ^ tail, UINT64_C(0xe7037ed1a0b428db));
    }
    return hash;
}

static uint64_t labels_hash(uint64_t seed, const struct label *labels, size_t count) {
    uint64_t hash = seed ^ count;
    for (size_t i = 0; i < count; i++)
        hash = bytes_hash(bytes_hash(hash, labels[i].name), labels[i].value);
    return fold(hash ^ seed, UINT64_C(0x8ebc6af09c88c6e3));
}

/* ---- XXH64 (Yann Collet's specification, doc/xxhash_spec.md) ------------------------------------------ */

#define XXH_PRIME_1 UINT64_C(0x9E3779B185EBCA87)
#define XXH_PRIME_2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define XXH_PRIME_3 UINT64_C(0x165667B19E3779F9)
#define XXH_PRIME_4 UINT64_C(0x85EBCA77C2B2AE63)
#define XXH_PRIME_5 UINT64_C(0x27D4EB2F165667C5)

static uint64_t rotate(uint64_t v, unsigned by) {
    return (v << by) | (v >> (64 - by));
}

static uint64_t xxh_round(uint64_t lane, uint64_t input) {
    return rotate(lane + input * XXH_PRIME_2, 31) * XXH_PRIME_1;
}

/* In pieces: 32 bytes at a time fill four lanes. */
struct xxh64 {
    uint64_t lanes[4];
    uint64_t total;
    uint8_t pending[32];
    size_t pending_len;
};

static void xxh64_init(struct xxh64 *state) {
    *state = (struct xxh64){.lanes = {XXH_PRIME_1 + XXH_PRIME_2, XXH_PRIME_2, 0, UINT64_C(0) - XXH_PRIME_1}};
}

static void xxh64_add(struct xxh64 *state, const void *data, size_t len) {
    const uint8_t *p = data;
    state->total += len;
    for (size_t i = 0; i < len; i++) {
        state->pending[state->pending_len++] = p[i];
        if (state->pending_len == sizeof state->pending) {
            for (size_t k = 0; k < 4; k++)
                state->lanes[k] = xxh_round(state->lanes[k], load_u64(state->pending + k * 8));
            state->pending_len = 0;
        }
    }
}

static uint64_t xxh64_end(const struct xxh64 *state) {
    const uint64_t *lanes = state->lanes;
    uint64_t hash = XXH_PRIME_5;
    if (state->total >= 32) {
        hash = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
        for (size_t k = 0; k < 4; k++)
            hash = (hash ^ xxh_round(0, lanes[k])) * XXH_PRIME_1 + XXH_PRIME_4;
    }
    hash += state->total;
    const uint8_t *p = state->pending, *end = p + state->pending_len;
    for (; end - p >= 8; p += 8)
        hash = rotate(hash ^ xxh_round(0, load_u64(p)), 27) * XXH_PRIME_1 + XXH_PRIME_4;
    if (end - p >= 4) {
        hash = rotate(hash ^ (uint64_t)load_u32(p) * XXH_PRIME_1, 23) * XXH_PRIME_2 + XXH_PRIME_3;
        p += 4;
    }
    for (; p < end; p++)
        hash = rotate(hash ^ *p * XXH_PRIME_5, 11) * XXH_PRIME_1;
    hash = (hash ^ (hash >> 33)) * XXH_PRIME_2;
    hash = (hash ^ (hash >> 29)) * XXH_PRIME_3;
    return hash ^ (hash >> 32);
}

/* Each string as Prometheus keeps it: its length in one byte, or 255 and three bytes, then its bytes. */
static void xxh64_add_string(struct xxh64 *state, struct slice s) {
    uint8_t size[4] = {(uint8_t)s.len};
    size_t size_len = 1;
    if (s.len >= 255) {
        size[0] = 255;
        size[1] = (uint8_t)s.len;
        size[2] = (uint8_t)(s.len >> 8);
        size[3] = (uint8_t)(s.len >> 16);
        size_len = 4;
    }
    xxh64_add(state, size, size_len);
    xxh64_add(state, s.data, s.len);
}

uint64_t labels_hash_stable(const struct label *labels, size_t count) {
    struct xxh64 state;
    xxh64_init(&state);
    for (size_t i = 0; i < count; i++) {
        xxh64_add_string(&state, labels[i].name);
        xxh64_add_string(&state, labels[i].value);
    }
    return xxh64_end(&state);
}

/* ---- Label tables ---------------------------------------------------------------------------------------
 */

static size_t slot_find(const struct label_table *table, uint64_t hash, const struct label *labels,
                        size_t count) {
    size_t slot = (size_t)hash & (table->slot_count - 1);
    for (; table->slots[slot] != 0; slot = (slot + 1) & (table->slot_count - 1)) {
        const struct label_set *set = &table->sets[table->slots[slot] - 1];
        if (set->hash == hash && labels_equal(set->labels, set->label_count, labels, count))
            break;
    }
    return slot;
}

int label_table_find(struct eval *eval, struct label_table *table, const struct label *labels, size_t count,
                     size_t *index_out, bool *added_out) {
    if ((table->count + 1) * 2 > table->slot_count) {
        size_t slot_count = table->slot_count == 0 ? 16 : table->slot_count * 2;
        uint32_t *slots = eval_alloc(eval, slot_count * sizeof *slots);
        if (slots == NULL)
            return eval_no_room(eval);
        for (size_t i = 0; i < table->count; i++) {
            size_t slot = (size_t)table->sets[i].hash & (slot_count - 1);
            while (slots[slot] != 0)
                slot = (slot + 1) & (slot_count - 1);
            slots[slot] = (uint32_t)i + 1;
        }
        table->slots = slots;
        table->slot_count = slot_count;
    }
    uint64_t hash = labels_hash(eval->seed, labels, count);
    size_t slot = slot_find(table, hash, labels, count);
    if (table->slots[slot] != 0) {
        *index_out = table->slots[slot] - 1;
        *added_out = false;
        return STATUS_OK;
    }
    struct label_set *sets = eval_push(eval, table->sets, table->count, sizeof *sets);
    if (sets == NULL)
        return eval_no_room(eval);
    table->sets = sets;
    struct label *kept = NULL;
    int status = labels_keep(eval, labels, count, &kept);
    if (status < 0)
        return status;
    sets[table->count] = (struct label_set){hash, kept, count};
    table->slots[slot] = (uint32_t)table->count + 1;
    *index_out = table->count++;
    *added_out = true;
    return STATUS_OK;
}

size_t label_table_get(const struct eval *eval, const struct label_table *table, const struct label *labels,
                       size_t count) {
    if (table->count == 0)
        return SIZE_MAX;
    size_t slot = slot_find(table, labels_hash(eval->seed, labels, count), labels, count);
    return table->slots[slot] == 0 ? SIZE_MAX : table->slots[slot] - 1;
}
