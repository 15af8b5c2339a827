#include "server/self_scrape.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/exposition.h"

static void scrape_finish(struct mail *mail) {
    struct self_scrape *scrape = CONTAINER_OF(mail, struct self_scrape, mail);
    const struct storage_write_result *result = storage_write_result(scrape->write);
    if (result->status == STATUS_OK)
        metric_add(METRIC_self_scrapes, 1);
    else
        log_warn("self scrape not stored", LOG_STR("reason", status_message(result->status)));
    storage_write_free(scrape->write);
    scrape->write = NULL;
    scrape->loop->pending--;
    loop_check_end(scrape->loop);
}

static void scrape_done(void *context, struct storage_write *write) {
    struct self_scrape *scrape = context;
    (void)write;
    scrape->mail.run = scrape_finish;
    loop_post(scrape->loop, &scrape->mail);
}

/* What a scraper adds behind the target's own series. */
static int scrape_report(struct self_scrape *scrape, struct exposition *exposition, double duration_s) {
    uint64_t samples = exposition->batch.sample_count;
    uint64_t added = samples > scrape->series_seen ? samples - scrape->series_seen : 0;
    int status = STATUS_OK;
    TRY(exposition_add(exposition, slice_str("up"), NULL, 0, 1));
    TRY(exposition_add(exposition, slice_str("scrape_duration_seconds"), NULL, 0, duration_s));
    TRY(exposition_add(exposition, slice_str("scrape_samples_scraped"), NULL, 0, (double)samples));
    TRY(exposition_add(exposition, slice_str("scrape_samples_post_metric_relabeling"), NULL, 0,
                       (double)samples));
    TRY(exposition_add(exposition, slice_str("scrape_series_added"), NULL, 0, (double)added));
    scrape->series_seen = samples;
out:
    return status;
}

static int scrape_take(struct self_scrape *scrape, struct error_detail *detail) {
    struct server *server = scrape->loop->server;
    const struct label extra[] = {{slice_str("instance"), slice_str(server->address)},
                                  {slice_str("job"), slice_str("tidalite")}};
    struct exposition exposition;
    uint64_t began_ns = clock_monotonic_ns(server->clock);
    int status = STATUS_OK;
    exposition_init(&exposition, &scrape->arena, clock_wall_ms(server->clock), extra, 2);
    metrics_print(&scrape->text);
    if (scrape->text.failed)
        return STATUS_NO_MEMORY;
    TRY(exposition_parse(&exposition, buf_slice(&scrape->text), detail));
    TRY(scrape_report(scrape, &exposition, (double)(clock_monotonic_ns(server->clock) - began_ns) / 1e9));
    TRY(storage_write_prepare(server->storage, &exposition.batch, detail, &scrape->write));
    scrape->loop->pending++;
    storage_write_submit(server->storage, scrape->write, scrape_done, scrape);
out:
    return status;
}

static void timer_handle(uv_timer_t *timer) {
    struct self_scrape *scrape = timer->data;
    struct error_detail detail = {{0}};
    if (scrape->write != NULL || scrape->loop->draining)
        return;
    int status = scrape_take(scrape, &detail);
    if (status < 0)
        log_warn("self scrape failed",
                 LOG_STR("reason", detail.text[0] != 0 ? detail.text : status_message(status)));
    buf_clear(&scrape->text);
    arena_reset(&scrape->arena);
}

void self_scrape_open(struct self_scrape *scrape, struct loop *loop, uint64_t interval_ms) {
    *scrape = (struct self_scrape){.loop = loop, .open = true};
    arena_init(&scrape->arena, 64u << 10, 0);
    ASSERT(uv_timer_init(&loop->uv, &scrape->timer) == 0);
    scrape->timer.data = scrape;
    /* The first one soon, so that a newcomer sees data at once. */
    uint64_t first_ms = interval_ms < 1000 ? interval_ms : 1000;
    ASSERT(uv_timer_start(&scrape->timer, timer_handle, first_ms, interval_ms) == 0);
}

void self_scrape_close(struct self_scrape *scrape) {
    if (scrape->open)
        uv_close((uv_handle_t *)&scrape->timer, NULL);
    scrape->open = false;
}

void self_scrape_release(struct self_scrape *scrape) {
    if (scrape->loop == NULL)
        return;
    buf_release(&scrape->text);
    arena_release(&scrape->arena);
}
