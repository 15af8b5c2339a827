/* float_digits.cc: the shim around std::to_chars (scientific form only: the fixed form prints exact integers
 * above 2^53, which is not what Prometheus prints). */
#include <charconv>
#include <cstddef>

extern "C" {
#include "base/float_text.h"
}

extern "C" size_t float_digits(double v, char *digits, int *point) {
    char text[40];
    const char *end = std::to_chars(text, text + sizeof text, v, std::chars_format::scientific).ptr;
    size_t count = 0;
    const char *p = text;
    for (; *p != 'e'; p++)
        if (*p != '.')
            digits[count++] = *p;
    bool negative = p[1] == '-';
    int exponent = 0;
    for (p += 2; p < end; p++)
        exponent = exponent * 10 + (*p - '0');
    *point = (negative ? -exponent : exponent) + 1;
    while (count > 1 && digits[count - 1] == '0')
        count--;
    return count;
}
