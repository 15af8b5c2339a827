/* verify.c: the command `tidalite verify`: the table of checkers, the report, the bar. */
#include "tools/verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "tools/tools.h"

#define EXIT_OK      0
#define EXIT_DAMAGED 1
#define EXIT_USAGE   2
#define EXIT_UNKNOWN 3
#define BAR_WIDTH    40

/* In this order: what comes later is looked up in what came before. */
static const struct {
    const char *name;
    int (*check)(struct verify *verify, struct error_detail *detail);
} checkers[] = {
    {"manifest", verify_manifest},
    {"log", verify_log},
    {"head", verify_head},
    {"blocks", verify_blocks},
};
#define CHECKER_COUNT (sizeof checkers / sizeof checkers[0])

static void bar_clear(struct verify *verify) {
    if (verify->bar_shown)
        fprintf(stderr, "\r%*s\r", BAR_WIDTH + 32, "");
    verify->bar_shown = false;
}

void verify_progress(struct verify *verify, unsigned done) {
    if (!verify->bar)
        return;
    unsigned total = (verify->part * 1000 + (done > 1000 ? 1000 : done)) / verify->part_count;
    unsigned filled = total * BAR_WIDTH / 1000;
    char bar[BAR_WIDTH + 1];
    for (unsigned i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r[%s] %3u %% %-12s", bar, total / 10, verify->part_name);
    fflush(stderr);
    verify->bar_shown = true;
}

void verify_damage(struct verify *verify, const char *file, uint64_t offset, const char *what,
                   const char *costs) {
    bar_clear(verify);
    verify->damaged++;
    printf("damage: %s, offset %llu: %s; costs %s\n", file, (unsigned long long)offset, what, costs);
    fflush(stdout);
}

void verify_note(struct verify *verify, const char *format, ...) {
    va_list arguments;
    bar_clear(verify);
    printf("note: ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
}

static void usage(FILE *to) {
    fprintf(
        to,
        "tidalite verify DIR [--repair]\n"
        "\n"
        "Checks every checksum and cross-reference of a data directory. A server may be using it: nothing "
        "is\n"
        "written, and nothing is locked. One line for each piece of damage: file, offset, what, what it "
        "costs.\n"
        "\n"
        "  --repair    also writes anew what can be made from the rest: indexes and descriptions of blocks,\n"
        "              the manifest's second copy. No server may be using the directory.\n"
        "\n"
        "Exit status: 0 no damage (or all of it was repaired), 1 damage, 2 a wrong command line, 3 "
        "something\n"
        "could not be checked.\n");
}

static int run(struct verify *verify) {
    int code = EXIT_OK;
    verify->part_count = (unsigned)CHECKER_COUNT;
    for (size_t i = 0; i < CHECKER_COUNT; i++) {
        struct error_detail detail = {{0}};
        verify->part = (unsigned)i;
        verify->part_name = checkers[i].name;
        verify_progress(verify, 0);
        int status = checkers[i].check(verify, &detail);
        bar_clear(verify);
        if (status < 0) {
            fprintf(stderr, "tidalite: the %s could not be checked: %s\n", checkers[i].name,
                    detail.text[0] != '\0' ? detail.text : status_message(status));
            code = EXIT_UNKNOWN;
        }
    }
    if (verify->damaged > verify->repaired)
        code = EXIT_DAMAGED;
    printf("%s: %llu pieces of damage, %llu repaired\n", verify->dir, (unsigned long long)verify->damaged,
           (unsigned long long)verify->repaired);
    return code;
}

int tools_verify(int argc, char **argv) {
    struct verify verify = {0};
    struct error_detail detail = {{0}};
    struct io_file *lock = NULL;
    char path[4096];
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--repair") == 0) {
            verify.repair = true;
        } else if (argv[i][0] == '-' || verify.dir != NULL) {
            fprintf(stderr, "tidalite: verify takes a directory and --repair, not \"%s\"\n", argv[i]);
            return EXIT_USAGE;
        } else {
            verify.dir = argv[i];
        }
    }
    if (verify.dir == NULL || (size_t)snprintf(path, sizeof path, "%s/lock", verify.dir) >= sizeof path) {
        usage(stderr);
        return EXIT_USAGE;
    }
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, -1);
    verify.bar = isatty(STDERR_FILENO) == 1;
    manifest_init(&verify.manifest);
    int status = io_open(IO_BACKEND_SYSCALL, &detail, &verify.io);
    if (status == STATUS_OK && access(verify.dir, R_OK | X_OK) != 0)
        status = error_set(&detail, STATUS_NOT_FOUND, "%s can't be read", verify.dir);
    if (status == STATUS_OK && verify.repair)
        status = io_lock(verify.io, path, &detail, &lock);
    int code = EXIT_UNKNOWN;
    if (status < 0)
        fprintf(stderr, "tidalite: %s\n", detail.text[0] != '\0' ? detail.text : status_message(status));
    else
        code = run(&verify);
    if (lock != NULL)
        io_unlock(verify.io, lock);
    manifest_release(&verify.manifest);
    if (verify.io != NULL)
        io_close(verify.io);
    return code;
}
