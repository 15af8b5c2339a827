/* self_scrape.h: stores what /metrics says, every so often, as if Tidalite were scraped: under job="tidalite"
 * and instance=<its address>, with `up` and the scrape_* series a Prometheus would add. */
#ifndef TIDALITE_SERVER_SELF_SCRAPE_H
#define TIDALITE_SERVER_SELF_SCRAPE_H

#include "server/loop.h"

struct self_scrape {
    struct loop *loop;
    uv_timer_t timer;
    struct buf text;
    struct arena arena;
    struct storage_write *write; /* under way; the next scrape is left out until it is done */
    uint64_t series_seen;
    struct mail mail;
    bool open;
};

/* On the loop's thread, before it runs; every `interval_ms` from now on. */
void self_scrape_open(struct self_scrape *scrape, struct loop *loop, uint64_t interval_ms);

/* Starts closing the timer; on the loop, when nothing is under way (loop_check_end sees to that). */
void self_scrape_close(struct self_scrape *scrape);

/* When the loop has ended. */
void self_scrape_release(struct self_scrape *scrape);

#endif
