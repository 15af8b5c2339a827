/* slab.c: regions of pages, pages of pieces of one size. */
#include "base/slab.h"

#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1 /* clang says it this way */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define MARK_FREE(data, bytes)  ASAN_POISON_MEMORY_REGION(data, bytes)
#define MARK_TAKEN(data, bytes) ASAN_UNPOISON_MEMORY_REGION(data, bytes)
#define RED_ZONE_BYTES          16
#else
#define MARK_FREE(data, bytes)  ((void)(data), (void)(bytes))
#define MARK_TAKEN(data, bytes) ((void)(data), (void)(bytes))
#define RED_ZONE_BYTES          0
#endif

#define PAGE_BYTES     ((size_t)32 << 10)
#define REGION_PAGES   32
#define REGION_BYTES   (REGION_PAGES * PAGE_BYTES)
#define SPARE_PAGES    32 /* kept, and a share of all, so that pages don't go to and fro */
#define SPARE_SHARE    16
#define ALL_PAGES_FREE UINT32_MAX

/* The first member of what is in lists. */
struct slab_link {
    struct slab_link *next, *previous;
};

static void link_add(struct slab_link **list, struct slab_link *link) {
    *link = (struct slab_link){.next = *list};
    if (*list != NULL)
        (*list)->previous = link;
    *list = link;
}

static void link_remove(struct slab_link **list, struct slab_link *link) {
    if (link->previous != NULL)
        link->previous->next = link->next;
    else
        *list = link->next;
    if (link->next != NULL)
        link->next->previous = link->previous;
}

struct slab_page {
    struct slab_link link; /* in the list that it is in, if any */
    struct slab_region *region;
    void *free;        /* pieces that came back, each holding the next one's place */
    uint32_t size;     /* of its pieces */
    uint32_t used;     /* pieces */
    uint32_t fresh_at; /* offset of what was never handed out */
    bool is_listed;    /* as having room */
};

#define PAGE_HEADER_BYTES 64
_Static_assert(sizeof(struct slab_page) <= PAGE_HEADER_BYTES, "pieces begin behind it");

struct slab_region {
    struct slab_link link;
    void *mapped;   /* a page more than it has, to find aligned ones in it */
    uint8_t *pages; /* aligned to their size */
    uint32_t free;  /* a bit for each page that takes no memory */
};
_Static_assert(REGION_PAGES == 32, "one word of bits");

static size_t piece_stride(size_t size) {
    return size + RED_ZONE_BYTES;
}

static struct slab_page *page_of(const void *piece) {
    return (struct slab_page *)((uintptr_t)piece & ~(PAGE_BYTES - 1)); // NOLINT(performance-no-int-to-ptr)
}

/* ---- Regions ---- */

static struct slab_region *region_new(void) {
    struct slab_region *region = mem_alloc(sizeof *region);
    if (region == NULL)
        return NULL;
    *region =
        (struct slab_region){.mapped = mem_pages_alloc(REGION_BYTES + PAGE_BYTES), .free = ALL_PAGES_FREE};
    if (region->mapped == NULL) {
        mem_free(region);
        return NULL;
    }
    size_t skew = (uintptr_t)region->mapped % PAGE_BYTES;
    region->pages = (uint8_t *)region->mapped + (skew == 0 ? 0 : PAGE_BYTES - skew);
    return region;
}

static void region_free(struct slab_region *region) {
    MARK_TAKEN(region->pages, REGION_BYTES); /* whatever is mapped there next knows nothing of our marks */
    mem_pages_free(region->mapped, REGION_BYTES + PAGE_BYTES);
    mem_free(region);
}

/* ---- Pages ---- */

static struct slab_page *page_new(struct slab *slab) {
    struct slab_region *region = (struct slab_region *)slab->regions_with_room;
    if (region == NULL) {
        region = region_new();
        if (region == NULL)
            return NULL;
        link_add(&slab->regions_with_room, &region->link);
    }
    unsigned number = (unsigned)__builtin_ctz(region->free);
    region->free &= ~(UINT32_C(1) << number);
    if (region->free == 0) {
        link_remove(&slab->regions_with_room, &region->link);
        link_add(&slab->regions_full, &region->link);
    }
    struct slab_page *page = (struct slab_page *)(void *)(region->pages + number * PAGE_BYTES);
    MARK_TAKEN(page, sizeof *page);
    page->region = region;
    slab->page_count++;
    return page;
}

static struct slab_page *page_take(struct slab *slab, size_t size) {
    struct slab_page *page = (struct slab_page *)slab->spare;
    if (page != NULL) {
        link_remove(&slab->spare, &page->link);
        slab->spare_count--;
    } else {
        page = page_new(slab);
        if (page == NULL)
            return NULL;
    }
    *page = (struct slab_page){.region = page->region, .size = (uint32_t)size, .fresh_at = PAGE_HEADER_BYTES};
    MARK_FREE((uint8_t *)page + PAGE_HEADER_BYTES, PAGE_BYTES - PAGE_HEADER_BYTES);
    return page;
}

/* Its memory goes back to the system. */
static void page_return(struct slab *slab, struct slab_page *page) {
    struct slab_region *region = page->region;
    unsigned number = (unsigned)((size_t)((uint8_t *)page - region->pages) / PAGE_BYTES);
    if (region->free == 0) {
        link_remove(&slab->regions_full, &region->link);
        link_add(&slab->regions_with_room, &region->link);
    }
    region->free |= UINT32_C(1) << number;
    slab->page_count--;
    if (region->free == ALL_PAGES_FREE) {
        link_remove(&slab->regions_with_room, &region->link);
        region_free(region);
    } else {
        mem_pages_clear(page, PAGE_BYTES);
    }
}

/* The page has no piece any more. */
static void page_spare(struct slab *slab, struct slab_page *page) {
    if (slab->spare_count >= SPARE_PAGES + slab->page_count / SPARE_SHARE) {
        page_return(slab, page);
        return;
    }
    link_add(&slab->spare, &page->link);
    slab->spare_count++;
}

static bool page_has_room(const struct slab_page *page) {
    return page->free != NULL || page->fresh_at + piece_stride(page->size) <= PAGE_BYTES;
}

static void *page_piece_take(struct slab_page *page) {
    void *piece = page->free;
    if (piece != NULL) {
        MARK_TAKEN(piece, page->size);
        memcpy(&page->free, piece, sizeof page->free);
    } else {
        piece = (uint8_t *)page + page->fresh_at;
        page->fresh_at += (uint32_t)piece_stride(page->size);
        MARK_TAKEN(piece, page->size);
    }
    page->used++;
    return piece;
}

/* ---- The slab ---- */

void slab_init(struct slab *slab, size_t step) {
    ASSERT(step == 4 || step == 8 || step == 16);
    *slab = (struct slab){.step = step};
}

static void regions_free(struct slab_link *link) {
    while (link != NULL) {
        struct slab_link *next = link->next;
        region_free((struct slab_region *)link);
        link = next;
    }
}

void slab_release(struct slab *slab) {
    regions_free(slab->regions_with_room);
    regions_free(slab->regions_full);
    slab_init(slab, slab->step);
}

size_t slab_size(const struct slab *slab, size_t bytes) {
    size_t size = (bytes + slab->step - 1) / slab->step * slab->step;
    return size < sizeof(void *) ? sizeof(void *) : size; /* room for the free list's link */
}

static void *class_alloc(struct slab *slab, size_t size) {
    struct slab_link **list = &slab->with_room[size / slab->step];
    struct slab_page *page = (struct slab_page *)*list;
    if (page == NULL) {
        page = page_take(slab, size);
        if (page == NULL)
            return NULL;
        page->is_listed = true;
        link_add(list, &page->link);
    }
    void *piece = page_piece_take(page);
    if (!page_has_room(page)) {
        link_remove(list, &page->link);
        page->is_listed = false;
    }
    return piece;
}

void *slab_alloc(struct slab *slab, size_t bytes) {
    ASSERT(bytes > 0);
    size_t size = slab_size(slab, bytes);
    bool is_large = size > SLAB_CLASS_BYTES;
    void *p = is_large ? mem_alloc(size) : class_alloc(slab, size);
    if (p == NULL)
        return NULL;
    if (is_large)
        slab->large_bytes += size;
    slab->bytes += size;
    return p;
}

static void class_free(struct slab *slab, void *p, size_t size) {
    struct slab_link **list = &slab->with_room[size / slab->step];
    struct slab_page *page = page_of(p);
    ASSERT(page->size == size && page->used > 0);
    memcpy(p, &page->free, sizeof page->free);
    page->free = p;
    MARK_FREE(p, size);
    page->used--;
    if (!page->is_listed) {
        page->is_listed = true;
        link_add(list, &page->link);
    }
    if (page->used == 0) {
        link_remove(list, &page->link);
        page_spare(slab, page);
    }
}

void slab_free(struct slab *slab, void *p, size_t bytes) {
    if (p == NULL)
        return;
    size_t size = slab_size(slab, bytes);
    slab->bytes -= size;
    if (size > SLAB_CLASS_BYTES) {
        slab->large_bytes -= size;
        mem_free(p);
        return;
    }
    class_free(slab, p, size);
}

uint64_t slab_memory_bytes(const struct slab *slab) {
    return slab->page_count * PAGE_BYTES + slab->large_bytes;
}
