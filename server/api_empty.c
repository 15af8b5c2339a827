/* api_empty.c: what Prometheus answers about things that a store without scraping and rules has none of. The
 * shapes are Prometheus', and parameters are checked as it checks them. */
#include "server/api.h"

/* Sends the answer as it is filled in, or a success with `data`. */
static void finish(struct exchange *exchange, bool ok, const char *data) {
    if (ok)
        api_send_data(exchange, data);
    else
        exchange_send(exchange);
}

/* ---- Rules and alerts -----------------------------------------------------------------------------------
 */

static bool selectors_check(struct exchange *exchange, const struct params *params) {
    struct slice *match;
    size_t count;
    if (!api_match(exchange, params, &match, &count))
        return false;
    for (size_t i = 0; i < count; i++) {
        struct query_selector selector;
        if (api_selector_parse(exchange, match[i], "", true, &selector) < 0)
            return false;
        query_selector_release(&selector);
    }
    return true;
}

static bool rule_type_check(struct exchange *exchange, const struct params *params) {
    struct slice type = params_get(params, "type");
    if (type.len == 0 || slice_equal_nocase(type, "alert") || slice_equal_nocase(type, "record"))
        return true;
    api_error(exchange, "bad_data", "invalid parameter \"type\": not supported value \"%.*s\"",
              SLICE_ARGS(type));
    return false;
}

static bool exclude_alerts_check(struct exchange *exchange, const struct params *params) {
    struct slice text = params_get(params, "exclude_alerts");
    bool exclude;
    if (text.len == 0 || boolean_parse(text, &exclude))
        return true;
    api_error(exchange, "bad_data",
              "invalid parameter \"exclude_alerts\": error converting exclude_alerts: strconv.ParseBool: "
              "parsing \"%.*s\": invalid syntax",
              SLICE_ARGS(text));
    return false;
}

/* Pages of groups: there is never a next one, so no token can be one of ours. */
static bool pages_check(struct exchange *exchange, const struct params *params) {
    struct slice limit = params_get(params, "group_limit"), token = params_get(params, "group_next_token");
    int64_t value = 0;
    bool range;
    if (token.len > 0 && limit.len == 0) {
        api_error(exchange, "bad_data",
                  "invalid parameter \"group_next_token\": group_limit needs to be present in order to "
                  "paginate over the groups");
        return false;
    }
    if (limit.len > 0 && (!integer_parse(limit, &value, &range) || value > INT32_MAX || value < INT32_MIN)) {
        api_error(exchange, "bad_data",
                  "invalid parameter \"group_limit\": group_limit needs to be a valid number: "
                  "strconv.ParseInt: parsing \"%.*s\": %s",
                  SLICE_ARGS(limit), range || value != 0 ? "value out of range" : "invalid syntax");
        return false;
    }
    if (limit.len > 0 && value <= 0) {
        api_error(exchange, "bad_data",
                  "invalid parameter \"group_limit\": group_limit needs to be greater than 0");
        return false;
    }
    if (token.len == 0)
        return true;
    api_error(exchange, "bad_data",
              "invalid parameter \"group_next_token\": invalid group_next_token '%.*s'. were rule groups "
              "changed?",
              SLICE_ARGS(token));
    return false;
}

void api_rules(struct exchange *exchange) {
    struct params params;
    bool ok = api_params(exchange, &params) && selectors_check(exchange, &params) &&
              rule_type_check(exchange, &params) && exclude_alerts_check(exchange, &params) &&
              pages_check(exchange, &params);
    finish(exchange, ok, "{\"groups\":[]}");
}

void api_alerts(struct exchange *exchange) {
    api_send_data(exchange, "{\"alerts\":[]}");
}

void api_alertmanagers(struct exchange *exchange) {
    api_send_data(exchange, "{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}");
}

/* ---- Targets --------------------------------------------------------------------------------------------
 */

void api_targets(struct exchange *exchange) {
    api_send_data(exchange, "{\"activeTargets\":[],\"droppedTargets\":[],\"droppedTargetCounts\":{}}");
}

void api_scrape_pools(struct exchange *exchange) {
    api_send_data(exchange, "{\"scrapePools\":[]}");
}

void api_targets_metadata(struct exchange *exchange) {
    struct params params;
    int64_t limit;
    bool range, ok = api_params(exchange, &params);
    struct slice text = ok ? params_get(&params, "limit") : slice_of(NULL, 0);
    if (text.len > 0 && !integer_parse(text, &limit, &range)) {
        api_error(exchange, "bad_data", "limit must be a number");
        ok = false;
    }
    if (ok && (text = params_get(&params, "match_target")).len > 0) {
        struct query_selector selector;
        ok = api_selector_parse(exchange, text, "match_target", false, &selector) == STATUS_OK;
        if (ok)
            query_selector_release(&selector);
    }
    finish(exchange, ok, "[]");
}

void api_targets_relabel_steps(struct exchange *exchange) {
    struct params params;
    if (api_params(exchange, &params)) {
        struct slice pool = params_get(&params, "scrapePool");
        if (pool.len == 0)
            api_error(exchange, "bad_data", "no scrapePool parameter provided");
        else if (params_get(&params, "labels").len == 0)
            api_error(exchange, "bad_data", "no labels parameter provided");
        else
            api_error(exchange, "bad_data", "error retrieving scrape config: scrape pool \"%.*s\" not found",
                      SLICE_ARGS(pool));
    }
    exchange_send(exchange);
}

/* ---- Notifications, search, exemplars -------------------------------------------------------------------
 */

void api_notifications(struct exchange *exchange) {
    api_send_data(exchange, "[]");
}

/* A stream of events would stay open and never say anything. To an EventSource 204 means: don't come again.
 */
void api_notifications_live(struct exchange *exchange) {
    exchange->code = 204;
    exchange_send(exchange);
}

/* As a Prometheus without the feature flag: clients take the label routes instead. */
void api_search(struct exchange *exchange) {
    api_error(exchange, "unavailable", "search API disabled");
    exchange_send(exchange);
}

static void exemplars_work(struct job *job) {
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    const struct slice *text = exchange->context;
    struct query_error error = {.type = QUERY_ERROR_NONE};
    struct buf formatted;
    buf_init(&formatted);
    if (query_format(*text, &exchange->server->config->limits, &error, &formatted) >= 0) {
        api_success_begin(exchange);
        buf_append_str(&exchange->out, "[]");
        api_success_end(&exchange->out, NULL, 0, NULL, 0);
    } else if (error.type == QUERY_ERROR_BAD_DATA) {
        api_error(exchange, "bad_data", "%s", error.text);
    } else {
        api_error_query(exchange, &error);
    }
    buf_release(&formatted);
    exchange_post(exchange);
}

/* Grafana asks once with the times in milliseconds and turns exemplars off unless the answer is a success. */
void api_query_exemplars(struct exchange *exchange) {
    struct params params;
    int64_t start_ms, end_ms;
    struct slice *text = ARENA_NEW(&exchange->arena, struct slice);
    if (text == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
    } else if (api_params(exchange, &params) &&
               api_time(exchange, &params, "start", API_TIME_MIN_MS, &start_ms) &&
               api_time(exchange, &params, "end", API_TIME_MAX_MS, &end_ms)) {
        if (end_ms >= start_ms) {
            *text = params_get(&params, "query");
            exchange->context = text;
            api_work(exchange, exemplars_work);
            return;
        }
        api_error(exchange, "bad_data", "end timestamp must not be before start timestamp");
    }
    exchange_send(exchange);
}
