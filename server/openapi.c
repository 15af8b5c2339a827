/* openapi.c: /api/v1/openapi.yaml: server/openapi.yaml as it was when this was built. */
#include "server/api.h"

__asm__(".pushsection .rodata\n"
        "openapi_begin:\n"
        ".incbin \"" OPENAPI_FILE "\"\n"
        "openapi_end:\n"
        ".byte 0\n"
        ".popsection\n");
extern const uint8_t openapi_begin[], openapi_end[];

void api_openapi(struct exchange *exchange) {
    exchange->code = 200;
    exchange->type = "application/yaml; charset=utf-8";
    buf_append(&exchange->out, openapi_begin, (size_t)(openapi_end - openapi_begin));
    exchange_send(exchange);
}
