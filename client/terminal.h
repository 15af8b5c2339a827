/* terminal.h: what standard output can show. */
#ifndef TIDALITE_CLIENT_TERMINAL_H
#define TIDALITE_CLIENT_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct terminal {
    bool is_terminal;
    bool utf8;      /* by the locale */
    bool color;     /* a terminal, and no NO_COLOR */
    size_t columns; /* the terminal's, or COLUMNS, or 80 */
};

void terminal_look(struct terminal *out);

/* "2026-01-31 12:00:00", with milliseconds if there are any. UTC. */
void time_text_utc(int64_t time_ms, char out[48]);

/* Colour number `index` (they repeat) around what follows, until terminal_plain. Nothing without colours. */
void terminal_color(const struct terminal *terminal, struct buf *out, size_t index);
void terminal_plain(const struct terminal *terminal, struct buf *out);

#endif
