#include "client/request.h"

#include <curl/curl.h>
#include <string.h>

struct sink {
    struct buf *body;
    bool too_large;
};

static size_t body_take(char *data, size_t size, size_t count, void *context) {
    struct sink *sink = context;
    if (sink->body->len + size * count > ANSWER_BYTES_MAX) {
        sink->too_large = true;
        return 0;
    }
    buf_append(sink->body, data, size * count);
    return sink->body->failed ? 0 : size * count;
}

static void form_append(struct buf *form, CURL *curl, const struct request_field *field) {
    char *value = curl_easy_escape(curl, field->value, (int)strlen(field->value));
    if (value == NULL) {
        form->failed = form->failed || field->value[0] != 0;
        return;
    }
    buf_printf(form, "%s%s=%s", form->len > 0 ? "&" : "", field->name, value);
    curl_free(value);
}

static int fault_explain(const char *server, CURLcode fault, const char *reason,
                         struct error_detail *detail) {
    const char *hint = "";
    switch (fault) {
    case CURLE_COULDNT_CONNECT:
        hint = "; is the server running? --server URL asks another one";
        break;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_URL_MALFORMAT:
        hint = "; check --server";
        break;
    case CURLE_OPERATION_TIMEDOUT:
        hint = "; --timeout allows more";
        break;
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        hint = "; the server ended the connection before its answer was whole";
        break;
    default:
        break;
    }
    return error_set(detail, STATUS_IO, "no answer from %s: %s%s", server,
                     reason[0] != 0 ? reason : curl_easy_strerror(fault), hint);
}

int request_post(const char *server, const char *path, const struct request_field *fields, size_t count,
                 int64_t timeout_ms, struct buf *body, long *code_out, struct error_detail *detail) {
    char reason[CURL_ERROR_SIZE] = "";
    struct sink sink = {.body = body};
    struct buf form, url;
    CURL *curl = NULL;
    int status = STATUS_OK;
    size_t server_len = strlen(server);
    buf_init(&form);
    buf_init(&url);
    while (server_len > 0 && server[server_len - 1] == '/')
        server_len--;
    buf_append(&url, server, server_len);
    buf_append(&url, path, strlen(path) + 1);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || (curl = curl_easy_init()) == NULL) {
        status = error_set(detail, STATUS_NO_MEMORY, "out of memory");
        goto out;
    }
    for (size_t i = 0; i < count; i++)
        form_append(&form, curl, &fields[i]);
    if (form.failed || url.failed) {
        status = error_set(detail, STATUS_NO_MEMORY, "out of memory");
        goto out;
    }
    curl_easy_setopt(curl, CURLOPT_URL, (const char *)url.data);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)form.len);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, (const char *)form.data);
    curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "tidalite/" TIDALITE_VERSION);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, body_take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &sink);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    CURLcode fault = curl_easy_perform(curl);
    if (fault == CURLE_OK)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, code_out);
    else if (sink.too_large)
        status = error_set(detail, STATUS_TOO_LARGE,
                           "the answer is longer than %llu bytes; ask for less, for example with topk",
                           (unsigned long long)ANSWER_BYTES_MAX);
    else if (body->failed)
        status = error_set(detail, STATUS_NO_MEMORY, "out of memory");
    else
        status = fault_explain(server, fault, reason, detail);
out:
    if (curl != NULL)
        curl_easy_cleanup(curl);
    curl_global_cleanup();
    buf_release(&form);
    buf_release(&url);
    return status;
}
