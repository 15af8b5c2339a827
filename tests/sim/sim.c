/* sim.c: whole storages on simulated machines that lose power, from a seed.
 *
 *     sim --seed N --rounds N     worlds N, N+1, … of up to 20 rounds each, until so many ends were survived
 *
 * A *round* is some steps (steps.h), then the end of the machine, what survives, a new start, and the
 * comparison with the model (model.h). Steps draw their random numbers from (seed, round, step) alone, so
 * that a step can be left out and the others stay what they were: that is how a failure is made small.
 *
 * The worlds run in a child process: a failed assert or a sanitizer's finding is a failure like any other. On
 * failure: the seed, the round and the step, then the smallest set of steps that still fails, and the command
 * that runs just those. */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "tests/sim/steps.h"

#define ROUNDS_OF_WORLD 20
#define STEPS_MAX       40
#define POINTS_MAX      ((size_t)ROUNDS_OF_WORLD * STEPS_MAX)
#define SHRINK_RUNS_MAX 600

struct options {
    uint64_t seed;
    uint64_t rounds;
    unsigned faults;
    const char *seeds_path;
    const char *trace_path;
    const char *keep; /* "0.3,0.7,2.1": these steps only; NULL: all */
    bool shrink;
    bool verbose;
};

/* What the child tells, while it runs. */
struct progress {
    uint64_t seed;
    unsigned faults;
    unsigned round, step;
    uint64_t ends, worlds, acknowledged, failed, checks, opens, rots, lost_to_rot, cuts, lates, deletes,
        cleaned, merges, snapshots, copies, trace_sum;
};

/* Which steps a run does: bit by (round, step). NULL: all. */
struct choice {
    bool points[POINTS_MAX];
    unsigned rounds;
};

static const char *const fault_names[] = {"power", "short", "error", "rot",
                                          "full",  "stale", "clock", "memory"};
#define FAULT_NAMES (sizeof fault_names / sizeof fault_names[0])

/* " --faults a,b", or nothing if it is all. */
static void faults_text(unsigned faults, char *out, size_t bytes) {
    size_t len = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < FAULT_NAMES && faults != FAULT_ALL; i++)
        if (faults & 1u << i)
            len += (size_t)snprintf(out + len, bytes - len, "%s%s", len == 0 ? " --faults " : ",",
                                    fault_names[i]);
}

/* ---- one world ---- */

static void world_run_rounds(uint64_t seed, unsigned rounds, unsigned faults, const struct choice *choice,
                             FILE *trace, struct progress *progress) {
    static struct world world;
    progress->seed = seed;
    progress->faults = faults;
    progress->round = progress->step = 0;
    world_init(&world, seed, faults, trace);
    world_open(&world, true);
    for (unsigned round = 0; round < rounds; round++) {
        world_step_begin(&world, round, 0);
        unsigned steps = 1 + (unsigned)rand_below(&world.rand, STEPS_MAX - 2);
        /* Most ends come in the middle of something: of the n-th operation from some step on. */
        unsigned arm_at =
            rand_below(&world.rand, 4) == 0 ? UINT32_MAX : (unsigned)rand_below(&world.rand, steps);
        uint64_t operations = 1 + rand_below(&world.rand, 100);
        enum io_sim_end end =
            (world.faults & FAULT_POWER) && rand_below(&world.rand, 5) != 0 ? IO_SIM_POWER_CUT : IO_SIM_KILL;
        for (unsigned step = 1; step <= steps; step++) {
            progress->round = round;
            progress->step = step;
            world_step_begin(&world, round, step);
            if (choice != NULL && !choice->points[round * STEPS_MAX + step])
                continue;
            if (step - 1 == arm_at)
                io_sim_end_after(world.io, end, operations);
            step_run(&world);
            if (world_ended(&world))
                break;
        }
        world_step_begin(&world, round, STEPS_MAX - 1);
        progress->step = STEPS_MAX - 1;
        world_end(&world, end);
        if (round % 4 == 3)
            world_check_alive(&world);
    }
    world_step_begin(&world, rounds, 0);
    world_check_alive(&world);
    world_check_all(&world);
    progress->ends += world.survived_ends;
    progress->worlds++;
    progress->acknowledged += world.acknowledged;
    progress->failed += world.failed;
    progress->checks += world.checks;
    progress->opens += world.opens;
    progress->rots += world.rots;
    progress->lost_to_rot += world.lost_to_rot;
    progress->trace_sum = progress->trace_sum * 31 + world.trace_sum;
    world_release(&world);
    progress->cuts += world.cuts;
    progress->lates += world.lates;
    progress->snapshots += world.snapshots;
    progress->deletes += world.deletes;
    progress->copies += world.copies;
    progress->cleaned += world.cleaned;
    progress->merges += world.merges;
}

/* Runs `run` in a child; 0 if it ended well. */
static int in_child(void (*run)(const void *context, struct progress *progress), const void *context,
                    struct progress *progress, bool quiet) {
    fflush(NULL);
    pid_t child = fork();
    ASSERT(child >= 0);
    if (child == 0) {
        if (quiet) {
            int null = open("/dev/null", O_WRONLY);
            dup2(null, 2);
            alarm(20); /* a shrunk run that hangs is a failure too */
        }
        run(context, progress);
        exit(0); /* with the leak check of sanitizers */
    }
    int status;
    ASSERT(waitpid(child, &status, 0) == child);
    return status;
}

/* ---- many worlds ---- */

struct known_seed {
    uint64_t seed;
    unsigned faults;
};

struct many {
    const struct options *options;
    const struct known_seed *seeds; /* run first */
    size_t seed_count;
    FILE *trace;
};

static void many_run(const void *context, struct progress *progress) {
    const struct many *many = context;
    const struct options *options = many->options;
    for (size_t i = 0; i < many->seed_count; i++)
        world_run_rounds(many->seeds[i].seed, ROUNDS_OF_WORLD, many->seeds[i].faults, NULL, many->trace,
                         progress);
    for (uint64_t seed = options->seed; progress->ends < options->rounds; seed++) {
        uint64_t left = options->rounds - progress->ends;
        world_run_rounds(seed, left < ROUNDS_OF_WORLD ? (unsigned)left : ROUNDS_OF_WORLD, options->faults,
                         NULL, many->trace, progress);
        if (options->verbose)
            fprintf(stderr, "sim: seed %llu well, %llu ends\n", (unsigned long long)seed,
                    (unsigned long long)progress->ends);
    }
    if (many->trace != NULL)
        fclose(many->trace);
}

struct one {
    uint64_t seed;
    unsigned faults;
    const struct choice *choice;
    FILE *trace;
};

static void one_run(const void *context, struct progress *progress) {
    const struct one *one = context;
    world_run_rounds(one->seed, one->choice->rounds, one->faults, one->choice, one->trace, progress);
    if (one->trace != NULL)
        fclose(one->trace);
}

/* ---- making it small ---- */

static bool still_fails(const struct one *one, const struct choice *choice, struct progress *progress) {
    struct one tried = *one;
    tried.choice = choice;
    return in_child(one_run, &tried, progress, true) != 0;
}

/* Leaves out runs of steps, large ones first, as long as it still fails. */
static unsigned choice_shrink(const struct one *one, struct choice *choice, struct progress *progress) {
    unsigned runs = 0;
    for (size_t length = POINTS_MAX / 2; length > 0; length /= 2)
        for (size_t from = 0; from < POINTS_MAX; from += length) {
            struct choice smaller = *choice;
            bool any = false;
            for (size_t i = from; i < from + length && i < POINTS_MAX; i++) {
                any |= smaller.points[i];
                smaller.points[i] = false;
            }
            if (!any)
                continue;
            if (runs++ >= SHRINK_RUNS_MAX)
                return runs;
            if (still_fails(one, &smaller, progress))
                *choice = smaller;
        }
    return runs;
}

static void failure_explain(const struct options *options, struct progress *progress) {
    struct choice choice = {.rounds = progress->round + 1};
    uint64_t seed = progress->seed;
    memset(choice.points, true, sizeof choice.points);
    unsigned faults = progress->faults;
    char with[128];
    faults_text(faults, with, sizeof with);
    fprintf(stderr, "sim: seed %llu, round %u, step %u. Again: sim --seed %llu --rounds %u%s\n",
            (unsigned long long)seed, progress->round, progress->step, (unsigned long long)seed,
            ROUNDS_OF_WORLD, with);
    struct one one = {.seed = seed, .faults = faults, .choice = &choice};
    if (!options->shrink || !still_fails(&one, &choice, progress))
        return;
    unsigned runs = choice_shrink(&one, &choice, progress);
    fprintf(stderr,
            "sim: made smaller in %u runs. Just what is needed: sim --seed %llu --worlds-rounds %u%s --keep ",
            runs, (unsigned long long)seed, choice.rounds, with);
    const char *between = "";
    for (size_t i = 0; i < POINTS_MAX; i++)
        if (choice.points[i] && i / STEPS_MAX < choice.rounds && i % STEPS_MAX != 0) {
            fprintf(stderr, "%s%zu.%zu", between, i / STEPS_MAX, i % STEPS_MAX);
            between = ",";
        }
    fprintf(stderr, "%s\nsim: which fails with:\n", *between == '\0' ? "none" : "");
    (void)in_child(one_run, &one, progress, false);
}

static bool choice_parse(const char *text, struct choice *choice) {
    while (*text != '\0' && strcmp(text, "none") != 0) {
        char *end;
        unsigned long round = strtoul(text, &end, 10), step;
        if (*end != '.')
            return false;
        step = strtoul(end + 1, &end, 10);
        if (round >= ROUNDS_OF_WORLD || step >= STEPS_MAX || (*end != '\0' && *end != ','))
            return false;
        choice->points[round * STEPS_MAX + step] = true;
        text = *end == ',' ? end + 1 : end;
    }
    return true;
}

/* ---- the command ---- */

static unsigned faults_parse(const char *text) {
    unsigned faults = 0;
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        unsigned bit = 0;
        for (unsigned i = 0; i < FAULT_NAMES; i++)
            if (strlen(fault_names[i]) == len && strncmp(fault_names[i], text, len) == 0)
                bit = 1u << i;
        if (bit == 0) {
            fprintf(stderr, "sim: no fault \"%.*s\"\n", (int)len, text);
            exit(2);
        }
        faults |= bit;
        text += len + (text[len] == ',');
    }
    return faults;
}

/* A line is a seed, and the faults of its world if not all: "14 power,short". Anything else is a comment. */
static size_t seeds_read(const char *path, struct known_seed *seeds, size_t max) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    char line[512];
    size_t count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (line[0] < '0' || line[0] > '9' || count == max)
            continue;
        char *faults;
        seeds[count].seed = strtoull(line, &faults, 10);
        faults += strspn(faults, " ");
        faults[strcspn(faults, " \n#")] = '\0';
        seeds[count++].faults = *faults == '\0' ? FAULT_ALL : faults_parse(faults);
    }
    fclose(file);
    return count;
}

static void usage(FILE *to) {
    fprintf(to, "sim [--seed N] [--rounds N] [--faults power,short,error,rot,full,stale,clock,memory]\n"
                "    [--seeds FILE] [--trace FILE] [--no-shrink] [--verbose]\n"
                "sim --seed N --worlds-rounds N --keep ROUND.STEP,…   one world, these steps only\n");
}

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"seed", 1, NULL, 's'},    {"rounds", 1, NULL, 'r'}, {"faults", 1, NULL, 'f'},
        {"seeds", 1, NULL, 'S'},   {"trace", 1, NULL, 't'},  {"no-shrink", 0, NULL, 'n'},
        {"verbose", 0, NULL, 'v'}, {"keep", 1, NULL, 'k'},   {"worlds-rounds", 1, NULL, 'w'},
        {"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0},
    };
    struct options options = {.seed = 1, .rounds = 200, .faults = FAULT_ALL, .shrink = true};
    unsigned world_rounds = ROUNDS_OF_WORLD;
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 's':
            options.seed = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            options.rounds = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            options.faults = faults_parse(optarg);
            break;
        case 'S':
            options.seeds_path = optarg;
            break;
        case 't':
            options.trace_path = optarg;
            break;
        case 'n':
            options.shrink = false;
            break;
        case 'v':
            options.verbose = true;
            break;
        case 'k':
            options.keep = optarg;
            break;
        case 'w':
            world_rounds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY));
    struct progress *progress =
        mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(progress != MAP_FAILED);
    FILE *trace = NULL;
    if (options.trace_path != NULL && (trace = fopen(options.trace_path, "w")) == NULL) {
        perror(options.trace_path);
        return 2;
    }
    if (options.keep != NULL) {
        static struct choice choice;
        choice.rounds = world_rounds < ROUNDS_OF_WORLD ? world_rounds : ROUNDS_OF_WORLD;
        if (!choice_parse(options.keep, &choice)) {
            usage(stderr);
            return 2;
        }
        struct one one = {options.seed, options.faults, &choice, trace};
        return in_child(one_run, &one, progress, false) == 0 ? 0 : 1;
    }
    static struct known_seed seeds[4096];
    struct many many = {.options = &options, .seeds = seeds, .trace = trace};
    if (options.seeds_path != NULL)
        many.seed_count = seeds_read(options.seeds_path, seeds, sizeof seeds / sizeof seeds[0]);
    if (in_child(many_run, &many, progress, false) != 0) {
        failure_explain(&options, progress);
        return 1;
    }
    printf("sim: %llu ends survived in %llu worlds from seed %llu on: %llu requests acknowledged, %llu "
           "failed, %llu starts, %llu comparisons, %llu blocks cut, %llu of late samples, %llu deletes, %llu "
           "blocks cleaned, %llu merges, %llu snapshots, %llu copies, %llu bits flipped, %llu samples lost "
           "to that; trace "
           "%016llx\n",
           (unsigned long long)progress->ends, (unsigned long long)progress->worlds,
           (unsigned long long)options.seed, (unsigned long long)progress->acknowledged,
           (unsigned long long)progress->failed, (unsigned long long)progress->opens,
           (unsigned long long)progress->checks, (unsigned long long)progress->cuts,
           (unsigned long long)progress->lates, (unsigned long long)progress->deletes,
           (unsigned long long)progress->cleaned, (unsigned long long)progress->merges,
           (unsigned long long)progress->snapshots, (unsigned long long)progress->copies,
           (unsigned long long)progress->rots, (unsigned long long)progress->lost_to_rot,
           (unsigned long long)progress->trace_sum);
    return 0;
}
