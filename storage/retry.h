/* retry.h: when something that failed is tried again. */
#ifndef TIDALITE_STORAGE_RETRY_H
#define TIDALITE_STORAGE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#define RETRY_MS_MIN 1000

/* Zero: at once. */
struct retry {
    int64_t at_ms;
    int64_t delay_ms; /* that led to it */
};

/* Is it too early? A clock that went back delays no more than was meant. */
static inline bool retry_waits(const struct retry *retry, int64_t now_ms) {
    return now_ms < retry->at_ms && retry->at_ms - now_ms <= retry->delay_ms;
}

static inline void retry_after(struct retry *retry, int64_t now_ms, int64_t delay_ms) {
    *retry = (struct retry){now_ms + delay_ms, delay_ms};
}

/* After RETRY_MS_MIN, then twice as long each time, up to max_ms. */
static inline void retry_longer(struct retry *retry, int64_t now_ms, int64_t max_ms) {
    int64_t delay_ms = retry->delay_ms == 0 ? RETRY_MS_MIN : retry->delay_ms * 2;
    retry_after(retry, now_ms, delay_ms < max_ms ? delay_ms : max_ms);
}

static inline void retry_done(struct retry *retry) {
    *retry = (struct retry){0, 0};
}

#endif
