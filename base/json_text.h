/* json_text.h: strings as JSON, as Go's encoder prints them. */
#ifndef TIDALITE_BASE_JSON_TEXT_H
#define TIDALITE_BASE_JSON_TEXT_H

#include "base/buf.h"
#include "base/slice.h"

/* JSON_HTML: '<', '>', '&', U+2028 and U+2029 as \u003c and so on, as everywhere in Prometheus' replies but
 * in label sets. Bytes that are not UTF-8 become \ufffd. */
enum json_escape { JSON_PLAIN, JSON_HTML };
void json_string_append(struct buf *out, struct slice text, enum json_escape escape);

#endif
