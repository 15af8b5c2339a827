/* verify.h: what the checkers of `tidalite verify` share. A checker looks at one part of a data directory,
 * which may be in use: what vanishes because the server has no need of it any more is no damage. */
#ifndef TIDALITE_TOOLS_VERIFY_H
#define TIDALITE_TOOLS_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"
#include "storage/io/io.h"
#include "storage/manifest/manifest.h"

struct verify {
    const char *dir;
    struct io *io;
    bool repair; /* the directory is locked by us */
    bool bar;    /* standard error is a terminal */
    bool bar_shown;
    struct manifest manifest; /* empty if there is none that can be read */
    bool has_manifest;
    uint64_t damaged;  /* pieces reported */
    uint64_t repaired; /* of them */
    unsigned part, part_count;
    const char *part_name;
};

/* A line on standard output: file, offset, what, what it costs. */
void verify_damage(struct verify *verify, const char *file, uint64_t offset, const char *what,
                   const char *costs);

/* A line about something that is no damage. */
void verify_note(struct verify *verify, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* How much of the part at hand is done, of 1000. */
void verify_progress(struct verify *verify, unsigned done);

/* Bit by slot: those that the label part has ever named, whose series log segments need not declare. What is
 * damaged is passed over: verify_head tells. */
int verify_labelled(struct verify *verify, struct buf *bits_out, struct error_detail *detail);

/* The checkers: STATUS_OK, whatever they found; an error with `detail` if they could not look. */
int verify_manifest(struct verify *verify, struct error_detail *detail);
int verify_log(struct verify *verify, struct error_detail *detail);
int verify_head(struct verify *verify, struct error_detail *detail);
int verify_blocks(struct verify *verify, struct error_detail *detail);

#endif
