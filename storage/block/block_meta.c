/* block_meta.c: meta.json: a few lines of JSON that people and tools can read.
 *
 * It is read by nobody but us, and what we wrote we know to the byte: the checksum in its last line is
 * checked, the fields are taken out one after the other, and then printing them must give the same text
 * again. So there is one definition of the format, block__meta_print, and no JSON library. */
#include "storage/block/block_meta.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/mutation.h"

static const char crc_line[] = "  \"crc32c\": \"";
#define CRC_TAIL ((size_t)12) /* eight digits, quote, newline, brace, newline */

static void file_print(struct buf *buf, const char *name, const struct block_file_sum *sum,
                       const char *behind) {
    buf_printf(buf, "    \"%s\": {\"bytes\": %" PRIu64 ", \"crc32c\": \"%08" PRIx32 "\"}%s\n", name,
               sum->bytes, sum->crc, behind);
}

/* 64-bit ids and positions are text: JSON's numbers are doubles to most who read them. */
void block__meta_print(struct buf *buf, const struct block_meta *meta) {
    size_t start = buf->len;
    buf_printf(buf, "{\n  \"format\": %d,\n", BLOCK__META_FORMAT);
    buf_printf(buf, "  \"block\": \"%" PRIu64 "\",\n  \"level\": %" PRIu32 ",\n", meta->id, meta->level);
    buf_printf(buf, "  \"salt\": \"%016" PRIx64 "\",\n", meta->salt);
    buf_printf(buf, "  \"time_min_ms\": %" PRId64 ",\n  \"time_max_ms\": %" PRId64 ",\n", meta->time_min_ms,
               meta->time_max_ms);
    buf_printf(buf, "  \"series\": %" PRIu64 ",\n  \"chunks\": %" PRIu64 ",\n  \"samples\": %" PRIu64 ",\n",
               meta->series_count, meta->chunk_count, meta->sample_count);
    buf_printf(buf, "  \"position_min\": \"%016" PRIx64 "\",\n  \"position_max\": \"%016" PRIx64 "\",\n",
               meta->position_min, meta->position_max);
    buf_printf(buf, "  \"time_base_ms\": %" PRId64 ",\n  \"position_base\": \"%016" PRIx64 "\",\n",
               meta->time_base_ms, meta->position_base);
    buf_append_str(buf, "  \"sources\": [");
    for (size_t i = 0; i < meta->source_count; i++)
        buf_printf(buf, "%s\"%" PRIu64 "\"", i > 0 ? ", " : "", meta->sources[i]);
    buf_append_str(buf, "],\n  \"files\": {\n");
    file_print(buf, "chunks", &meta->chunks, ",");
    file_print(buf, "index.mdb", &meta->index, ",");
    file_print(buf, "index.sum", &meta->index_sum, "");
    buf_append_str(buf, "  },\n");
    if (buf->failed)
        return;
    buf_printf(buf, "%s%08" PRIx32 "\"\n}\n", crc_line, crc32c(0, buf->data + start, buf->len - start));
}

/* ---- Parsing ------------------------------------------------------------------------------------------ */

struct parser {
    const uint8_t *p, *end;
    bool failed;
};

static void expect(struct parser *parser, const char *text) {
    size_t len = strlen(text);
    if (parser->failed || (size_t)(parser->end - parser->p) < len || memcmp(parser->p, text, len) != 0)
        parser->failed = true;
    else
        parser->p += len;
}

static bool at(const struct parser *parser, char c) {
    return !parser->failed && parser->p < parser->end && *parser->p == (uint8_t)c;
}

static uint64_t number(struct parser *parser, unsigned base) {
    uint64_t v = 0;
    const uint8_t *start = parser->p;
    for (; !parser->failed && parser->p < parser->end; parser->p++) {
        uint8_t c = *parser->p;
        unsigned digit = c >= '0' && c <= '9' ? c - (unsigned)'0' : 99;
        if (base == 16 && c >= 'a' && c <= 'f')
            digit = c - (unsigned)'a' + 10;
        if (digit >= base)
            break;
        if (v > (UINT64_MAX - digit) / base)
            parser->failed = true;
        else
            v = v * base + digit;
    }
    if (parser->p == start)
        parser->failed = true;
    return v;
}

static int64_t signed_number(struct parser *parser) {
    bool negative = at(parser, '-');
    if (negative)
        parser->p++;
    uint64_t v = number(parser, 10);
    return (int64_t)(negative ? 0 - v : v); /* what is out of range prints otherwise than it was written */
}

static uint64_t field(struct parser *parser, const char *before, unsigned base, const char *behind) {
    expect(parser, before);
    uint64_t v = number(parser, base);
    expect(parser, behind);
    return v;
}

static struct block_file_sum file_field(struct parser *parser, const char *before) {
    struct block_file_sum sum;
    sum.bytes = field(parser, before, 10, ", \"crc32c\": \"");
    sum.crc = (uint32_t)field(parser, "", 16, "\"}");
    return sum;
}

int block__meta_parse(struct slice text, struct block_meta *out, uint64_t *format_out) {
    int status = STATUS_OK;
    struct block_meta meta = {0};
    struct buf again;
    buf_init(&again);
    /* The first two lines and the last two keep their form in every version. */
    struct parser parser = {text.data, text.data + text.len, false};
    uint64_t format = field(&parser, "{\n  \"format\": ", 10, ",\n");
    size_t tail = strlen(crc_line) + CRC_TAIL;
    if (parser.failed || text.len < tail)
        return STATUS_CORRUPT;
    struct parser end = {parser.end - tail, parser.end, false};
    uint64_t crc = field(&end, crc_line, 16, "\"\n}\n");
    if (end.failed || (crc32c(0, text.data, text.len - tail) != crc && !MUTATED(IGNORE_CRC)))
        return STATUS_CORRUPT;
    if (format != BLOCK__META_FORMAT) {
        *format_out = format;
        return STATUS_NEWER_FORMAT;
    }

    meta.id = field(&parser, "  \"block\": \"", 10, "\",\n");
    meta.level = (uint32_t)field(&parser, "  \"level\": ", 10, ",\n");
    meta.salt = field(&parser, "  \"salt\": \"", 16, "\",\n");
    expect(&parser, "  \"time_min_ms\": ");
    meta.time_min_ms = signed_number(&parser);
    expect(&parser, ",\n  \"time_max_ms\": ");
    meta.time_max_ms = signed_number(&parser);
    meta.series_count = field(&parser, ",\n  \"series\": ", 10, ",\n");
    meta.chunk_count = field(&parser, "  \"chunks\": ", 10, ",\n");
    meta.sample_count = field(&parser, "  \"samples\": ", 10, ",\n");
    meta.position_min = field(&parser, "  \"position_min\": \"", 16, "\",\n");
    meta.position_max = field(&parser, "  \"position_max\": \"", 16, "\",\n");
    expect(&parser, "  \"time_base_ms\": ");
    meta.time_base_ms = signed_number(&parser);
    meta.position_base = field(&parser, ",\n  \"position_base\": \"", 16, "\",\n");
    expect(&parser, "  \"sources\": [");
    if (!at(&parser, ']')) {
        meta.sources = mem_alloc(BLOCK_SOURCES_MAX * sizeof *meta.sources);
        if (meta.sources == NULL)
            return STATUS_NO_MEMORY;
        do {
            if (meta.source_count > 0)
                expect(&parser, ", ");
            meta.sources[meta.source_count++] = field(&parser, "\"", 10, "\"");
        } while (!parser.failed && !at(&parser, ']') && meta.source_count < BLOCK_SOURCES_MAX);
    }
    expect(&parser, "],\n  \"files\": {\n");
    meta.chunks = file_field(&parser, "    \"chunks\": {\"bytes\": ");
    meta.index = file_field(&parser, ",\n    \"index.mdb\": {\"bytes\": ");
    meta.index_sum = file_field(&parser, ",\n    \"index.sum\": {\"bytes\": ");
    if (!parser.failed) {
        block__meta_print(&again, &meta);
        if (again.failed)
            status = STATUS_NO_MEMORY;
    }
    if (status == STATUS_OK && (parser.failed || !slice_equal(buf_slice(&again), text)))
        status = STATUS_CORRUPT;
    buf_release(&again);
    if (status < 0)
        mem_free(meta.sources);
    else
        *out = meta;
    return status;
}
