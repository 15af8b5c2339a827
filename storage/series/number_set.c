/* number_set.c: one number, an array, or blocks of arrays and bitmaps. */
#include "storage/series/number_set.h"

#include <string.h>

#include "base/assert.h"

#define BLOCK_NUMBERS 65536u
#define BITMAP_WORDS  (BLOCK_NUMBERS / 64)
#define BITMAP_BYTES  (BITMAP_WORDS * sizeof(uint64_t))
#define FEW_FIRST     2u
#define ARRAY_FIRST   4u

struct number_block {
    uint16_t key;
    uint16_t capacity; /* of the array; 0: a bitmap */
    uint32_t count;
    union {
        uint16_t *array;
        uint64_t *bitmap;
    };
};
_Static_assert(sizeof(struct number_block) == 16, "one for each 65,536 numbers of a large set");

/* By key, ascending. Blocks may be empty. */
struct number_blocks {
    uint32_t count;
    uint32_t capacity;
    struct number_block blocks[];
};

static size_t blocks_bytes(uint32_t capacity) {
    return sizeof(struct number_blocks) + capacity * sizeof(struct number_block);
}

static uint32_t capacity_grown(uint32_t capacity, uint32_t first) {
    return capacity == 0 ? first : capacity + (capacity < 8 ? capacity : capacity / 4);
}

/* ---- searching ---- */

/* The place of the first that is not below. */
static uint32_t few_place(const uint32_t *numbers, uint32_t count, uint32_t number) {
    if (count > 0 && numbers[count - 1] < number)
        return count;
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (numbers[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint32_t array_place(const uint16_t *numbers, uint32_t count, uint16_t number) {
    if (count > 0 && numbers[count - 1] < number)
        return count;
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (numbers[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint32_t block_place(const struct number_blocks *blocks, uint16_t key) {
    if (blocks->count > 0 && blocks->blocks[blocks->count - 1].key < key)
        return blocks->count;
    uint32_t low = 0, high = blocks->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (blocks->blocks[middle].key < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct number_block *block_of(const struct number_set *set, uint16_t key) {
    uint32_t place = block_place(set->blocks, key);
    return place < set->blocks->count && set->blocks->blocks[place].key == key ? &set->blocks->blocks[place]
                                                                               : NULL;
}

static bool block_has(const struct number_block *block, uint16_t low) {
    if (block->capacity == 0)
        return (block->bitmap[low / 64] >> (low % 64) & 1) != 0;
    uint32_t place = array_place(block->array, block->count, low);
    return place < block->count && block->array[place] == low;
}

bool number_set_has(const struct number_set *set, uint32_t number) {
    if (set->form == NUMBER_SET_BLOCKS) {
        const struct number_block *block = block_of(set, (uint16_t)(number >> 16));
        return block != NULL && block_has(block, (uint16_t)number);
    }
    if (set->form == NUMBER_SET_ONE)
        return set->count == 1 && set->one == number;
    uint32_t place = few_place(set->few + 1, set->count, number);
    return place < set->count && set->few[place + 1] == number;
}

/* ---- room ---- */

static int few_reserve(struct number_set *set, struct slab *slab) {
    uint32_t capacity = set->form == NUMBER_SET_ONE ? 0 : set->few[0];
    if (set->form == NUMBER_SET_ONE ? set->count == 0 : set->count < capacity)
        return STATUS_OK;
    uint32_t larger = capacity_grown(capacity, FEW_FIRST);
    if (larger > NUMBER_SET_FEW_MAX)
        larger = NUMBER_SET_FEW_MAX;
    uint32_t *few = slab_alloc(slab, (larger + 1) * sizeof *few);
    if (few == NULL)
        return STATUS_NO_MEMORY;
    few[0] = larger;
    if (capacity == 0) {
        few[1] = set->one;
    } else {
        memcpy(few + 1, set->few + 1, set->count * sizeof *few);
        slab_free(slab, set->few, (capacity + 1) * sizeof *few);
    }
    set->few = few;
    set->form = NUMBER_SET_FEW;
    return STATUS_OK;
}

/* A block's place for one more number: an array that is full grows, or becomes a bitmap. */
static int block_reserve(struct number_block *block, struct slab *slab) {
    if (block->capacity == 0 ? block->bitmap != NULL : block->count < block->capacity)
        return STATUS_OK;
    if (block->count >= NUMBER_SET_ARRAY_MAX) {
        uint64_t *bitmap = slab_alloc(slab, BITMAP_BYTES);
        if (bitmap == NULL)
            return STATUS_NO_MEMORY;
        memset(bitmap, 0, BITMAP_BYTES);
        for (uint32_t i = 0; i < block->count; i++)
            bitmap[block->array[i] / 64] |= UINT64_C(1) << (block->array[i] % 64);
        slab_free(slab, block->array, block->capacity * sizeof *block->array);
        block->bitmap = bitmap;
        block->capacity = 0;
        return STATUS_OK;
    }
    uint32_t larger = capacity_grown(block->capacity, ARRAY_FIRST);
    if (larger > NUMBER_SET_ARRAY_MAX)
        larger = NUMBER_SET_ARRAY_MAX;
    uint16_t *array = slab_alloc(slab, larger * sizeof *array);
    if (array == NULL)
        return STATUS_NO_MEMORY;
    if (block->capacity != 0) {
        memcpy(array, block->array, block->count * sizeof *array);
        slab_free(slab, block->array, block->capacity * sizeof *array);
    }
    block->array = array;
    block->capacity = (uint16_t)larger;
    return STATUS_OK;
}

/* The block of `key`, made with room for one number if it is not there. */
static int block_ensure(struct number_blocks **blocks, struct slab *slab, uint16_t key) {
    struct number_blocks *list = *blocks;
    uint32_t place = block_place(list, key);
    if (place < list->count && list->blocks[place].key == key)
        return block_reserve(&list->blocks[place], slab);
    if (list->count == list->capacity) {
        uint32_t larger = capacity_grown(list->capacity, 1);
        struct number_blocks *grown = slab_alloc(slab, blocks_bytes(larger));
        if (grown == NULL)
            return STATUS_NO_MEMORY;
        memcpy(grown, list, blocks_bytes(list->count));
        grown->capacity = larger;
        slab_free(slab, list, blocks_bytes(list->capacity));
        *blocks = list = grown;
    }
    struct number_block block = {.key = key};
    int status = block_reserve(&block, slab);
    if (status < 0)
        return status;
    memmove(&list->blocks[place + 1], &list->blocks[place], (list->count - place) * sizeof block);
    list->blocks[place] = block;
    list->count++;
    return STATUS_OK;
}

static void block_add(struct number_block *block, uint16_t low) {
    if (block->capacity == 0) {
        block->bitmap[low / 64] |= UINT64_C(1) << (low % 64);
    } else {
        uint32_t place = array_place(block->array, block->count, low);
        memmove(&block->array[place + 1], &block->array[place], (block->count - place) * sizeof(uint16_t));
        block->array[place] = low;
    }
    block->count++;
}

static void blocks_release(struct number_blocks *blocks, struct slab *slab) {
    for (uint32_t i = 0; i < blocks->count; i++) {
        struct number_block *block = &blocks->blocks[i];
        if (block->capacity == 0)
            slab_free(slab, block->bitmap, BITMAP_BYTES);
        else
            slab_free(slab, block->array, block->capacity * sizeof(uint16_t));
    }
    slab_free(slab, blocks, blocks_bytes(blocks->capacity));
}

/* From one array to blocks. */
static int set_divide(struct number_set *set, struct slab *slab) {
    int status = STATUS_OK;
    struct number_blocks *blocks = slab_alloc(slab, blocks_bytes(1));
    if (blocks == NULL)
        return STATUS_NO_MEMORY;
    blocks->count = 0;
    blocks->capacity = 1;
    for (uint32_t i = 1; i <= set->count; i++) {
        TRY(block_ensure(&blocks, slab, (uint16_t)(set->few[i] >> 16)));
        block_add(&blocks->blocks[blocks->count - 1], (uint16_t)set->few[i]); /* they ascend */
    }
    slab_free(slab, set->few, (set->few[0] + 1) * sizeof *set->few);
    set->blocks = blocks;
    set->form = NUMBER_SET_BLOCKS;
    return STATUS_OK;
out:
    blocks_release(blocks, slab);
    return status;
}

int number_set_reserve(struct number_set *set, struct slab *slab, uint32_t number) {
    if (set->form != NUMBER_SET_BLOCKS) {
        if (set->count < NUMBER_SET_FEW_MAX)
            return few_reserve(set, slab);
        int status = set_divide(set, slab);
        if (status < 0)
            return status;
    }
    return block_ensure(&set->blocks, slab, (uint16_t)(number >> 16));
}

/* ---- adding, removing ---- */

void number_set_add(struct number_set *set, uint32_t number) {
    if (set->form == NUMBER_SET_BLOCKS) {
        block_add(block_of(set, (uint16_t)(number >> 16)), (uint16_t)number);
    } else if (set->form == NUMBER_SET_ONE) {
        set->one = number;
    } else {
        uint32_t *numbers = set->few + 1;
        uint32_t place = few_place(numbers, set->count, number);
        memmove(&numbers[place + 1], &numbers[place], (set->count - place) * sizeof *numbers);
        numbers[place] = number;
    }
    set->count++;
}

int number_set_push(struct number_set *set, struct slab *slab, uint32_t number) {
    if (set->form == NUMBER_SET_BLOCKS) {
        struct number_block *last = &set->blocks->blocks[set->blocks->count - 1];
        if (last->key == number >> 16 && last->count < last->capacity) {
            last->array[last->count++] = (uint16_t)number;
            set->count++;
            return STATUS_OK;
        }
    }
    int status = number_set_reserve(set, slab, number);
    if (status == STATUS_OK)
        number_set_add(set, number);
    return status;
}

static void few_remove(struct number_set *set, struct slab *slab, uint32_t number) {
    uint32_t capacity = set->few[0], count = set->count;
    uint32_t *numbers = set->few + 1;
    uint32_t place = few_place(numbers, count, number);
    ASSERT(place < count && numbers[place] == number);
    memmove(&numbers[place], &numbers[place + 1], (count - place - 1) * sizeof *numbers);
    if (count <= 2) {
        uint32_t one = numbers[0];
        slab_free(slab, set->few, (capacity + 1) * sizeof *set->few);
        set->one = one;
        set->form = NUMBER_SET_ONE;
        return;
    }
    if (capacity < 8 || count - 1 > capacity / 2)
        return;
    /* Smaller, if there is memory for the move. */
    uint32_t smaller = capacity / 2 + capacity / 8;
    uint32_t *few = slab_alloc(slab, (smaller + 1) * sizeof *few);
    if (few == NULL)
        return;
    few[0] = smaller;
    memcpy(few + 1, numbers, (count - 1) * sizeof *few);
    slab_free(slab, set->few, (capacity + 1) * sizeof *few);
    set->few = few;
}

static void block_remove(struct number_block *block, struct slab *slab, uint16_t low) {
    ASSERT(block_has(block, low));
    if (block->capacity != 0) {
        uint32_t place = array_place(block->array, block->count, low);
        memmove(&block->array[place], &block->array[place + 1],
                (block->count - place - 1) * sizeof(uint16_t));
        block->count--;
        return;
    }
    block->bitmap[low / 64] &= ~(UINT64_C(1) << (low % 64));
    block->count--;
    if (block->count != NUMBER_SET_ARRAY_MAX / 2)
        return;
    uint32_t capacity = NUMBER_SET_ARRAY_MAX / 2 + NUMBER_SET_ARRAY_MAX / 8;
    uint16_t *array = slab_alloc(slab, capacity * sizeof *array);
    if (array == NULL)
        return;
    uint32_t at = 0;
    for (uint32_t word = 0; word < BITMAP_WORDS; word++)
        for (uint64_t bits = block->bitmap[word]; bits != 0; bits &= bits - 1)
            array[at++] = (uint16_t)(word * 64 + (unsigned)__builtin_ctzll(bits));
    slab_free(slab, block->bitmap, BITMAP_BYTES);
    block->array = array;
    block->capacity = (uint16_t)capacity;
}

/* Blocks that became empty go. */
static void block_drop(struct number_set *set, struct slab *slab, struct number_block *block) {
    if (block->capacity == 0)
        slab_free(slab, block->bitmap, BITMAP_BYTES);
    else
        slab_free(slab, block->array, block->capacity * sizeof(uint16_t));
    struct number_blocks *blocks = set->blocks;
    size_t place = (size_t)(block - blocks->blocks);
    memmove(block, block + 1, (blocks->count - place - 1) * sizeof *block);
    blocks->count--;
}

void number_set_remove(struct number_set *set, struct slab *slab, uint32_t number) {
    ASSERT(set->count > 0);
    if (set->form == NUMBER_SET_BLOCKS) {
        struct number_block *block = block_of(set, (uint16_t)(number >> 16));
        ASSERT(block != NULL);
        block_remove(block, slab, (uint16_t)number);
        if (block->count == 0)
            block_drop(set, slab, block);
        if (set->count == 1) {
            blocks_release(set->blocks, slab);
            set->blocks = NULL;
            set->form = NUMBER_SET_ONE;
        }
    } else if (set->form == NUMBER_SET_ONE) {
        ASSERT(set->one == number);
    } else {
        few_remove(set, slab, number);
    }
    set->count--;
}

void number_set_release(struct number_set *set, struct slab *slab) {
    if (set->form == NUMBER_SET_BLOCKS)
        blocks_release(set->blocks, slab);
    else if (set->form == NUMBER_SET_FEW)
        slab_free(slab, set->few, (set->few[0] + 1) * sizeof *set->few);
    *set = (struct number_set){.owner = set->owner};
}

/* ---- reading ---- */

static size_t block_list(const struct number_block *block, uint32_t from, uint32_t *out, size_t max) {
    uint32_t base = (uint32_t)block->key << 16;
    size_t count = 0;
    if (block->capacity != 0) {
        uint32_t place = from <= base ? 0 : array_place(block->array, block->count, (uint16_t)(from - base));
        for (; place < block->count && count < max; place++)
            out[count++] = base + block->array[place];
        return count;
    }
    uint32_t low = from <= base ? 0 : from - base;
    for (uint32_t word = low / 64; word < BITMAP_WORDS && count < max; word++) {
        uint64_t bits = block->bitmap[word];
        if (word == low / 64)
            bits &= ~UINT64_C(0) << (low % 64);
        for (; bits != 0 && count < max; bits &= bits - 1)
            out[count++] = base + word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return count;
}

size_t number_set_list(const struct number_set *set, uint32_t from, uint32_t *out, size_t max) {
    if (max == 0 || set->count == 0)
        return 0;
    if (set->form == NUMBER_SET_BLOCKS) {
        size_t count = 0;
        for (uint32_t i = block_place(set->blocks, (uint16_t)(from >> 16));
             i < set->blocks->count && count < max; i++)
            count += block_list(&set->blocks->blocks[i], from, out + count, max - count);
        return count;
    }
    const uint32_t *numbers = set->form == NUMBER_SET_ONE ? &set->one : set->few + 1;
    uint32_t place = few_place(numbers, set->count, from);
    size_t count = set->count - place < max ? set->count - place : max;
    memcpy(out, numbers + place, count * sizeof *out);
    return count;
}

size_t number_set_take(struct number_set *set, struct slab *slab, uint32_t *out, size_t max) {
    size_t count = number_set_list(set, 0, out, max);
    if (count == set->count) {
        number_set_release(set, slab);
        return count;
    }
    size_t i = 0;
    while (i < count) {
        struct number_block *block = set->form == NUMBER_SET_BLOCKS ? &set->blocks->blocks[0] : NULL;
        if (block == NULL || block->capacity == 0) {
            number_set_remove(set, slab, out[i++]); /* of a bitmap, or one of a few */
            continue;
        }
        /* An array is moved once. */
        uint32_t taken = block->count < count - i ? block->count : (uint32_t)(count - i);
        memmove(block->array, block->array + taken, (block->count - taken) * sizeof *block->array);
        block->count -= taken;
        set->count = (set->count - taken) & ((1u << 30) - 1);
        i += taken;
        if (block->count == 0)
            block_drop(set, slab, block);
    }
    return count;
}

/* Both ascend: what is left of the set is searched from where the last one was found. */
static size_t array_filter(const uint16_t *array, uint32_t array_count, bool inside, const uint32_t *list,
                           size_t count, uint32_t *out) {
    size_t kept = 0;
    uint32_t place = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t low = (uint16_t)list[i];
        uint32_t step = 1;
        while (place + step < array_count && array[place + step] < low)
            step *= 2;
        uint32_t end = place + step + 1 < array_count ? place + step + 1 : array_count;
        place += array_place(array + place, end - place, low);
        bool has = place < array_count && array[place] == low;
        if (has == inside)
            out[kept++] = list[i];
    }
    return kept;
}

static size_t blocks_filter(const struct number_set *set, bool inside, uint32_t *list, size_t count) {
    size_t kept = 0;
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && list[end] >> 16 == list[i] >> 16)
            end++;
        const struct number_block *block = block_of(set, (uint16_t)(list[i] >> 16));
        if (block != NULL && block->capacity != 0) {
            kept += array_filter(block->array, block->count, inside, list + i, end - i, list + kept);
            i = end;
        } else {
            for (; i < end; i++)
                if ((block != NULL && block_has(block, (uint16_t)list[i])) == inside)
                    list[kept++] = list[i];
        }
    }
    return kept;
}

size_t number_set_filter(const struct number_set *set, bool inside, uint32_t *list, size_t count) {
    if (set->form == NUMBER_SET_BLOCKS)
        return blocks_filter(set, inside, list, count);
    const uint32_t *numbers = set->form == NUMBER_SET_ONE ? &set->one : set->few + 1;
    size_t kept = 0;
    uint32_t place = 0;
    for (size_t i = 0; i < count; i++) {
        while (place < set->count && numbers[place] < list[i])
            place++;
        bool has = place < set->count && numbers[place] == list[i];
        if (has == inside)
            list[kept++] = list[i];
    }
    return kept;
}
