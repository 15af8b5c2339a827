#include "client/terminal.h"

#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define COLUMNS_DEFAULT 80
#define COLUMNS_MIN     30
#define COLUMNS_MAX     400

void terminal_look(struct terminal *out) {
    struct winsize size;
    const char *no_color = getenv("NO_COLOR"), *columns = getenv("COLUMNS");
    *out = (struct terminal){.columns = COLUMNS_DEFAULT};
    setlocale(LC_CTYPE, "");
    out->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    out->is_terminal = isatty(STDOUT_FILENO) == 1;
    out->color = out->is_terminal && (no_color == NULL || no_color[0] == 0);
    if (out->is_terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        out->columns = size.ws_col;
    else if (columns != NULL)
        out->columns = strtoul(columns, NULL, 10);
    if (out->columns < COLUMNS_MIN)
        out->columns = COLUMNS_MIN;
    if (out->columns > COLUMNS_MAX)
        out->columns = COLUMNS_MAX;
}

void time_text_utc(int64_t time_ms, char out[48]) {
    int64_t ms = time_ms % 1000;
    if (ms < 0)
        ms += 1000;
    time_t seconds = (time_t)((time_ms - ms) / 1000);
    struct tm tm;
    if (gmtime_r(&seconds, &tm) == NULL) {
        snprintf(out, 48, "%lld ms", (long long)time_ms);
        return;
    }
    size_t len = strftime(out, 40, "%Y-%m-%d %H:%M:%S", &tm);
    if (ms != 0)
        snprintf(out + len, 48 - len, ".%03d", (int)ms);
}

void terminal_color(const struct terminal *terminal, struct buf *out, size_t index) {
    static const uint8_t codes[] = {32, 36, 33, 35, 34, 31, 92, 96, 93, 95, 94, 91};
    if (terminal->color)
        buf_printf(out, "\033[%um", codes[index % sizeof codes]);
}

void terminal_plain(const struct terminal *terminal, struct buf *out) {
    if (terminal->color)
        buf_append_str(out, "\033[0m");
}
