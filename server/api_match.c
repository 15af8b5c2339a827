/* api_match.c: match[] and other parameters that are series selectors. */
#include "server/api.h"

bool api_match(struct exchange *exchange, const struct params *params, struct slice **texts, size_t *count) {
    uint64_t bytes = 0, bytes_max = exchange->server->config->limits.selector_bytes_max;
    *count = 0;
    *texts = ARENA_ARRAY(&exchange->arena, struct slice, params->count + 1);
    if (*texts == NULL) {
        api_error_status(exchange, STATUS_NO_MEMORY);
        return false;
    }
    for (size_t i = 0; i < params->count; i++) {
        if (!slice_equal(params->items[i].name, slice_str("match[]")))
            continue;
        (*texts)[(*count)++] = params->items[i].value;
        bytes += params->items[i].value.len;
    }
    if (bytes <= bytes_max)
        return true;
    api_error(exchange, "bad_data", "invalid parameter \"match[]\": longer than %llu bytes",
              (unsigned long long)bytes_max);
    return false;
}

int api_selector_parse(struct exchange *exchange, struct slice text, const char *parameter,
                       bool empty_refused, struct query_selector *selector) {
    struct query_error error = {.type = QUERY_ERROR_NONE};
    const char *text_of_error = error.text;
    int status =
        query_selector_parse(text, &exchange->server->config->limits, &exchange->arena, &error, selector);
    if (status == STATUS_OK && empty_refused && selector->empty_ok) {
        query_selector_release(selector);
        text_of_error = "match[] must contain at least one non-empty matcher";
        status = STATUS_BAD_QUERY;
    }
    if (status == STATUS_NO_MEMORY)
        api_error_status(exchange, status);
    else if (status < 0 && parameter[0] != 0)
        api_error(exchange, "bad_data", "invalid parameter \"%s\": %s", parameter, text_of_error);
    else if (status < 0)
        api_error(exchange, "bad_data", "%s", text_of_error);
    return status;
}
