/* config.h: the command line, and the file that --config names → struct config. Settings come from two
 * tables: config.def, and the limits that have a flag (base/limits.def).
 *
 * Flags are `--flag value` or `--flag=value`; switches are `--flag` or `--flag=false`. The file has a setting
 * a line: `flag: value`, the value in double quotes or not; empty lines and lines that begin with '#' are
 * skipped. A flag goes before the file's line of the same name. */
#ifndef TIDALITE_SERVER_CONFIG_H
#define TIDALITE_SERVER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/status.h"
#include "storage/io/io.h"

struct config {
    char *file_text; /* what --config named; owned, texts borrow from it, from argv, or are static */
    const char *config_file;
    const char *listen;
    const char *data_dir;
    const char *cors_origin;
    const char *path_prefix; /* "", or begins with '/' and does not end with it */
    enum io_backend io;
    enum log_level log_level;
    enum log_format log_format;
    bool enable_admin_api;
    bool enable_lifecycle;
    bool request_log;
    uint64_t self_scrape_ms;
    uint64_t loops;
    bool delayed_name_removal;
    struct limits limits;
};

enum config_action {
    CONFIG_SERVE,
    CONFIG_HELP,       /* `tidalite help`, `tidalite --help`, or no argument at all */
    CONFIG_SERVE_HELP, /* `tidalite serve --help` */
    CONFIG_VERSION
};

/* Reads the command line and the file. STATUS_OK with *action (and *config for CONFIG_SERVE, to be given back
 * with config_release), or STATUS_BAD_INPUT, STATUS_IO or STATUS_NO_MEMORY with one line in `detail` that
 * says what to do. Blocks on reading the file. */
int config_parse(int argc, char **argv, struct config *config, enum config_action *action,
                 struct error_detail *detail);
void config_release(struct config *config);

/* May `next` take the place of `now` in a running server? STATUS_OK, with whether they differ at all, or
 * STATUS_BAD_INPUT with the first setting in `detail` that would need a start. */
int config_change_check(const struct config *now, const struct config *next, struct error_detail *detail,
                        bool *changed_out);

/* The texts of `tidalite help` and `tidalite serve --help`: every flag, its unit and default. */
void config_help_print(struct buf *out);
void config_serve_help_print(struct buf *out);

/* "15s", "2m", "1h30m", "250ms", "0" → milliseconds. */
bool config_duration_parse(const char *text, uint64_t *ms_out);

/* "1000", "50M", "32MiB", "64k": K/M/G are thousands, Ki/Mi/Gi are 1024s, an ending B is fine with both. */
bool config_count_parse(const char *text, uint64_t *count_out);

/* Every flag with its value in this run: flag by flag to `each`. */
void config_each(const struct config *config,
                 void (*each)(void *context, const char *flag, const char *value), void *context);

#endif
