/* float_oracle.h: the digits of another's making. */
#ifndef TIDALITE_TESTS_FLOAT_ORACLE_H
#define TIDALITE_TESTS_FLOAT_ORACLE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FLOAT_SCIENTIFIC_BYTES_MAX 32

/* The shortest digits of finite v > 0 as "d.ddde-07" or "de+21", by std::to_chars. Returns the length. */
size_t float_scientific(double v, char out[FLOAT_SCIENTIFIC_BYTES_MAX]);

#ifdef __cplusplus
}
#endif

#endif
