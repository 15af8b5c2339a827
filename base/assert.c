/* assert.c: the last words of a failed assertion. */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void assert_failed(const char *expression, const char *file, int line) {
    fprintf(stderr, "assertion failed: %s at %s:%d\n", expression, file, line);
    abort();
}
