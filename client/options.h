/* options.h: the command line of `tidalite query`. */
#ifndef TIDALITE_CLIENT_OPTIONS_H
#define TIDALITE_CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum client_format { CLIENT_TABLE, CLIENT_JSON, CLIENT_CSV };
enum client_plot { CLIENT_PLOT_AUTO, CLIENT_PLOT_ALWAYS, CLIENT_PLOT_NEVER };

struct client_options {
    bool help;
    const char *expression; /* texts borrow from argv or are static */
    const char *server;     /* without a slash at its end counting */
    enum client_format format;
    enum client_plot plot;
    bool range;
    int64_t time_ms; /* an instant's time, a range's end */
    int64_t range_ms;
    int64_t step_ms;    /* 0: one that suits the range */
    int64_t timeout_ms; /* for the whole request */
    bool time_given;    /* false: the server's now, and time_ms is ours */
};

/* STATUS_OK, or STATUS_BAD_INPUT with one line in `detail` that says what to do. `now_ms` is the wall clock.
 */
int client_options_parse(int argc, char **argv, int64_t now_ms, struct client_options *out,
                         struct error_detail *detail);

extern const char client_help[];

#endif
