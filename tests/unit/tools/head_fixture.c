/* head_fixture.c: see head_fixture.h. */
#include "tests/unit/tools/head_fixture.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "storage/manifest/manifest.h"

#define ROUNDS 300

void head_fixture_write(struct head_fixture *f, int rounds) {
    struct fixture *s = &f->storage;
    struct rand rand;
    rand_init(&rand, (uint64_t)s->now_ms);
    for (; rounds > 0; rounds--) {
        struct batch *b = batch_new();
        for (int series = 0; series < HEAD_SERIES; series++)
            batch_add(b, series, s->now_ms, rand_u64(&rand) >> 12);
        assert_int_equal(batch_write(s, b).samples_stored, HEAD_SERIES);
        if (rounds % 50 == 7) /* a late one */
            (void)write_one(s, 3, s->now_ms - 3500, 42);
        s->now_ms += 1000;
        fixture_maintain(s);
    }
}

static void hide(struct fixture *s) {
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str("5")};
    const struct delete_selector selector = {&matcher, 1};
    struct outcome outcome = {0};
    assert_int_equal(delete_submit(s, &selector, 1, s->now_ms - 90000, s->now_ms - 80000, &outcome),
                     STATUS_OK);
    while (!outcome.done)
        storage_step(s->storage, s->now_ms);
    assert_int_equal(outcome.result.status, STATUS_OK);
}

static void names_find(struct head_fixture *f) {
    struct manifest manifest;
    struct error_detail detail = {{0}};
    const char *dir = f->storage.dir;
    assert_int_equal(manifest_load(f->io, dir, &detail, &manifest), STATUS_OK);
    assert_int_equal(manifest.snapshot_count, 2);
    for (size_t i = 0; i < 2; i++)
        snprintf(f->snapshots[i], sizeof f->snapshots[i], "%s/head/%016" PRIx64 ".snapshot", dir,
                 manifest.snapshots[i].number);
    for (size_t i = 0; i < 2; i++)
        snprintf(f->labels[i], sizeof f->labels[i], "%s/head/%016" PRIx64 ".labels%s", dir,
                 manifest.snapshots[0].labels_number, i == 0 ? "" : "2");
    manifest_release(&manifest);
    snprintf(f->chunks, sizeof f->chunks, "%s/head", dir);
    DIR *head = opendir(f->chunks);
    assert_non_null(head);
    f->chunks[0] = '\0';
    for (struct dirent *entry; (entry = readdir(head)) != NULL;)
        if (strstr(entry->d_name, ".chunks") != NULL)
            snprintf(f->chunks, sizeof f->chunks, "%s/head/%.60s", dir, entry->d_name);
    closedir(head);
    assert_true(f->chunks[0] != '\0');
}

void head_fixture_open(struct head_fixture *f) {
    struct fixture *s = &f->storage;
    struct error_detail detail = {{0}};
    memset(f, 0, sizeof *f);
    fixture_open(s, IO_BACKEND_SYSCALL);
    storage_close(s->storage);
    s->limits.snapshot_samples_max = 3000;
    s->limits.snapshot_ms_max = 1u << 30;
    s->now_ms -= s->now_ms % (int64_t)s->limits.window_ms;
    fixture_open_storage(s);
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, &detail, &f->io), STATUS_OK);
    head_fixture_write(f, ROUNDS / 2);
    hide(s);
    head_fixture_write(f, ROUNDS / 2);
    storage_close(s->storage);
    s->storage = NULL;
    names_find(f);
}

void head_fixture_close(struct head_fixture *f) {
    io_close(f->io);
    fixture_close(&f->storage);
}

struct head_fixture head_fixture;

int head_fixture_setup(void **state) {
    (void)state;
    head_fixture_open(&head_fixture);
    return 0;
}

int head_fixture_teardown(void **state) {
    (void)state;
    head_fixture_close(&head_fixture);
    return 0;
}

int command_run(struct head_fixture *f, int (*command)(int argc, char **argv), const char *const *arguments) {
    FILE *out = tmpfile();
    int argc = 0, state;
    char *argv[8];
    assert_non_null(out);
    for (; arguments[argc] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)arguments[argc];
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(fileno(out), STDOUT_FILENO);
        int code = command(argc, argv);
        fflush(stdout);
        _exit(code);
    }
    while (waitpid(pid, &state, f->storage.storage != NULL ? WNOHANG : 0) == 0)
        head_fixture_write(f, 1);
    rewind(out);
    f->output[fread(f->output, 1, sizeof f->output - 1, out)] = '\0';
    fclose(out);
    return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

/* ---- files ---- */

struct file_copy file_keep(const char *path) {
    struct file_copy copy = {.len = 0};
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    copy.len = (size_t)ftell(file);
    rewind(file);
    copy.bytes = mem_alloc(copy.len + 1);
    assert_int_equal(fread(copy.bytes, 1, copy.len, file), copy.len);
    fclose(file);
    snprintf(copy.path, sizeof copy.path, "%s", path);
    return copy;
}

void file_restore(struct file_copy *copy) {
    FILE *file = fopen(copy->path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(copy->bytes, 1, copy->len, file), copy->len);
    fclose(file);
    mem_free(copy->bytes);
}

void file_cut(const char *path, size_t len) {
    assert_int_equal(truncate(path, (off_t)len), 0);
}
