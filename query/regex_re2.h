/* regex_re2.h: the part of regex.h that is C++. No exception leaves it. */
#ifndef TIDALITE_QUERY_REGEX_RE2_H
#define TIDALITE_QUERY_REGEX_RE2_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NULL with a line in `error`; *out_of_memory tells if that was the reason. */
void *re2_new(const char *text, size_t len, size_t bytes_max, char *error, size_t error_bytes,
              bool *out_of_memory);
void re2_free(void *re);
bool re2_match(const void *re, const char *value, size_t len);

#define RE2_GROUPS_MAX 64

/* Groups 0..RE2_GROUPS_MAX-1 of the match, as offsets into value; -1 where a group took no part. Returns how
 * many there are. */
size_t re2_groups(const void *re, const char *value, size_t len, long *starts, long *ends);

/* The number of the group with this name; -1 if there is none. */
int re2_group_by_name(const void *re, const char *name, size_t len);

#ifdef __cplusplus
}
#endif

#endif
