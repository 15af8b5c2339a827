/* crc32c.c: CRC-32C by SSE4.2 where the machine has it, by an eight-way table otherwise. */
#include "base/crc32c.h"

#include <pthread.h>

#include "base/bytes.h"

#define POLYNOMIAL 0x82F63B78u

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_make(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int lane = 1; lane < 8; lane++)
            table[lane][byte] = (table[lane - 1][byte] >> 8) ^ table[0][table[lane - 1][byte] & 0xff];
}

/* Slicing by eight (Kounavis and Berry, 2005): one look-up a byte, eight bytes a step. */
uint32_t crc32c_portable(uint32_t seed, const void *data, size_t len) {
    pthread_once(&table_once, table_make);
    const uint8_t *p = data;
    uint32_t crc = ~seed;
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word = load_u64(p) ^ crc;
        crc = table[7][word & 0xff] ^ table[6][(word >> 8) & 0xff] ^ table[5][(word >> 16) & 0xff] ^
              table[4][(word >> 24) & 0xff] ^ table[3][(word >> 32) & 0xff] ^ table[2][(word >> 40) & 0xff] ^
              table[1][(word >> 48) & 0xff] ^ table[0][word >> 56];
    }
    for (; len > 0; p++, len--)
        crc = (crc >> 8) ^ table[0][(crc ^ *p) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t seed, const void *data, size_t len) {
    const uint8_t *p = data;
    uint64_t crc = (uint32_t)~seed;
    for (; len >= 8; p += 8, len -= 8)
        crc = __builtin_ia32_crc32di(crc, load_u64(p));
    for (; len > 0; p++, len--)
        crc = __builtin_ia32_crc32qi((uint32_t)crc, *p);
    return ~(uint32_t)crc;
}

uint32_t crc32c(uint32_t seed, const void *data, size_t len) {
    return __builtin_cpu_supports("sse4.2") ? crc32c_sse42(seed, data, len)
                                            : crc32c_portable(seed, data, len);
}
#else
uint32_t crc32c(uint32_t seed, const void *data, size_t len) {
    return crc32c_portable(seed, data, len);
}
#endif
