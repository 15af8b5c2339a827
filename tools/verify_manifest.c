/* verify_manifest.c: both copies of the manifest, and the deletes in it. */
#include <stdio.h>
#include <string.h>

#include "storage/tombstone/tombstone.h"
#include "tools/verify.h"

struct copies {
    struct verify *verify;
    char path[4096];
    unsigned damaged;
    uint64_t offsets[2];
    const char *whats[2];
};

static void copy_each(void *context, uint64_t offset, const char *what) {
    struct copies *copies = context;
    if (copies->damaged < 2) {
        copies->offsets[copies->damaged] = offset;
        copies->whats[copies->damaged++] = what;
    }
}

static void deletes_check(struct verify *verify, const char *path) {
    for (size_t i = 0; i < verify->manifest.delete_count; i++) {
        const struct manifest_delete *one = &verify->manifest.deletes[i];
        struct tombstone *tombstone;
        int status = tombstone_new(slice_of(one->payload, one->payload_len), one->position, NULL, &tombstone);
        if (status == STATUS_OK)
            tombstone_unref(tombstone);
        else if (status == STATUS_CORRUPT)
            verify_damage(verify, path, 0, "a delete in it can't be read",
                          "that the directory does not open");
    }
}

int verify_manifest(struct verify *verify, struct error_detail *detail) {
    struct copies copies = {.verify = verify};
    if ((size_t)snprintf(copies.path, sizeof copies.path, "%s/manifest", verify->dir) >= sizeof copies.path)
        return STATUS_TOO_LARGE;
    int status = manifest_verify(verify->io, verify->dir, copy_each, &copies, detail);
    if (status == STATUS_NOT_FOUND) {
        verify_damage(verify, copies.path, 0, "it is missing",
                      "nothing if the directory has no blocks yet; else that it does not open");
        return STATUS_OK;
    }
    if (status == STATUS_CORRUPT) {
        verify_damage(verify, copies.path, 0, "it is far too large", "that the directory does not open");
        return STATUS_OK;
    }
    if (status < 0)
        return status;
    struct error_detail ignored;
    verify->has_manifest = manifest_load(verify->io, verify->dir, &ignored, &verify->manifest) == STATUS_OK;
    for (unsigned i = 0; i < copies.damaged; i++)
        verify_damage(verify, copies.path, copies.offsets[i], copies.whats[i],
                      verify->has_manifest ? "nothing, the other copy counts"
                                           : "that the directory does not open");
    if (!verify->has_manifest)
        return STATUS_OK;
    deletes_check(verify, copies.path);
    if (verify->repair && copies.damaged > 0) {
        status = manifest_store(verify->io, verify->dir, &verify->manifest, detail);
        if (status < 0)
            return status;
        verify->repaired += copies.damaged;
    }
    return STATUS_OK;
}
