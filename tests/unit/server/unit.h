/* unit.h: what the tests of this folder share. */
#ifndef TIDALITE_TESTS_UNIT_SERVER_UNIT_H
#define TIDALITE_TESTS_UNIT_SERVER_UNIT_H

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/slice.h"

#define assert_slice(actual, expected)                                                                       \
    do {                                                                                                     \
        struct slice slice_ = (actual);                                                                      \
        assert_int_equal(slice_.len, strlen(expected));                                                      \
        if (slice_.len > 0)                                                                                  \
            assert_memory_equal(slice_.data, (expected), slice_.len);                                        \
    } while (0)

#endif
