/* model.c: see model.h. */
#include "tests/sim/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

static void *must(void *p) {
    ASSERT(p != NULL);
    return p;
}

/* Room for one more. */
#define GROW(array, count, capacity)                                                                         \
    do {                                                                                                     \
        if ((count) == (capacity)) {                                                                         \
            (capacity) = (capacity) == 0 ? 8 : (capacity)*2;                                                 \
            (array) = must(realloc((array), (capacity) * sizeof *(array)));                                  \
        }                                                                                                    \
    } while (0)

void model_init(struct model *model, size_t series_count) {
    *model = (struct model){.series_count = series_count};
    model->series = must(calloc(series_count, sizeof *model->series));
}

void model_release(struct model *model) {
    for (size_t i = 0; i < model->series_count; i++) {
        free(model->series[i].samples);
        free(model->series[i].declared);
        free(model->series[i].weak_deleted);
    }
    for (size_t i = 0; i < model->write_count; i++) {
        free(model->writes[i]->samples);
        free(model->writes[i]);
    }
    free(model->series);
    free(model->writes);
    free(model->applied);
    free(model->rots);
}

struct model_write *model_send(struct model *model, struct sent_sample *samples, size_t count) {
    struct model_write *write = must(calloc(1, sizeof *write));
    write->number = model->write_count;
    write->samples = samples;
    write->count = count;
    GROW(model->writes, model->write_count, model->write_capacity);
    model->writes[model->write_count++] = write;
    return write;
}

struct model_write *model_send_delete(struct model *model, struct model_delete what) {
    struct model_write *write = model_send(model, NULL, 0);
    write->deletes = true;
    write->what = what;
    return write;
}

void model_rot(struct model *model, uint32_t segment, uint64_t offset) {
    model->rots = must(realloc(model->rots, (model->rot_count + 1) * sizeof *model->rots));
    model->rots[model->rot_count].segment = segment;
    model->rots[model->rot_count++].offset = offset;
}

/* ---- applying ---- */

enum verdict { STORED, EQUAL, REFUSED };

/* The index of the first sample at or behind the time. */
static size_t sample_find(const struct model_series *series, int64_t time_ms) {
    size_t i = 0;
    while (i < series->count && series->samples[i].time_ms < time_ms)
        i++;
    return i;
}

void model_forget(struct model *model, int64_t before_ms) {
    for (size_t i = 0; i < model->series_count; i++) {
        struct model_series *series = &model->series[i];
        size_t gone = sample_find(series, before_ms);
        series->count -= gone;
        if (gone > 0)
            memmove(series->samples, series->samples + gone, series->count * sizeof *series->samples);
    }
}

/* The rule, in one place: the first of a time is stored; equal to it, bit for bit, is acknowledged; another
 * is refused. */
static enum verdict judge(const struct model_series *series, const struct sample *sample) {
    size_t i = sample_find(series, sample->time_ms);
    if (i == series->count || series->samples[i].time_ms != sample->time_ms)
        return STORED;
    return series->samples[i].value_bits == sample->value_bits ? EQUAL : REFUSED;
}

static void sample_insert(struct model_series *series, struct model_sample sample) {
    GROW(series->samples, series->count, series->capacity);
    size_t i = sample_find(series, sample.time_ms);
    memmove(series->samples + i + 1, series->samples + i, (series->count - i) * sizeof *series->samples);
    series->samples[i] = sample;
    series->count++;
}

/* `maybe`: what is carried over declares some series, and which is not known here: another place counts too.
 */
static void declare(struct model_series *series, struct extent at, bool maybe) {
    for (size_t i = 0; i < series->declared_count; i++)
        if (series->declared[i].at.segment == at.segment && !series->declared[i].maybe)
            return;
    GROW(series->declared, series->declared_count, series->declared_capacity);
    series->declared[series->declared_count].at = at;
    series->declared[series->declared_count++].maybe = maybe;
}

bool model_delete_meets(const struct model_delete *what, uint32_t series) {
    return (what->modulus == 0 ? series == what->rest : series % what->modulus == what->rest) != what->others;
}

static bool delete_takes(const struct model_delete *what, const struct model_sample *sample) {
    return sample->time_ms >= what->time_min_ms && sample->time_ms <= what->time_max_ms;
}

/* A delete's rule: what is there now, of those series and times, is gone; what comes later is judged without
 * it.
 */
static void apply_delete(struct model *model, const struct model_delete *what, bool weak) {
    for (uint32_t i = 0; i < model->series_count; i++) {
        struct model_series *series = &model->series[i];
        size_t kept = 0;
        if (!model_delete_meets(what, i))
            continue;
        for (size_t j = 0; j < series->count; j++) {
            if (!delete_takes(what, &series->samples[j])) {
                series->samples[kept++] = series->samples[j];
            } else if (weak) {
                GROW(series->weak_deleted, series->weak_deleted_count, series->weak_deleted_capacity);
                series->weak_deleted[series->weak_deleted_count++] = series->samples[j];
            }
        }
        series->count = kept;
    }
}

static struct model_verdict apply(struct model *model, struct model_write *write, struct extent at,
                                  bool weak) {
    struct model_verdict verdict = {0};
    write->at = at;
    if (write->deletes)
        apply_delete(model, &write->what, weak);
    for (size_t i = 0; i < write->count; i++) {
        const struct sent_sample *sent = &write->samples[i];
        struct model_series *series = &model->series[sent->series];
        declare(series, at, false);
        switch (judge(series, &sent->sample)) {
        case STORED:
            sample_insert(series, (struct model_sample){.time_ms = sent->sample.time_ms,
                                                        .value_bits = sent->sample.value_bits,
                                                        .start_ms = sent->start_ms,
                                                        .at = at,
                                                        .weak = weak});
            verdict.stored++;
            break;
        case EQUAL:
            verdict.equal++;
            break;
        case REFUSED:
            verdict.refused++;
            break;
        }
    }
    return verdict;
}

static void weak_end(struct model *model) {
    if (!model->has_weak)
        return;
    for (size_t i = 0; i < model->series_count; i++)
        for (size_t j = 0; j < model->series[i].count; j++)
            model->series[i].samples[j].weak = false;
    for (size_t i = 0; i < model->series_count; i++)
        model->series[i].weak_deleted_count = 0;
    model->has_weak = false;
}

static void bury_before(struct model *model, size_t end) {
    for (size_t i = model->unsettled; i < end; i++)
        if (model->writes[i]->state == WRITE_MAYBE)
            model->writes[i]->state = WRITE_DEAD;
}

void model_bury(struct model *model) {
    bury_before(model, model->write_count);
}

struct model_verdict model_acknowledge(struct model *model, struct model_write *write, struct extent at) {
    ASSERT(write->state == WRITE_IN_FLIGHT);
    for (size_t i = model->unsettled; i < write->number; i++)
        if (model->writes[i]->deletes && model->writes[i]->state == WRITE_IN_FLIGHT)
            (void)model_acknowledge(model, model->writes[i], at);
    write->state = WRITE_ACKNOWLEDGED;
    if (write->count > 0 || write->deletes) {
        bury_before(model, write->number); /* what was sent behind a delete that went on may be there */
        weak_end(model);
        model->last = at;
    }
    while (model->unsettled < model->write_count &&
           model->writes[model->unsettled]->state != WRITE_IN_FLIGHT &&
           model->writes[model->unsettled]->state != WRITE_MAYBE)
        model->unsettled++;
    GROW(model->applied, model->applied_count, model->applied_capacity);
    model->applied[model->applied_count++] = write;
    return apply(model, write, at, false);
}

/* ---- after a start ---- */

static int64_t found_start(const struct found_series *found, size_t i) {
    return found->columns.has_starts ? found->columns.starts_ms[i] : START_NONE;
}

/* The index of the sample, or SIZE_MAX. */
static size_t found_find(const struct found_series *found, int64_t time_ms, uint64_t value_bits) {
    for (size_t i = 0; i < found->columns.count; i++)
        if (found->columns.times_ms[i] == time_ms)
            return double_bits(found->columns.values[i]) == value_bits ? i : SIZE_MAX;
    return SIZE_MAX;
}

static bool found_has(const struct found_series *found, int64_t time_ms, uint64_t value_bits) {
    return found_find(found, time_ms, value_bits) != SIZE_MAX;
}

/* Would the delete take something, and is none of that found? */
static bool delete_survived(const struct model *model, const struct model_delete *what,
                            const struct found_series *found) {
    size_t gone = 0;
    for (uint32_t i = 0; i < model->series_count; i++) {
        const struct model_series *series = &model->series[i];
        for (size_t j = 0; j < series->count && model_delete_meets(what, i); j++) {
            if (!delete_takes(what, &series->samples[j]))
                continue;
            if (found_has(&found[i], series->samples[j].time_ms, series->samples[j].value_bits))
                return false;
            gone++;
        }
    }
    return gone > 0;
}

/* Would the write store something, and is all of that found? */
static bool write_survived(const struct model *model, const struct model_write *write,
                           const struct found_series *found) {
    size_t new_count = 0;
    if (write->deletes)
        return delete_survived(model, &write->what, found);
    for (size_t i = 0; i < write->count; i++) {
        const struct sent_sample *sent = &write->samples[i];
        struct model_series series = model->series[sent->series];
        /* its own samples before this one may stand in the way: a later one of the same write is new too */
        if (judge(&series, &sent->sample) != STORED)
            continue;
        bool first = true;
        for (size_t j = 0; j < i && first; j++)
            first = write->samples[j].series != sent->series ||
                    write->samples[j].sample.time_ms != sent->sample.time_ms;
        if (!first)
            continue;
        new_count++;
        if (!found_has(&found[sent->series], sent->sample.time_ms, sent->sample.value_bits))
            return false;
    }
    return new_count > 0;
}

static bool extent_rotten(const struct model *model, const struct extent *at) {
    for (size_t i = 0; i < model->rot_count; i++)
        if (at->segment == SEGMENT_ANY || at->segment == SEGMENT_TAIL ||
            (model->rots[i].segment == at->segment && model->rots[i].offset >= at->begin &&
             model->rots[i].offset < at->end))
            return true;
    return false;
}

/* Damage costs what it touches: the groups that hold the sample and its series' declaration. */
static bool loss_explained_at(const struct model *model, const struct model_series *series,
                              const struct extent *at) {
    if (extent_rotten(model, at))
        return true;
    for (size_t i = 0; i < series->declared_count; i++)
        if (series->declared[i].at.segment == at->segment && extent_rotten(model, &series->declared[i].at))
            return true;
    return false;
}

static bool loss_explained(const struct model *model, const struct model_series *series,
                           const struct model_sample *sample) {
    bool explained = model->block_rot || loss_explained_at(model, series, &sample->at);
    for (unsigned i = 0; i < sample->also_count; i++)
        explained |= loss_explained_at(model, series, &sample->also[i]);
    return explained;
}

/* Was a delete of that time lost to damage? Then what it took is back, and what was written in its place
 * since is a conflict with that. */
static bool delete_lost(const struct model *model, uint32_t series, int64_t time_ms) {
    for (size_t i = 0; i < model->write_count; i++) {
        const struct model_write *write = model->writes[i];
        if (write->deletes && write->state == WRITE_ACKNOWLEDGED &&
            model_delete_meets(&write->what, series) && time_ms >= write->what.time_min_ms &&
            time_ms <= write->what.time_max_ms && extent_rotten(model, &write->at))
            return true;
    }
    return false;
}

static bool was_sent(const struct model *model, uint32_t series, const struct model_sample *sample) {
    for (size_t i = 0; i < model->write_count; i++)
        for (size_t j = 0; j < model->writes[i]->count; j++) {
            const struct sent_sample *sent = &model->writes[i]->samples[j];
            if (sent->series == series && sent->sample.time_ms == sample->time_ms &&
                sent->sample.value_bits == sample->value_bits && sent->start_ms == sample->start_ms)
                return true;
        }
    return false;
}

static bool found_has_time(const struct found_series *found, int64_t time_ms) {
    for (size_t i = 0; i < found->columns.count; i++)
        if (found->columns.times_ms[i] == time_ms)
            return true;
    return false;
}

static void rot_settle(struct model *model, uint32_t number, const struct found_series *found,
                       size_t *lost_out) {
    struct model_series *series = &model->series[number];
    size_t kept = 0;
    for (size_t i = 0; i < series->count; i++) {
        const struct model_sample *sample = &series->samples[i];
        size_t at = found_find(found, sample->time_ms, sample->value_bits);
        /* What is found with another start is a repetition of a lost one; taken over below. */
        if ((at != SIZE_MAX && found_start(found, at) == sample->start_ms) ||
            !(loss_explained(model, series, sample) ||
              (found_has_time(found, sample->time_ms) && delete_lost(model, number, sample->time_ms)))) {
            series->samples[kept++] = *sample;
        } else {
            if (at == SIZE_MAX && ++*lost_out == 1)
                snprintf(model->lost_text, sizeof model->lost_text,
                         "series %u, time %lld, from segment %u, bytes %llu to %llu", number,
                         (long long)sample->time_ms, sample->at.segment, (unsigned long long)sample->at.begin,
                         (unsigned long long)sample->at.end);
        }
    }
    series->count = kept;
    for (size_t i = 0; i < found->columns.count; i++) {
        struct model_sample sample = {.time_ms = found->columns.times_ms[i],
                                      .value_bits = double_bits(found->columns.values[i]),
                                      .start_ms = found_start(found, i)};
        size_t at = sample_find(series, sample.time_ms);
        if ((at == series->count || series->samples[at].time_ms != sample.time_ms) &&
            was_sent(model, number, &sample))
            sample_insert(series, sample);
    }
}

static bool extent_is(const struct extent *a, const struct extent *b) {
    return a->segment == b->segment && a->begin == b->begin;
}

static bool sample_stands(const struct model_sample *sample, const struct extent *at) {
    bool stands = extent_is(&sample->at, at);
    for (unsigned i = 0; i < sample->also_count; i++)
        stands |= extent_is(&sample->also[i], at);
    return stands;
}

/* What stands in the new segment now is the last group that was acknowledged or carried over, or, if the next
 * was found whole behind it, just that: both places are possible. */
void model_carry(struct model *model, struct extent carried) {
    for (size_t i = 0; i < model->series_count; i++) {
        struct model_series *series = &model->series[i];
        for (size_t j = 0; j < series->count; j++) {
            struct model_sample *sample = &series->samples[j];
            if (sample->at.segment == SEGMENT_TAIL)
                sample->at = carried;
            else if (!sample_stands(sample, &model->last))
                continue;
            else if (sample->also_count < MODEL_ALSO_MAX)
                sample->also[sample->also_count++] = carried;
            else
                sample->at.segment = SEGMENT_ANY;
        }
        declare(series, carried, true);
    }
    model->last = carried;
}

static void weak_settle(struct model_series *series, const struct found_series *found) {
    for (size_t i = 0; i < series->weak_deleted_count; i++)
        if (found_has(found, series->weak_deleted[i].time_ms, series->weak_deleted[i].value_bits))
            sample_insert(series, series->weak_deleted[i]);
    series->weak_deleted_count = 0;
    size_t kept = 0;
    for (size_t i = 0; i < series->count; i++)
        if (!series->samples[i].weak ||
            found_has(found, series->samples[i].time_ms, series->samples[i].value_bits))
            series->samples[kept++] = series->samples[i];
    series->count = kept;
}

void model_settle(struct model *model, const struct found_series *found, bool writable, struct extent carried,
                  size_t *lost_out) {
    *lost_out = 0;
    if (model->has_weak)
        for (size_t i = 0; i < model->series_count; i++)
            weak_settle(&model->series[i], &found[i]);
    for (size_t i = model->unsettled; i < model->write_count; i++) {
        struct model_write *write = model->writes[i];
        ASSERT(write->state != WRITE_IN_FLIGHT);
        if (write->state != WRITE_MAYBE)
            continue;
        bool survived = write_survived(model, write, found);
        write->state = survived ? WRITE_ACKNOWLEDGED : WRITE_DEAD;
        if (survived) {
            (void)apply(model, write, (struct extent){.segment = SEGMENT_TAIL}, !writable);
            model->has_weak |= !writable;
        }
    }
    if (writable)
        weak_end(model);
    model->unsettled = model->write_count;
    if (model->rot_count > 0 || model->block_rot)
        for (uint32_t i = 0; i < model->series_count; i++)
            rot_settle(model, i, &found[i], lost_out);
    if (carried.segment != 0)
        model_carry(model, carried);
}

/* ---- comparing ---- */

const char *model_compare(const struct model *model, uint32_t number, const struct sample_columns *columns,
                          int64_t time_min_ms, int64_t time_max_ms) {
    static char text[256];
    const struct model_series *series = &model->series[number];
    size_t at = sample_find(series, time_min_ms), i = 0;
    for (; at < series->count && series->samples[at].time_ms <= time_max_ms; at++, i++) {
        const struct model_sample *want = &series->samples[at];
        if (i == columns->count || columns->times_ms[i] > want->time_ms) {
            snprintf(text, sizeof text,
                     "series %u: the sample at %lld is missing (segment %u, bytes %llu to %llu)", number,
                     (long long)want->time_ms, want->at.segment, (unsigned long long)want->at.begin,
                     (unsigned long long)want->at.end);
            return text;
        }
        if (columns->times_ms[i] < want->time_ms)
            break;
        if (double_bits(columns->values[i]) != want->value_bits) {
            snprintf(text, sizeof text, "series %u: the sample at %lld is %016llx, not %016llx", number,
                     (long long)want->time_ms, (unsigned long long)double_bits(columns->values[i]),
                     (unsigned long long)want->value_bits);
            return text;
        }
        int64_t start_ms = columns->has_starts ? columns->starts_ms[i] : START_NONE;
        if (start_ms != want->start_ms) {
            snprintf(text, sizeof text, "series %u: the sample at %lld has start %lld, not %lld", number,
                     (long long)want->time_ms, (long long)start_ms, (long long)want->start_ms);
            return text;
        }
    }
    if (i < columns->count) {
        snprintf(text, sizeof text, "series %u: a sample at %lld that must not be there", number,
                 (long long)columns->times_ms[i]);
        return text;
    }
    return NULL;
}

/* ---- an instant ---- */

void model_base_take(const struct model *model, struct model_base *out) {
    *out = (struct model_base){.series = must(calloc(model->series_count, sizeof *out->series)),
                               .series_count = model->series_count,
                               .applied_begin = model->applied_count,
                               .applied_end = model->applied_count};
    for (size_t i = 0; i < model->series_count; i++) {
        const struct model_series *from = &model->series[i];
        struct model_series *to = &out->series[i];
        to->count = to->capacity = from->count;
        to->samples = must(malloc((from->count + 1) * sizeof *to->samples));
        if (from->count > 0)
            memcpy(to->samples, from->samples, from->count * sizeof *to->samples);
    }
}

void model_base_release(struct model_base *base) {
    for (size_t i = 0; i < base->series_count && base->series != NULL; i++) {
        free(base->series[i].samples);
        free(base->series[i].declared);
    }
    free(base->series);
    *base = (struct model_base){0};
}

static const char *all_compare(const struct model *model, const struct found_series *found) {
    const char *different = NULL;
    for (uint32_t i = 0; i < model->series_count && different == NULL; i++)
        different = model_compare(model, i, &found[i].columns, INT64_MIN, INT64_MAX);
    return different;
}

const char *model_base_compare(const struct model *model, struct model_base *base,
                               const struct found_series *found) {
    static char first[256];
    struct model_base again;
    struct model at = {.series = base->series, .series_count = base->series_count};
    const char *different = all_compare(&at, found);
    if (different == NULL)
        return NULL;
    snprintf(first, sizeof first, "%s", different);
    model_base_take(&at, &again); /* so that the base stays what it is */
    at.series = again.series;
    for (size_t i = base->applied_begin; i < base->applied_end && different != NULL; i++) {
        (void)apply(&at, model->applied[i], (struct extent){0}, false);
        different = all_compare(&at, found);
    }
    model_base_release(&again);
    return different == NULL ? NULL : first;
}

bool model_series_has(const struct model_series *series, int64_t time_min_ms, int64_t time_max_ms) {
    size_t at = sample_find(series, time_min_ms);
    return at < series->count && series->samples[at].time_ms <= time_max_ms;
}

size_t model_series_in(const struct model *model, int64_t time_min_ms, int64_t time_max_ms) {
    size_t count = 0;
    for (size_t i = 0; i < model->series_count; i++)
        count += model_series_has(&model->series[i], time_min_ms, time_max_ms);
    return count;
}
