/* inspect.c: the command `tidalite inspect`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tools/inspect.h"
#include "tools/tools.h"

#define EXIT_USAGE 2

static const char usage[] =
    "usage: tidalite inspect block PATH [--series] [--verify]\n"
    "       tidalite inspect wal PATH     what stands in the log of a data directory, record by record\n"
    "       tidalite inspect head PATH    what snapshots of the head hold, and how many bytes of what\n"
    "\n"
    "The first prints what the block in the directory PATH holds, and what of it is damaged. For `head` "
    "PATH\n"
    "is a data directory or a snapshot's file. Nothing is written.\n"
    "\n"
    "  --series   each series with its chunks: times in ms since 1970, bytes\n"
    "  --verify   reads all of it and checks every checksum and cross-reference\n"
    "\n"
    "Exit code: 0, or 1 if something is damaged or can't be read.\n";

static int run(struct io *io, int argc, char **argv) {
    bool with_series = false, verify = false, block = strcmp(argv[1], "block") == 0;
    for (int i = 3; i < argc; i++) {
        if (block && strcmp(argv[i], "--series") == 0)
            with_series = true;
        else if (block && strcmp(argv[i], "--verify") == 0)
            verify = true;
        else {
            fprintf(stderr, "tidalite: unknown flag \"%s\"\n\n%s", argv[i], usage);
            return EXIT_USAGE;
        }
    }
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, block ? 2 : -1); /* damage is printed, in order */
    return block                         ? inspect__block(io, argv[2], with_series, verify)
           : strcmp(argv[1], "wal") == 0 ? inspect__wal(io, argv[2])
                                         : inspect__head(io, argv[2]);
}

int tools_inspect(int argc, char **argv) {
    struct io *io;
    struct error_detail detail = {0};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    }
    if (argc < 3 ||
        (strcmp(argv[1], "block") != 0 && strcmp(argv[1], "wal") != 0 && strcmp(argv[1], "head") != 0)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (io_open(IO_BACKEND_SYSCALL, &detail, &io) < 0) {
        fprintf(stderr, "tidalite: %s\n", detail.text);
        return EXIT_FAILURE;
    }
    int code = run(io, argc, argv);
    io_close(io);
    return code;
}
