/* head_fixture.h: a data directory with all that a head has: two snapshots, labels, late samples, something
 * hidden, files of the chunk log; and the commands that look at it, run as a process of their own. */
#ifndef TIDALITE_TESTS_HEAD_FIXTURE_H
#define TIDALITE_TESTS_HEAD_FIXTURE_H

#include "tests/unit/storage/storage_fixture.h"

#define HEAD_SERIES 30

struct head_fixture {
    struct fixture storage;
    struct io *io;          /* for looking at files */
    char snapshots[2][256]; /* the newest first */
    char labels[2][256];    /* both copies */
    char chunks[256];       /* the newest file of the chunk log */
    char output[64 << 10];  /* of the last command */
};

/* The storage is closed. */
void head_fixture_open(struct head_fixture *f);
void head_fixture_close(struct head_fixture *f);

/* The one that a program's tests share: a group's setup and teardown. */
extern struct head_fixture head_fixture;
int head_fixture_setup(void **state);
int head_fixture_teardown(void **state);

/* Writes that many rounds of a sample a series, with maintenance between them. The storage is open. */
void head_fixture_write(struct head_fixture *f, int rounds);

/* Runs command(argc, argv) with its standard output in f->output; returns the exit code. */
int command_run(struct head_fixture *f, int (*command)(int argc, char **argv), const char *const *arguments);

/* As it was: whatever a test does to a file is taken back. */
struct file_copy {
    char path[256];
    uint8_t *bytes;
    size_t len;
};
struct file_copy file_keep(const char *path);
void file_restore(struct file_copy *copy);
void file_cut(const char *path, size_t len);

#endif
