/* block_select.c: matchers → series.
 *
 * For a matcher let A be the series with a value that it names (that equals, or that the pattern matches),
 * and P the series that have the label at all. What remains is
 *
 *     a="x", a=~"x"       A                      if the empty value is not named
 *     a="",  a=~"x|"      A, and all but P       if it is
 *     a!="x", a!~"x"      all but A              if it is not
 *     a!="", a!~"x|"      P without A            if it is
 *
 * Sets are bits over a range of ordinals that shrinks with every matcher: a block is sorted by metric, so the
 * first matcher that counts leaves a part of it, and the postings of the others are read for that part only.
 * The matcher with the fewest series goes first. A pattern over a label with many more values than there are
 * candidates left is asked of the candidates' labels instead. */
#include <stdlib.h>

#include "base/alloc.h"
#include "storage/block/block_private.h"

/* Looking at a candidate's labels costs about as much as this many values of a label. */
#define CANDIDATE_COST 8

struct plan {
    const struct matcher *matcher;
    bool negative;    /* != or !~ */
    bool names_empty; /* the empty value is among those it names */
    bool has_name;    /* some series has the label */
    uint32_t name_number;
    struct block__name_entry name;
    bool has_value; /* EQUAL and NOT_EQUAL: some series has the value */
    struct block__value_entry value;
    uint64_t cost; /* at most so many series remain; the order of application */
};

static bool matcher_is_regex(const struct matcher *matcher) {
    return matcher->kind == MATCHER_REGEX || matcher->kind == MATCHER_NOT_REGEX;
}

static bool names_value(const struct matcher *matcher, struct slice value) {
    if (!matcher_is_regex(matcher))
        return slice_equal(value, matcher->value);
    return slice_starts_with(value, matcher->pattern->prefix) &&
           matcher->pattern->match(matcher->pattern, value);
}

/* ---- A and P ------------------------------------------------------------------------------------------ */

struct union_walk {
    struct block__reading *reading;
    const struct matcher *matcher; /* NULL: all values */
    struct block__set *set;
};

static int union_each(void *context, struct slice value, const struct block__value_entry *entry) {
    struct union_walk *walk = context;
    if (walk->matcher != NULL) {
        struct slice prefix = walk->matcher->pattern->prefix;
        if (!slice_starts_with(value, prefix))
            return slice_compare(value, prefix) > 0 ? STATUS_END : STATUS_OK;
        if (!walk->matcher->pattern->match(walk->matcher->pattern, value))
            return STATUS_OK;
    }
    return block__set_add_value(walk->reading, entry, walk->set);
}

/* Adds P. */
static int add_present(struct block__reading *reading, const struct plan *plan, struct block__set *set) {
    if (!plan->has_name)
        return STATUS_OK;
    switch (plan->name.present) {
    case BLOCK__PRESENT_ALL:
        return block__set_add_table(reading, BLOCK__TABLE_POSTINGS, BLOCK__PAIR_ALL, set);
    case BLOCK__PRESENT_STORED:
        return block__set_add_table(reading, BLOCK__TABLE_PRESENT, plan->name_number, set);
    case BLOCK__PRESENT_NONE:
        break;
    }
    struct union_walk walk = {reading, NULL, set};
    return block__reading_values(reading, &plan->name, (struct slice){NULL, 0}, union_each, &walk);
}

/* Adds A. */
static int add_named(struct block__reading *reading, const struct plan *plan, struct block__set *set) {
    if (!plan->has_name)
        return STATUS_OK;
    if (!matcher_is_regex(plan->matcher))
        return plan->has_value ? block__set_add_value(reading, &plan->value, set) : STATUS_OK;
    const struct matcher_pattern *pattern = plan->matcher->pattern;
    if (pattern->matches_all)
        return add_present(reading, plan, set);
    if (pattern->literal_count == 0) {
        struct union_walk walk = {reading, plan->matcher, set};
        return block__reading_values(reading, &plan->name, pattern->prefix, union_each, &walk);
    }
    for (size_t i = 0; i < pattern->literal_count; i++) {
        struct block__value_entry entry;
        if (pattern->literals[i].len == 0)
            continue;
        int status = block__reading_value(reading, &plan->name, pattern->literals[i], &entry);
        if (status == STATUS_OK)
            status = block__set_add_value(reading, &entry, set);
        if (status < 0 && status != STATUS_NOT_FOUND)
            return status;
    }
    return STATUS_OK;
}

/* ---- One matcher after the other ---------------------------------------------------------------------- */

static int no_memory(struct block__reading *reading) {
    return error_set(reading->detail, STATUS_NO_MEMORY, "selecting series: out of memory");
}

static int plan_make(struct block__reading *reading, const struct matcher *matcher, struct plan *plan) {
    *plan =
        (struct plan){.matcher = matcher,
                      .negative = matcher->kind == MATCHER_NOT_EQUAL || matcher->kind == MATCHER_NOT_REGEX,
                      .names_empty = names_value(matcher, (struct slice){NULL, 0})};
    uint64_t all = reading->block->index.info.series_count;
    int status = block__reading_name(reading, matcher->name, &plan->name, &plan->name_number);
    if (status < 0 && status != STATUS_NOT_FOUND)
        return status;
    plan->has_name = status == STATUS_OK;
    plan->cost = plan->has_name ? plan->name.series_count : 0;
    if (plan->has_name && !matcher_is_regex(matcher)) {
        status = matcher->value.len == 0
                     ? STATUS_NOT_FOUND
                     : block__reading_value(reading, &plan->name, matcher->value, &plan->value);
        if (status < 0 && status != STATUS_NOT_FOUND)
            return status;
        plan->has_value = status == STATUS_OK;
        if (matcher->kind == MATCHER_EQUAL && matcher->value.len > 0)
            plan->cost = plan->has_value ? plan->value.series_count : 0;
    }
    if (plan->negative != plan->names_empty) /* a missing label satisfies it: never the first choice */
        plan->cost += all;
    return STATUS_OK;
}

/* Does it let everything pass? */
static bool plan_is_idle(const struct plan *plan) {
    if (plan->negative == plan->names_empty)
        return false;
    return !plan->has_name || (plan->matcher->kind == MATCHER_REGEX && plan->matcher->pattern->matches_all) ||
           (plan->matcher->kind == MATCHER_NOT_EQUAL && !plan->has_value);
}

static int plan_order(const void *a, const void *b) {
    const struct plan *x = a, *y = b;
    return (x->cost > y->cost) - (x->cost < y->cost);
}

/* Asks the labels of each candidate. */
static int filter_by_labels(struct block__reading *reading, const struct matcher *matcher,
                            struct block__set *set) {
    int status = STATUS_OK;
    struct block_view *view = NULL;
    if (block_view_open(reading->block, &view) < 0)
        return no_memory(reading);
    struct block__run_of_ordinals run = {0};
    while (block__set_next(set, run.first + run.length, &run) == STATUS_OK) {
        for (uint32_t ordinal = run.first; ordinal < run.first + run.length; ordinal++) {
            struct slice labels;
            status = block_view_labels(view, ordinal, &labels, reading->detail);
            if (status == STATUS_NOT_FOUND)
                status = block__reading_corrupt(reading, BLOCK__TABLE_SERIES);
            TRY(status);
            if (!matcher_match(matcher, label_bytes_get(labels, matcher->name)))
                set->words[(ordinal - set->first) / 64] &= ~((uint64_t)1 << (ordinal % 64));
        }
    }
out:
    block_view_close(view);
    return status;
}

static int labels_are_cheaper(struct block__reading *reading, const struct plan *plan,
                              const struct block__set *set, bool *out) {
    const struct matcher_pattern *pattern = plan->matcher->pattern;
    *out = false;
    if (!plan->has_name || !matcher_is_regex(plan->matcher) || pattern->literal_count > 0 ||
        pattern->matches_all)
        return STATUS_OK;
    uint64_t candidates = block__set_count(set), values = plan->name.pair_count;
    int status = STATUS_OK;
    if (candidates * CANDIDATE_COST < values && pattern->prefix.len > 0)
        status = block__reading_prefix_count(reading, &plan->name, pattern->prefix, &values);
    *out = candidates * CANDIDATE_COST < values;
    return status;
}

static int plan_apply(struct block__reading *reading, const struct plan *plan, struct block__set *set) {
    int status = STATUS_OK;
    struct block__set named = {0}, present = {0};
    bool by_labels;
    TRY(labels_are_cheaper(reading, plan, set, &by_labels));
    if (by_labels)
        return filter_by_labels(reading, plan->matcher, set);
    if (block__set_init(&named, set->first, set->end) < 0 ||
        (plan->names_empty && block__set_init(&present, set->first, set->end) < 0)) {
        status = no_memory(reading);
        goto out;
    }
    TRY(add_named(reading, plan, &named));
    if (!plan->names_empty) {
        if (plan->negative)
            block__set_and_not(set, &named);
        else
            block__set_and(set, &named);
        goto out;
    }
    TRY(add_present(reading, plan, &present));
    block__set_and_not(&present, &named); /* P without A */
    if (plan->negative)
        block__set_and(set, &present);
    else
        block__set_and_not(set, &present);
out:
    block__set_release(&named);
    block__set_release(&present);
    return status;
}

int block__select_set(struct block__reading *reading, const struct matcher *matchers, size_t count,
                      struct block__set *out) {
    int status = STATUS_OK;
    struct block__set set = {0};
    struct plan *plans = mem_alloc(count * sizeof *plans);
    if (plans == NULL)
        return no_memory(reading);
    for (size_t i = 0; i < count; i++)
        TRY(plan_make(reading, &matchers[i], &plans[i]));
    if (count > 0)
        qsort(plans, count, sizeof *plans, plan_order);
    if (block__set_init(&set, 0, reading->block->index.info.ordinal_count) < 0) {
        status = no_memory(reading);
        goto out;
    }
    size_t first = 0;
    if (count > 0 && plans[0].negative == plans[0].names_empty && !plans[0].negative) {
        TRY(add_named(reading, &plans[0], &set)); /* saves the set of all */
        first = 1;
    } else {
        TRY(block__set_add_table(reading, BLOCK__TABLE_POSTINGS, BLOCK__PAIR_ALL, &set));
    }
    block__set_trim(&set);
    for (size_t i = first; i < count && set.end > set.first; i++) {
        if (plan_is_idle(&plans[i]))
            continue;
        TRY(plan_apply(reading, &plans[i], &set));
        block__set_trim(&set);
    }
out:
    mem_free(plans);
    if (status < 0)
        block__set_release(&set);
    else
        *out = set;
    return status;
}

int block_select(struct block *block, const struct matcher *matchers, size_t count, int64_t time_min_ms,
                 int64_t time_max_ms, uint32_t **ordinals_out, size_t *count_out,
                 struct error_detail *detail) {
    int status = STATUS_OK;
    uint32_t *ordinals = NULL;
    size_t total = 0;
    struct block__set set = {0};
    struct block__reading reading = {0};
    if (time_max_ms >= block->meta.time_min_ms && time_min_ms <= block->meta.time_max_ms) {
        TRY(block__reading_begin(block, detail, &reading));
        TRY(block__select_set(&reading, matchers, count, &set));
        total = (size_t)block__set_count(&set);
    }
    ordinals = mem_alloc(total * sizeof *ordinals);
    if (ordinals == NULL) {
        status = error_set(detail, STATUS_NO_MEMORY, "selecting series: out of memory");
        goto out;
    }
    size_t at = 0;
    struct block__run_of_ordinals run = {0};
    while (block__set_next(&set, run.first + run.length, &run) == STATUS_OK)
        for (uint32_t i = 0; i < run.length; i++)
            ordinals[at++] = run.first + i;
    if (total > 0 && ordinals[total - 1] >= block->index.info.ordinal_count) {
        status = block__reading_corrupt(&reading, BLOCK__TABLE_POSTINGS);
        goto out;
    }
    *ordinals_out = ordinals;
    *count_out = total;
out:
    if (status < 0)
        mem_free(ordinals);
    block__set_release(&set);
    block__reading_end(&reading);
    return status;
}
