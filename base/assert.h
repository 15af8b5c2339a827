/* assert.h: our own mistakes stop the program, in release builds too; bytes from outside never do.
 * ASSERT for what is cheap, EXPENSIVE_ASSERT for checks that only debug and sanitizer builds pay for. */
#ifndef TIDALITE_BASE_ASSERT_H
#define TIDALITE_BASE_ASSERT_H

_Noreturn void assert_failed(const char *expression, const char *file, int line);

#define ASSERT(expression)                                                                                   \
    (__builtin_expect(!!(expression), 1) ? (void)0 : assert_failed(#expression, __FILE__, __LINE__))

#ifdef TIDALITE_EXPENSIVE_ASSERTS
#define EXPENSIVE_ASSERT(expression) ASSERT(expression)
#else
#define EXPENSIVE_ASSERT(expression) ((void)0)
#endif

#endif
