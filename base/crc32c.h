/* crc32c.h: CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 appendix B.4), by the machine's
 * instruction where it has one, by table otherwise; both give the same answer. */
#ifndef TIDALITE_BASE_CRC32C_H
#define TIDALITE_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of `len` bytes continued from `seed` (0 to start): crc32c(crc32c(0, a), b) == crc32c(0, ab).
 * crc32c(0, "123456789", 9) == 0xE3069283. */
uint32_t crc32c(uint32_t seed, const void *data, size_t len);

/* The table version, for tests and for machines without the instruction. */
uint32_t crc32c_portable(uint32_t seed, const void *data, size_t len);

#endif
