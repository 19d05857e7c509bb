/*
 * The limit of the speed comparison: the probe of who.py as one would write it by hand for a single kernel.
 *
 * Offsets, word size and geometry are constants of the compilation (-D). `limit` has the cache, the walk and the checks
 * of compiled probes: each load is aligned, volatile and behind a cache of 256 translations; a miss walks the guest's
 * tables, every load of which is aligned and inside of RAM; an entry of the list must link back to the one before it;
 * a budget bounds the walk. It does without what one probe for one kernel needs not: slots, traces, counters, troubles.
 * Where the list is in motion it gives up, since the comparison is made on a guest at rest.
 *
 * `unchecked` is what remains without all of that: a pointer less a constant is a place in RAM. The image of the kernel,
 * which is mapped elsewhere, has a constant of its own.
 */

#include <stddef.h>
#include <stdint.h>

enum { ENTRIES = 256, PAGE_SHIFT = 12 };

#define PAGE_MASK ((UINT64_C(1) << PAGE_SHIFT) - 1)
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)
#define EXPORT __attribute__((visibility("default")))

struct entry {
    uint64_t root;
    uint64_t page;
    uint64_t gpa;
    uint64_t host; /* less the page's GVA */
};

struct row {
    uint32_t pid;
    uint32_t tgid;
    uint32_t uid;
    uint32_t zero;
    uint64_t comm[2];
};

struct guest {
    uint64_t host; /* address of the first byte of RAM */
    uint64_t gpa;
    uint64_t size;
    uint64_t root;
    uint64_t init; /* GVA of init_task */
    uint64_t image; /* GVA less GPA of the kernel's image */
    uint64_t linear; /* and of the linear map */
    uint64_t rows;
    uint64_t capacity;
    uint64_t budget;
    uint64_t misses;
    struct entry cache[ENTRIES];
};

static inline int load_phys(const struct guest *g, uint64_t gpa, uint64_t size, uint64_t *value)
{
    uint64_t at = gpa - g->gpa;

    if (unlikely((gpa & (size - 1)) || at >= g->size || size > g->size - at))
        return 1;
    *value = size == 8 ? *(const volatile uint64_t *)(uintptr_t)(g->host + at)
                       : *(const volatile uint32_t *)(uintptr_t)(g->host + at);
    return 0;
}

#if WORD == 8
/* AArch64, 4 KiB granule, 48-bit output addresses; BITS and SHIFT are the kernel half's size and first index. */
static int walk(const struct guest *g, uint64_t gva, uint64_t *gpa)
{
    uint64_t offset = gva & ((UINT64_C(1) << BITS) - 1), entry, at;
    unsigned int shift = SHIFT;

    if (gva >> BITS != (UINT64_C(1) << (64 - BITS)) - 1 || load_phys(g, g->root + (offset >> shift) * 8, 8, &entry))
        return 1;
    while (shift > 12 && (entry & 3) == 3) {
        shift -= 9;
        at = (entry & UINT64_C(0xfffffffff000)) + ((offset >> shift) & 511) * 8;
        if (load_phys(g, at, 8, &entry))
            return 1;
    }
    if ((entry & 3) != (shift == 12 ? 3u : 1u) || shift > 30)
        return 1;
    *gpa = ((entry & UINT64_C(0xfffffffff000)) >> shift << shift) | (gva & ((UINT64_C(1) << shift) - 1));
    return 0;
}
#else
/* Arm short descriptors, as Linux sets them up (ARM ARM v7, B3.5). */
static int walk(const struct guest *g, uint64_t gva, uint64_t *gpa)
{
    uint64_t entry, access, size;

    if (gva >> 32 || load_phys(g, g->root + (gva >> 20) * 4, 4, &entry) || !(entry & 3))
        return 1;
    if ((entry & 3) == 1) {
        if (load_phys(g, (entry & 0xfffffc00) + ((gva >> 12) & 255) * 4, 4, &entry) || !(entry & 3))
            return 1;
        access = ((entry >> 4) & 3) | ((entry >> 7) & 4);
        size = entry & 2 ? 0x1000 : 0x10000;
    } else {
        access = ((entry >> 10) & 3) | ((entry >> 13) & 4);
        size = entry & 0x40000 ? 0x1000000 : 0x100000;
    }
    if (access == 4)
        return 1;
    *gpa = (entry & (0xffffffff & ~(size - 1))) | (gva & (size - 1));
    return 0;
}
#endif

static __attribute__((noinline, cold)) const struct entry *miss(struct guest *g, struct entry *entry, uint64_t gva)
{
    uint64_t first = gva & ~PAGE_MASK, gpa = 0;

    if (gva < FIRST || walk(g, first, &gpa))
        return NULL;
    g->misses++;
    if (gpa - g->gpa >= g->size || PAGE_MASK >= g->size - (gpa - g->gpa))
        return NULL;
    entry->root = g->root;
    entry->page = gva >> PAGE_SHIFT;
    entry->gpa = gpa;
    entry->host = g->host + (gpa - g->gpa) - first;
    return entry;
}

/* One load of guest memory: a look into the cache and one aligned volatile load. */
static inline int load(struct guest *g, uint64_t gva, unsigned int size, uint64_t *value)
{
    uint64_t page = gva >> PAGE_SHIFT, host;
    struct entry *entry = &g->cache[(page ^ (g->root >> PAGE_SHIFT)) & (ENTRIES - 1)];
    const struct entry *found = entry;

    if (unlikely(gva & (size - 1)))
        return 1;
    if (unlikely(entry->page != page || entry->root != g->root)) {
        found = miss(g, entry, gva);
        if (!found)
            return 1;
    }
    host = found->host + gva;
    *value = size == 8   ? *(const volatile uint64_t *)(uintptr_t)host
             : size == 4 ? *(const volatile uint32_t *)(uintptr_t)host
                         : *(const volatile uint8_t *)(uintptr_t)host;
    return 0;
}

static inline int has_nul(uint64_t text)
{
    return ((text - UINT64_C(0x0101010101010101)) & ~text & UINT64_C(0x8080808080808080)) != 0;
}

/* The name up to its NUL, by the largest loads that its place allows. */
static inline int load_comm(struct guest *g, uint64_t gva, uint64_t comm[2])
{
    comm[0] = comm[1] = 0;
    for (unsigned int at = 0; at < 16;) {
        unsigned int size = (gva & 7) || at > 8 ? 1 : 8;
        uint64_t part;

        if (load(g, gva, size, &part))
            return 1;
        __builtin_memcpy((uint8_t *)comm + at, &part, size);
        if (size == 8 ? has_nul(part) : !part)
            return 0;
        at += size;
        gva += size;
    }
    return 0;
}

/* Rows written, or -1 where something was not as it has to be. */
EXPORT int64_t limit(struct guest *g);
EXPORT int64_t limit(struct guest *g)
{
    const uint64_t head = g->init + TASKS;
    struct row *row = (struct row *)(uintptr_t)g->rows, *const end = row + g->capacity;
    uint64_t previous = head, node, value, task, cred, budget = g->budget;

    g->misses = 0;
    for (uint64_t i = 0; i < ENTRIES; i++) {
        g->cache[i].root = 0;
        g->cache[i].page = i ^ 1;
        g->cache[i].gpa = g->cache[i].host = 0;
    }
    if (load(g, head, WORD, &node))
        return -1;
    while (node != head) {
        if (!budget-- || row == end || load(g, node + WORD, WORD, &value) || value != previous)
            return -1;
        task = node - TASKS;
        if (load(g, task + PID, 4, &value))
            return -1;
        row->pid = (uint32_t)value;
        if (load(g, task + TGID, 4, &value))
            return -1;
        row->tgid = (uint32_t)value;
        if (load_comm(g, task + COMM, row->comm) || load(g, task + CRED, WORD, &cred) || load(g, cred + UID, 4, &value))
            return -1;
        row->uid = (uint32_t)value;
        row->zero = 0;
        row++;
        previous = node;
        if (load(g, node, WORD, &node))
            return -1;
    }
    return row - (struct row *)(uintptr_t)g->rows;
}

#if WORD == 8
typedef uint64_t word;
#else
typedef uint32_t word;
#endif

EXPORT int64_t unchecked(struct guest *g);
EXPORT int64_t unchecked(struct guest *g)
{
    const uint64_t linear = g->host - g->gpa - g->linear, head = g->init + TASKS;
    struct row *row = (struct row *)(uintptr_t)g->rows;
    uint64_t node = *(const volatile word *)(uintptr_t)(head - g->image - g->gpa + g->host);

    while (node != head) {
        uint64_t task = node - TASKS + linear, cred;

        row->pid = *(const volatile uint32_t *)(uintptr_t)(task + PID);
        row->tgid = *(const volatile uint32_t *)(uintptr_t)(task + TGID);
        for (unsigned int i = 0; i < 4; i++)
            ((uint32_t *)row->comm)[i] = ((const volatile uint32_t *)(uintptr_t)(task + COMM))[i];
        cred = *(const volatile word *)(uintptr_t)(task + CRED);
        /* Those of kernel threads are init_cred, in the image. */
        cred += cred >= g->init - IMAGE_ROOM && cred < g->init + IMAGE_ROOM ? g->host - g->gpa - g->image : linear;
        row->uid = *(const volatile uint32_t *)(uintptr_t)(cred + UID);
        row->zero = 0;
        row++;
        node = *(const volatile word *)(uintptr_t)(task + TASKS);
    }
    return row - (struct row *)(uintptr_t)g->rows;
}

/* Push everything else out of the CPU's caches. */
EXPORT uint64_t flush(uint64_t *buffer, uint64_t words);
EXPORT uint64_t flush(uint64_t *buffer, uint64_t words)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < words; i += 8)
        sum += buffer[i]++;
    return sum;
}
