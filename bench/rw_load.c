/* rw-load: sends the standard load (docs/performance.md) as Prometheus remote write 1.0 and reports how fast
 * it was acknowledged.
 *
 * All requests of a window are made, compressed and framed before its clock starts; the window is the whole
 * run if that fits --memory-max. One thread a connection, keep-alive, one request in flight each. A batch of
 * series always travels on the same connection, so that the samples of a series arrive in order. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "bench/load.h"

#define HEAD_BYTES_MAX    512
#define REPLY_BYTES_MAX   65536
#define STATUS_COUNT      600
#define CONNECTIONS_MAX   256
#define REASONS_PRINT_MAX 5

struct options {
    char host[256];
    char port[16];
    char path[512];
    struct load load;
    uint64_t rounds;
    uint64_t connections;
    double rate; /* samples a second; 0: as fast as they are acknowledged */
    uint64_t memory_max;
    bool json;
    bool dry_run;
};

struct request {
    uint8_t *data; /* HTTP head and body */
    size_t len;
    uint32_t samples;
};

struct connection {
    const struct options *options;
    const struct request *requests; /* of the window */
    uint64_t began_ns;              /* the window */
    size_t request_count;
    size_t first; /* takes requests first, first + stride, … */
    uint64_t *latencies_ns;
    size_t latency_count;
    uint64_t samples_acked;
    uint64_t by_status[STATUS_COUNT]; /* 0: no answer */
    int fd;
    char reason[256]; /* the last refusal's body */
    size_t reply_len;
    char reply[REPLY_BYTES_MAX + 1];
};

static _Noreturn void fail(const char *what, const char *why) {
    fprintf(stderr, "rw-load: %s: %s\n", what, why);
    exit(1);
}

static void *must_alloc(size_t bytes) {
    void *p = mem_zalloc(bytes);
    if (p == NULL)
        fail("memory", "not enough; use fewer series or a smaller --memory-max");
    return p;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct totals {
    uint64_t raw_bytes;
    uint64_t body_bytes;
};

static void request_build(struct options *options, uint64_t round, uint64_t first, uint64_t count,
                          struct totals *totals, struct request *out) {
    size_t raw_len;
    struct slice body = load_body(&options->load, round, first, count, &raw_len);
    char head[HEAD_BYTES_MAX + sizeof options->path + sizeof options->host];
    int head_len = snprintf(head, sizeof head,
                            "POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/x-protobuf\r\n"
                            "Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n"
                            "User-Agent: rw-load\r\nContent-Length: %zu\r\n\r\n",
                            options->path, options->host, options->port, body.len);
    out->len = (size_t)head_len + body.len;
    out->data = must_alloc(out->len);
    memcpy(out->data, head, (size_t)head_len);
    memcpy(out->data + head_len, body.data, body.len);
    out->samples = (uint32_t)count;
    totals->raw_bytes += raw_len;
    totals->body_bytes += body.len;
}

static int connect_to(const struct options *options) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int code = getaddrinfo(options->host, options->port, &hints, &list);
    if (code != 0)
        fail(options->host, gai_strerror(code));
    int fd = -1;
    int error = 0;
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            error = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        fail("cannot connect", strerror(error));
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static bool send_all(int fd, const uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* Reads one response; returns its status, or 0 if the connection broke. Keeps what came behind it. */
static int reply_read(struct connection *c) {
    char *end = NULL;
    while ((c->reply[c->reply_len] = '\0', end = strstr(c->reply, "\r\n\r\n")) == NULL) {
        ssize_t n = recv(c->fd, c->reply + c->reply_len, REPLY_BYTES_MAX - c->reply_len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        c->reply_len += (size_t)n;
    }
    int status = 0;
    if (strncmp(c->reply, "HTTP/1.", 7) == 0)
        status = (int)strtol(c->reply + 9, NULL, 10);
    if (status < 100 || status >= STATUS_COUNT)
        return 0;
    size_t head_len = (size_t)(end - c->reply) + 4;
    *end = '\0';
    size_t body_len = 0;
    bool known = status == 204 || status == 304;
    const char *header = strcasestr(c->reply, "\r\ncontent-length:");
    if (header != NULL) {
        body_len = strtoul(header + 17, NULL, 10);
        known = true;
    }
    if (head_len + body_len > REPLY_BYTES_MAX)
        return 0;
    while (c->reply_len < head_len + body_len) {
        ssize_t n = recv(c->fd, c->reply + c->reply_len, REPLY_BYTES_MAX - c->reply_len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        c->reply_len += (size_t)n;
    }
    if (status >= 300)
        snprintf(c->reason, sizeof c->reason, "%d %.*s", status, (int)(body_len > 200 ? 200 : body_len),
                 c->reply + head_len);
    if (!known) { /* a body of unknown length: start afresh */
        close(c->fd);
        c->fd = -1;
        c->reply_len = 0;
        return status;
    }
    c->reply_len -= head_len + body_len;
    memmove(c->reply, c->reply + head_len + body_len, c->reply_len);
    return status;
}

/* With a rate: waits until the request is due. What it then takes counts from there, so that one slow answer
 * shows in all requests that had to wait for it. Returns when its time begins. */
static uint64_t request_wait(const struct connection *c, size_t number) {
    uint64_t now = now_ns();
    if (c->options->rate <= 0)
        return now;
    double due_s = (double)number * (double)c->options->load.batch / c->options->rate;
    uint64_t due = c->began_ns + (uint64_t)(due_s * 1e9);
    if (due > now) {
        struct timespec left = {(time_t)((due - now) / 1000000000), (long)((due - now) % 1000000000)};
        nanosleep(&left, NULL);
    }
    return due;
}

static void *connection_run(void *context) {
    struct connection *c = context;
    for (size_t i = c->first; i < c->request_count; i += c->options->connections) {
        const struct request *request = &c->requests[i];
        if (request->data == NULL)
            continue; /* fills a round's last row, so that a batch keeps its connection */
        if (c->fd < 0)
            c->fd = connect_to(c->options);
        uint64_t began = request_wait(c, i);
        int status = send_all(c->fd, request->data, request->len) ? reply_read(c) : 0;
        c->latencies_ns[c->latency_count++] = now_ns() - began;
        c->by_status[status]++;
        if (status >= 200 && status < 300)
            c->samples_acked += request->samples;
        if (status == 0 && c->fd >= 0) {
            close(c->fd);
            c->fd = -1;
            c->reply_len = 0;
        }
    }
    return NULL;
}

static int compare_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void usage(FILE *out) {
    fputs(
        "usage: rw-load --url HOST:PORT[/PATH] [options]\n"
        "Sends the standard load as Prometheus remote write and reports how fast it was acknowledged.\n"
        "  --url URL           where to; the path defaults to /api/v1/write\n"
        "  --series N          how many series (100000)\n"
        "  --rounds N          samples a series, also --samples-per-series (10)\n"
        "  --batch N           samples a request (2000)\n"
        "  --connections N     (4)\n"
        "  --churn SHARE       share of the series replaced each round, 0 to 1 (0)\n"
        "  --rate N            samples a second; latencies count from when a request was due (as fast as it "
        "goes)\n"
        "  --start-time T      Unix seconds of the first round (now - rounds * step)\n"
        "  --step-seconds S    between rounds' time stamps (15)\n"
        "  --seed N            (1)\n"
        "  --memory-max BYTES  of requests made ahead; more are made in windows, the clock stopped (8 GiB)\n"
        "  --json              one JSON object on stdout\n"
        "  --dry-run           makes the requests, sends nothing\n"
        "Exit status: 0 if every request was acknowledged, 1 otherwise.\n",
        out);
}

static uint64_t number_of(const char *flag, const char *text, uint64_t min, uint64_t max) {
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || v < min || v > max) {
        fprintf(stderr, "rw-load: %s: \"%s\" is not a number from %" PRIu64 " to %" PRIu64 "\n", flag, text,
                min, max);
        exit(2);
    }
    return v;
}

static double real_of(const char *flag, const char *text, double min, double max) {
    char *end = NULL;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !(v >= min && v <= max)) {
        fprintf(stderr, "rw-load: %s: \"%s\" is not a number from %g to %g\n", flag, text, min, max);
        exit(2);
    }
    return v;
}

static bool url_parse(const char *url, struct options *options) {
    if (strncmp(url, "http://", 7) == 0)
        url += 7;
    size_t host_len = strcspn(url, ":/");
    if (host_len == 0 || host_len >= sizeof options->host || url[host_len] != ':')
        return false;
    memcpy(options->host, url, host_len);
    options->host[host_len] = '\0';
    url += host_len + 1;
    size_t port_len = strcspn(url, "/");
    if (port_len == 0 || port_len >= sizeof options->port)
        return false;
    memcpy(options->port, url, port_len);
    options->port[port_len] = '\0';
    url += port_len;
    int n = snprintf(options->path, sizeof options->path, "%s",
                     *url == '\0' || strcmp(url, "/") == 0 ? "/api/v1/write" : url);
    return n > 0 && (size_t)n < sizeof options->path;
}

static void options_parse(int argc, char **argv, struct options *o) {
    static const struct option flags[] = {{"url", required_argument, NULL, 'u'},
                                          {"series", required_argument, NULL, 's'},
                                          {"rounds", required_argument, NULL, 'r'},
                                          {"samples-per-series", required_argument, NULL, 'r'},
                                          {"batch", required_argument, NULL, 'b'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"churn", required_argument, NULL, 'x'},
                                          {"rate", required_argument, NULL, 'R'},
                                          {"start-time", required_argument, NULL, 't'},
                                          {"step-seconds", required_argument, NULL, 'p'},
                                          {"seed", required_argument, NULL, 'e'},
                                          {"memory-max", required_argument, NULL, 'm'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"dry-run", no_argument, NULL, 'n'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    *o = (struct options){
        .load = {.series = 100000, .batch = 2000, .step_ms = 15000, .seed = 1, .start_ms = -1},
        .rounds = 10,
        .connections = 4,
        .memory_max = UINT64_C(8) << 30};
    bool has_url = false;
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        switch (flag) {
        case 'u':
            has_url = url_parse(optarg, o);
            if (!has_url) {
                fprintf(stderr, "rw-load: --url: \"%s\" is not HOST:PORT[/PATH]\n", optarg);
                exit(2);
            }
            break;
        case 's':
            o->load.series = number_of("--series", optarg, 1, 100000000);
            break;
        case 'r':
            o->rounds = number_of("--rounds", optarg, 1, 10000000);
            break;
        case 'b':
            o->load.batch = number_of("--batch", optarg, 1, 1000000);
            break;
        case 'c':
            o->connections = number_of("--connections", optarg, 1, CONNECTIONS_MAX);
            break;
        case 'x':
            o->load.churn = real_of("--churn", optarg, 0, 1);
            break;
        case 'R':
            o->rate = real_of("--rate", optarg, 0, 1e12);
            break;
        case 't':
            o->load.start_ms = (int64_t)(real_of("--start-time", optarg, 0, 1e11) * 1000);
            break;
        case 'p':
            o->load.step_ms = (uint64_t)(real_of("--step-seconds", optarg, 0.001, 1e6) * 1000);
            break;
        case 'e':
            o->load.seed = number_of("--seed", optarg, 0, UINT64_MAX);
            break;
        case 'm':
            o->memory_max = number_of("--memory-max", optarg, 1 << 20, UINT64_MAX);
            break;
        case 'j':
            o->json = true;
            break;
        case 'n':
            o->dry_run = true;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            exit(2);
        }
    }
    if (optind != argc || (!has_url && !o->dry_run)) {
        usage(stderr);
        exit(2);
    }
    if (o->load.start_ms < 0) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        o->load.start_ms = (int64_t)t.tv_sec * 1000 - (int64_t)(o->rounds * o->load.step_ms);
    }
}

/* Sends the window on all connections at once; returns how long it took. */
static uint64_t window_send(struct connection *connections, const struct options *options,
                            const struct request *requests, size_t count) {
    pthread_t threads[CONNECTIONS_MAX];
    uint64_t began = now_ns();
    for (size_t i = 0; i < options->connections; i++) {
        connections[i].requests = requests;
        connections[i].request_count = count;
        connections[i].began_ns = began;
        if (pthread_create(&threads[i], NULL, connection_run, &connections[i]) != 0)
            fail("thread", strerror(errno));
    }
    for (size_t i = 0; i < options->connections; i++)
        pthread_join(threads[i], NULL);
    return now_ns() - began;
}

struct report {
    uint64_t requests;
    uint64_t samples;
    uint64_t samples_acked;
    uint64_t by_status[STATUS_COUNT];
    uint64_t raw_bytes;
    uint64_t body_bytes;
    double seconds;
    double latency_ms[5]; /* p50, p90, p99, p99.9, max */
};

static void report_print(const struct report *r, const struct options *o) {
    static const char *const names[5] = {"p50", "p90", "p99", "p999", "max"};
    double rate = r->seconds > 0 ? (double)r->samples_acked / r->seconds : 0;
    if (o->json) {
        printf("{\"series\":%" PRIu64 ",\"rounds\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"samples\":%" PRIu64
               ",\"samples_acked\":%" PRIu64
               ",\"seconds\":%.6f,\"samples_per_second\":%.0f,\"raw_bytes\":%" PRIu64
               ",\"body_bytes\":%" PRIu64 ",\"start_ms\":%" PRId64 ",\"end_ms\":%" PRId64 ",\"status\":{",
               o->load.series, o->rounds, r->requests, r->samples, r->samples_acked, r->seconds, rate,
               r->raw_bytes, r->body_bytes, o->load.start_ms,
               o->load.start_ms + (int64_t)((o->rounds - 1) * o->load.step_ms) + 96);
        const char *comma = "";
        for (int i = 0; i < STATUS_COUNT; i++) {
            if (r->by_status[i] == 0)
                continue;
            printf("%s\"%d\":%" PRIu64, comma, i, r->by_status[i]);
            comma = ",";
        }
        printf("},\"latency_ms\":{");
        for (int i = 0; i < 5; i++)
            printf("%s\"%s\":%.3f", i > 0 ? "," : "", names[i], r->latency_ms[i]);
        printf("}}\n");
        return;
    }
    printf("%" PRIu64 " samples in %" PRIu64 " requests, %.1f bytes a sample before snappy, %.1f after\n",
           r->samples, r->requests, (double)r->raw_bytes / (double)r->samples,
           (double)r->body_bytes / (double)r->samples);
    if (o->dry_run)
        return;
    printf("%" PRIu64 " samples acknowledged in %.3f s: %.0f samples/s\n", r->samples_acked, r->seconds,
           rate);
    printf("latency ms:");
    for (int i = 0; i < 5; i++)
        printf(" %s %.3f", names[i], r->latency_ms[i]);
    printf("\nanswers:");
    for (int i = 0; i < STATUS_COUNT; i++) {
        if (r->by_status[i] == 0)
            continue;
        if (i == 0)
            printf(" none: %" PRIu64, r->by_status[i]);
        else
            printf(" %d: %" PRIu64, i, r->by_status[i]);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    struct options options;
    options_parse(argc, argv, &options);
    signal(SIGPIPE, SIG_IGN);

    load_open(&options.load);
    uint64_t batches = (options.load.series + options.load.batch - 1) / options.load.batch;
    struct totals totals = {0};
    /* A batch must go to the same connection in each round, wherever a round begins in the window's list. */
    uint64_t slots = (batches + options.connections - 1) / options.connections * options.connections;
    uint64_t total = batches * options.rounds;

    struct connection *connections = must_alloc(sizeof *connections * options.connections);
    for (size_t i = 0; i < options.connections; i++) {
        connections[i].options = &options;
        connections[i].first = i;
        connections[i].fd = -1;
        connections[i].latencies_ns = must_alloc(sizeof(uint64_t) * ((size_t)(slots * options.rounds) + 1));
        if (!options.dry_run)
            connections[i].fd = connect_to(&options);
    }

    struct report report = {0};
    uint64_t spent_ns = 0;
    struct request *window = NULL;
    uint64_t round = 0;
    while (round < options.rounds) {
        /* As many whole rounds as fit; at least one. */
        size_t count = 0;
        uint64_t bytes = 0;
        uint64_t first_round = round;
        do {
            struct request *more = mem_realloc(window, sizeof *window * (count + (size_t)slots));
            if (more == NULL)
                fail("memory", "not enough");
            window = more;
            for (uint64_t b = 0; b < slots; b++, count++) {
                window[count] = (struct request){0};
                if (b >= batches)
                    continue;
                uint64_t first = b * options.load.batch;
                uint64_t n = options.load.series - first < options.load.batch ? options.load.series - first
                                                                              : options.load.batch;
                request_build(&options, round, first, n, &totals, &window[count]);
                bytes += window[count].len;
                report.samples += n;
            }
            round++;
        } while (round < options.rounds && bytes + bytes / (round - first_round) <= options.memory_max &&
                 !options.dry_run);
        if (!options.dry_run)
            spent_ns += window_send(connections, &options, window, count);
        for (size_t i = 0; i < count; i++)
            mem_free(window[i].data);
    }

    uint64_t *all = must_alloc(sizeof(uint64_t) * ((size_t)total + 1));
    size_t all_count = 0;
    bool good = true;
    for (size_t i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        memcpy(all + all_count, c->latencies_ns, sizeof(uint64_t) * c->latency_count);
        all_count += c->latency_count;
        report.samples_acked += c->samples_acked;
        for (int s = 0; s < STATUS_COUNT; s++) {
            report.by_status[s] += c->by_status[s];
            if (c->by_status[s] > 0 && (s < 200 || s >= 300))
                good = false;
        }
        if (c->reason[0] != '\0' && i < REASONS_PRINT_MAX)
            fprintf(stderr, "rw-load: refused: %s\n", c->reason);
    }
    qsort(all, all_count, sizeof *all, compare_u64);
    static const double shares[5] = {0.5, 0.9, 0.99, 0.999, 1};
    for (int i = 0; i < 5 && all_count > 0; i++) {
        size_t at = (size_t)(shares[i] * (double)(all_count - 1));
        report.latency_ms[i] = (double)all[at] / 1e6;
    }
    report.requests = total;
    report.raw_bytes = totals.raw_bytes;
    report.body_bytes = totals.body_bytes;
    report.seconds = (double)spent_ns / 1e9;
    report_print(&report, &options);

    for (size_t i = 0; i < options.connections; i++) {
        if (connections[i].fd >= 0)
            close(connections[i].fd);
        mem_free(connections[i].latencies_ns);
    }
    mem_free(connections);
    mem_free(all);
    mem_free(window);
    load_close(&options.load);
    return good ? 0 : 1;
}
