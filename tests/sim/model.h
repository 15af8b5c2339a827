/* model.h: what a store must hold, kept as naively as it can be: sorted arrays, no log, no chunks, no disk.
 *
 * A *write* is a request as it was sent. It ends acknowledged, or failed; a failed one may still turn up
 * after the next start if it was the last thing that was written (nobody knows then), and never again once a
 * later one was acknowledged. Memory that runs out ends the program. */
#ifndef TIDALITE_TESTS_SIM_MODEL_H
#define TIDALITE_TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/batch.h"

/* Where in the log something stands: a run of bytes of one segment. */
#define SEGMENT_ANY  0          /* not known, and anywhere */
#define SEGMENT_TAIL UINT32_MAX /* not known, but in the last group */
struct extent {
    uint32_t segment;
    uint64_t begin, end;
};

#define MODEL_ALSO_MAX 4

struct model_sample {
    int64_t time_ms;
    uint64_t value_bits;
    int64_t start_ms;
    struct extent at;
    struct extent also[MODEL_ALSO_MAX]; /* may have been carried over to there */
    unsigned also_count;
    bool weak; /* never acknowledged, and found by a start that could not write: the next may not find it */
};

struct sent_sample {
    uint32_t series;
    struct sample sample;
    int64_t start_ms;
};

/* A delete: of the series with number % modulus == rest (modulus 0: number == rest), or of all others. */
struct model_delete {
    uint32_t modulus, rest;
    bool others;
    int64_t time_min_ms, time_max_ms;
};

enum write_state { WRITE_IN_FLIGHT, WRITE_ACKNOWLEDGED, WRITE_MAYBE, WRITE_DEAD };

struct model_write {
    uint64_t number;
    enum write_state state;
    struct sent_sample *samples;
    size_t count;
    bool deletes; /* it is a delete, and has no samples */
    struct model_delete what;
    struct extent at; /* where the log has it, once it is applied */
};

struct model_series {
    struct model_sample *samples; /* ascending */
    size_t count;
    size_t capacity;
    struct model_declared {
        struct extent at;
        bool maybe;
    } * declared; /* where each segment that uses it declares it */
    size_t declared_count;
    size_t declared_capacity;
    /* Deleted by what was never acknowledged, and was found by a start that could not write: the next may
     * find them. */
    struct model_sample *weak_deleted;
    size_t weak_deleted_count;
    size_t weak_deleted_capacity;
};

struct model {
    struct model_series *series;
    size_t series_count;
    struct model_write **writes; /* all that were ever sent, in order */
    size_t write_count;
    size_t write_capacity;
    struct model_write **applied; /* what was acknowledged, in order */
    size_t applied_count;
    size_t applied_capacity;
    bool has_weak;
    struct extent last; /* of the last group that was acknowledged or carried over */
    size_t unsettled;   /* writes before this one are acknowledged or dead */
    struct {
        uint32_t segment;
        uint64_t offset;
    } * rots;
    size_t rot_count;
    char lost_text[128]; /* the first sample that the last start lost */
    bool block_rot;      /* in a file of a block: any loss that was reported may come from it */
};

void model_init(struct model *model, size_t series_count);
void model_release(struct model *model);

/* Takes over `samples` (malloc). */
struct model_write *model_send(struct model *model, struct sent_sample *samples, size_t count);

struct model_write *model_send_delete(struct model *model, struct model_delete what);

struct model_verdict {
    uint64_t stored, equal, refused;
};

/* The log can be written: it goes on behind what failed so far, which can never come back. */
void model_bury(struct model *model);

/* Acknowledged: it is durable and applied, behind all that were applied before it, and what failed before it
 * can never come back. So are deletes that were sent before it and go on yet: they were logged before it. */
struct model_verdict model_acknowledge(struct model *model, struct model_write *write, struct extent at);

/* One series' samples as the store has them after a start. `found` has one for each series. */
struct found_series {
    struct sample_columns columns;
};

/* Settles the writes that may have survived: those whose new samples are all found are applied, the others
 * are dead. Then takes over what rot explains: samples that it may have destroyed and, once there was any,
 * samples that were refused only because of a lost one. *lost_out: how many are gone. What is still different
 * shows in model_compare. */
void model_settle(struct model *model, const struct found_series *found, bool writable, struct extent carried,
                  size_t *lost_out);

/* The same for a start that could not write, once the log goes on. */
void model_carry(struct model *model, struct extent carried);

/* NULL if the series is as the model has it, else what is different, in a static buffer. */
const char *model_compare(const struct model *model, uint32_t series, const struct sample_columns *columns,
                          int64_t time_min_ms, int64_t time_max_ms);

/* All samples before that time are gone, as retention takes them. */
void model_forget(struct model *model, int64_t before_ms);

/* What a model held at one instant, and which of what it acknowledged came after. */
struct model_base {
    struct model_series *series; /* with samples only; NULL: none was taken */
    size_t series_count;
    size_t applied_begin, applied_end;
};
void model_base_take(const struct model *model, struct model_base *out);
void model_base_release(struct model_base *base); /* zeroed is fine */

/* NULL if what was found is what the model held at that instant, or after some of applied[applied_begin]
 * to applied[applied_end], the first of them. Else what is different at the instant. */
const char *model_base_compare(const struct model *model, struct model_base *base,
                               const struct found_series *found);

void model_rot(struct model *model, uint32_t segment, uint64_t offset);

/* How many series have a sample in the range. */
size_t model_series_in(const struct model *model, int64_t time_min_ms, int64_t time_max_ms);
bool model_delete_meets(const struct model_delete *what, uint32_t series);
bool model_series_has(const struct model_series *series, int64_t time_min_ms, int64_t time_max_ms);

#endif
