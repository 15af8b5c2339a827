/* annotation.c: warnings and infos beside a result. */
#include <stdarg.h>
#include <stdio.h>

#include "base/float_text.h"
#include "query/eval.h"

/* Notes with the same text are one; a later position in the text wins, as if evaluated left to right. At most
 * a few hundred are kept: only ten are shown. */
#define ANNOTATIONS_MAX 4096

struct annotation *annotation_find(struct eval *eval, bool is_info, const char *text, size_t at) {
    for (size_t i = 0; i < eval->annotation_count; i++) {
        struct annotation *a = &eval->annotations[i];
        if (a->is_info == is_info && strcmp(a->text, text) == 0) {
            a->at = at > a->at ? at : a->at;
            return a;
        }
    }
    if (eval->annotation_count >= ANNOTATIONS_MAX)
        return NULL;
    struct annotation *grown =
        eval_push(eval, eval->annotations, eval->annotation_count, sizeof(struct annotation));
    if (grown == NULL)
        return NULL;
    eval->annotations = grown;
    char *copy = arena_str(&eval->arena, slice_str(text));
    if (copy == NULL)
        return NULL;
    struct annotation *a = &eval->annotations[eval->annotation_count++];
    *a = (struct annotation){.is_info = is_info, .text = copy, .at = at};
    return a;
}

int annotate(struct eval *eval, bool is_info, size_t at, const char *format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    annotation_find(eval, is_info, text, at);
    return STATUS_OK;
}

void go_float(double v, char out[64]) {
    char text[FLOAT_TEXT_BYTES_MAX];
    size_t len = float_text_go(v, text);
    len = len < 63 ? len : 63;
    memcpy(out, text, len);
    out[len] = 0;
}

void annotate_types(struct eval *eval, const struct ast *binary) {
    const char *op = token_text(binary->binary.op);
    annotate(eval, true, binary->start,
             "PromQL info: incompatible sample types encountered for binary operator \"%s\": float %s float",
             op, op);
}
