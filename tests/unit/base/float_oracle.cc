// float_oracle.cc: std::to_chars for C. Only its scientific form: the fixed form prints all digits of large
// numbers.
#include <charconv>

#include "tests/unit/base/float_oracle.h"

size_t float_scientific(double v, char out[FLOAT_SCIENTIFIC_BYTES_MAX]) {
    return static_cast<size_t>(
        std::to_chars(out, out + FLOAT_SCIENTIFIC_BYTES_MAX, v, std::chars_format::scientific).ptr - out);
}
