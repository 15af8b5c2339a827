/* world_copy.c: copies of the data directory that a world asks for (storage_copy). One that was answered is
 * opened as a storage of its own, on a copy of the disk, and compared: it holds what was acknowledged before
 * some instant between the request and the answer, all of it and nothing else. That is done twice: after the
 * answer, and after the end of the machine that follows. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/metrics.h"
#include "tests/sim/world.h"

static void on_copied(void *context, int status, const char *name) {
    struct world *world = context;
    struct world_copy *copy = &world->copy;
    world_note(world, "copied %s %s", status_name(status), name == NULL ? "" : name);
    copy->asked = false;
    if (status < 0) {
        unsigned may = FAULT_ERROR | FAULT_FULL | FAULT_MEMORY | FAULT_ROT;
        if (status != STATUS_STOPPING && (world->faults & may) == 0 && !world->armed &&
            !io_sim_ended(world->io))
            world_fail(world, "a copy failed: %s", status_message(status));
        return;
    }
    model_base_release(&copy->answered);
    copy->answered = copy->base;
    copy->base = (struct model_base){0};
    copy->answered.applied_end = world->model.applied_count;
    snprintf(copy->path, sizeof copy->path, WORLD_DIR "/snapshots/%s", name);
    copy->checks_left = 2;
    world->copies++;
}

void world_copy_ask(struct world *world) {
    struct world_copy *copy = &world->copy;
    if (copy->asked || copy->checks_left > 0)
        return;
    model_base_release(&copy->base);
    model_base_take(&world->model, &copy->base);
    copy->asked = storage_copy(world->storage, STORAGE_COPY_ALL, on_copied, world) == STATUS_OK;
    world_note(world, "copy = %d", copy->asked);
}

static int tmp_each(void *context, const char *name) {
    size_t len = strlen(name);
    if (len > 4 && strcmp(name + len - 4, ".tmp") == 0)
        world_fail(context, "%s is left after a start", name);
    return STATUS_OK;
}

/* Opens what is there, on a disk of its own, and compares. */
static void copy_compare(struct world *world, struct io *io) {
    struct world_copy *copy = &world->copy;
    const struct storage_options options = {.dir = copy->path,
                                            .io = io,
                                            .clock = &world->clock,
                                            .limits = &world->limits,
                                            .seed = rand_u64(&world->rand)};
    struct error_detail detail = {0};
    struct storage *storage;
    int status = storage_open(&options, &detail, &storage);
    if (status < 0)
        world_fail(world, "%s does not open: %s", copy->path, detail.text);
    struct found_series *found = world_read(world, storage);
    const char *different = model_base_compare(&world->model, &copy->answered, found);
    if (different != NULL)
        world_fail(world, "%s: %s", copy->path, different);
    world_read_release(world, found);
    storage_close(storage);
    world->checks++;
}

void world_copy_check(struct world *world, bool after_end) {
    struct world_copy *copy = &world->copy;
    if (io_sim_ended(world->io) || copy->checks_left == 0 || (copy->checks_left == 1 && !after_end))
        return;
    copy->checks_left = after_end ? 0 : 1;
    if (world->rots > 0)
        return; /* it may be in the copy, or in what that is made of */
    mem_fault_set(0, 0);
    uint64_t metrics[METRIC_COUNT];
    for (size_t i = 0; i < METRIC_COUNT; i++)
        metrics[i] = metric_get((enum metric_id)i);
    struct io *io;
    ASSERT(io_sim_copy(world->io, world->seed, &io) == STATUS_OK);
    if (after_end)
        (void)io_list_dir(io, WORLD_DIR "/snapshots", tmp_each, world);
    copy_compare(world, io);
    io_close(io);
    if (after_end) /* its room is wanted */
        (void)io_remove_tree(world->io, copy->path);
    for (size_t i = 0; i < METRIC_COUNT; i++)
        metric_set((enum metric_id)i, metrics[i]);
}

void world_copy_release(struct world *world) {
    model_base_release(&world->copy.base);
    model_base_release(&world->copy.answered);
}
