/* verify_blocks.c: every block that the manifest names, wholly; and directories that it does not name. */
#include <stdio.h>
#include <string.h>

#include "storage/block/block.h"
#include "tools/verify.h"

struct block_check {
    struct verify *verify;
    char dir[4096];
    uint64_t findings;
    uint64_t in_chunks;
    struct error_detail *detail;
};

static int finding_each(void *context, const struct block_finding *finding) {
    struct block_check *check = context;
    char path[4200];
    bool chunks = strcmp(finding->file, "chunks") == 0;
    snprintf(path, sizeof path, "%s/%s", check->dir, finding->file);
    check->findings++;
    check->in_chunks += chunks;
    verify_damage(check->verify, path, finding->offset, finding->what,
                  chunks ? "the samples that lie there" : "nothing but time, it is made anew at each start");
    return STATUS_OK;
}

/* Is the block still named? In a directory in use it may have been replaced meanwhile. */
static bool still_named(struct verify *verify, uint64_t id) {
    struct manifest now;
    struct error_detail ignored;
    if (manifest_load(verify->io, verify->dir, &ignored, &now) < 0)
        return true;
    bool named = false;
    for (size_t i = 0; i < now.block_count; i++)
        named |= now.blocks[i].id == id;
    manifest_release(&now);
    return named;
}

static void meta_check(struct block_check *check, const struct block_meta *meta,
                       const struct manifest_block *info) {
    char path[4200];
    snprintf(path, sizeof path, "%s/manifest", check->verify->dir);
    if (meta->id != info->id)
        verify_damage(check->verify, check->dir, 0, "it is the directory of another block",
                      "answers that mix up two blocks");
    else if (meta->series_count != info->series_count || meta->sample_count != info->sample_count ||
             meta->time_min_ms != info->time_min_ms || meta->time_max_ms != info->time_max_ms)
        verify_damage(check->verify, path, 0, "counts or times are not those of a block",
                      "answers that pass over that block");
}

static int verify_steps(struct block_check *check, struct block *block, unsigned from, unsigned share) {
    struct block_verifier *verifier;
    int status = block_verifier_open(block, finding_each, check, &verifier);
    while (status == STATUS_OK) {
        unsigned done = 0;
        status = block_verifier_step(verifier, &done, check->detail);
        verify_progress(check->verify, from + done * share / 1000);
    }
    if (status != STATUS_NO_MEMORY)
        block_verifier_close(verifier);
    return status == STATUS_END ? STATUS_OK : status;
}

static int block_check_one(struct verify *verify, const struct manifest_block *info, unsigned from,
                           unsigned share, struct error_detail *detail) {
    struct block_check check = {.verify = verify, .detail = detail};
    struct block *block = NULL;
    snprintf(check.dir, sizeof check.dir, "%s/blocks/%016llx", verify->dir, (unsigned long long)info->id);
    int status = block_open(verify->io, check.dir, detail, &block);
    if ((status == STATUS_NOT_FOUND || status == STATUS_CORRUPT) && !still_named(verify, info->id))
        return STATUS_OK;
    if (status == STATUS_NOT_FOUND || status == STATUS_CORRUPT) {
        verify_damage(verify, check.dir, 0,
                      status == STATUS_NOT_FOUND ? "the block is missing"
                                                 : "nothing in the block can be believed",
                      "all of its samples");
        return STATUS_OK;
    }
    if (status < 0)
        return status;
    meta_check(&check, block_meta(block), info);
    status = verify_steps(&check, block, from, share);
    /* With damage in `chunks` the index may be what still knows the labels: it stays, if it is whole itself.
     */
    bool index_only = check.in_chunks == 0 || block_index_rebuilt(block);
    if (status == STATUS_OK && verify->repair && index_only && check.findings > check.in_chunks) {
        status = block_renew(verify->io, check.dir, detail);
        if (status == STATUS_OK)
            verify->repaired += check.findings - check.in_chunks;
    }
    block_close(block);
    return status;
}

static int dir_each(void *context, const char *name) {
    struct verify *verify = context;
    for (size_t i = 0; i < verify->manifest.block_count; i++) {
        char known[32];
        snprintf(known, sizeof known, "%016llx", (unsigned long long)verify->manifest.blocks[i].id);
        if (strcmp(known, name) == 0)
            return STATUS_OK;
    }
    verify_note(verify,
                "%s/blocks/%s is not named by the manifest: being written, or left over and removed at the "
                "next start",
                verify->dir, name);
    return STATUS_OK;
}

int verify_blocks(struct verify *verify, struct error_detail *detail) {
    char path[4096];
    if (!verify->has_manifest)
        return error_set(detail, STATUS_CORRUPT, "no manifest says which of them count");
    const struct manifest *manifest = &verify->manifest;
    unsigned count = (unsigned)manifest->block_count, done = 0;
    int first_error = STATUS_OK;
    for (size_t i = 0; i < manifest->block_count; i++, done++) {
        int status = block_check_one(verify, &manifest->blocks[i], done * 1000 / count, 1000 / count, detail);
        if (status < 0 && first_error == STATUS_OK)
            first_error = status;
    }
    snprintf(path, sizeof path, "%s/blocks", verify->dir);
    int status = io_list_dir(verify->io, path, dir_each, verify);
    if (status == STATUS_NOT_FOUND)
        status = STATUS_OK;
    return first_error < 0 ? first_error : status;
}
