/*
 * The limit of the speed comparison: the probe of who.py as one would write it by hand, for the same work.
 *
 * `limit` does what compiled probes do. Where members lie and how page tables are set up is known at run time only, and
 * a member's size is checked. Each load is of 1, 2, 4 or 8 bytes, aligned, volatile, single, counted, and behind a cache
 * of 256 translations; a miss asks whether the address is the kernel's, walks the guest's tables, every load of which is
 * aligned and inside of RAM, and asks whether the page is. Each round of a loop over guest data takes from a budget, each
 * row asks for room, and an entry of the list must link back to the one before it. Rows have our columns and our size.
 *
 * It does without what one probe on a guest at rest needs not: records of events, RAM that is not mapped, bit-fields, and
 * a list in motion, where it gives up. The walk itself takes nothing from the budget: it has as many rounds as levels.
 *
 * With ONE_KERNEL what is known of the guest are constants of the compilation: what a hypervisor with one guest would have.
 *
 * `unchecked` is what remains without all of that: a pointer less a constant is a place in RAM. The image of the kernel,
 * which is mapped elsewhere, has a constant of its own.
 */

#include <stddef.h>
#include <stdint.h>

enum { ENTRIES = 256, COMM_WORDS = 8 };

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)
#define COLD __attribute__((noinline, cold))
#define EXPORT __attribute__((visibility("default")))

struct entry {
    uint64_t root;
    uint64_t first; /* GVA of the page */
    uint64_t gpa;
    uint64_t host; /* less that GVA */
};

struct row {
    uint64_t present; /* a bit for each column */
    uint64_t pid;
    uint64_t tgid;
    uint64_t comm[COMM_WORDS];
    uint64_t uid;
};

/* What is known of the guest, and of one run. */
struct guest {
    uint64_t host; /* address of the first byte of RAM */
    uint64_t gpa;
    uint64_t size;
    uint64_t root;
    uint64_t first; /* GVAs of the kernel */
    uint64_t last;
    uint64_t init; /* GVA of init_task */
    uint64_t image; /* GVA less GPA of the kernel's image */
    uint64_t linear; /* and of the linear map */
    uint64_t tasks; /* offsets and sizes of members */
    uint64_t pid;
    uint64_t pid_size;
    uint64_t tgid;
    uint64_t tgid_size;
    uint64_t comm;
    uint64_t comm_size;
    uint64_t cred;
    uint64_t uid;
    uint64_t uid_size;
    uint64_t page_shift; /* the page tables; AArch64: */
    uint64_t bits; /* of the kernel's half */
    uint64_t shift; /* of its first table */
    uint64_t pa_bits;
    uint64_t largest; /* shift of the largest block */
    uint64_t address; /* bits of an output address that stand in their own place */
    uint64_t rows;
    uint64_t capacity;
    uint64_t budget;
    uint64_t loads;
    uint64_t misses;
    uint64_t fault; /* the address that could not be loaded from */
    struct entry cache[ENTRIES];
};

#ifdef ONE_KERNEL
#define KNOWN(name) KNOWN_##name
#else
#define KNOWN(name) (g->name)
#endif

#if WORD == 8
typedef uint64_t word;
#else
typedef uint32_t word;
#endif

static COLD void note(struct guest *g, uint64_t address)
{
    g->fault = address;
}

/* Always 1, and the compiler sees that. */
static inline int refuse(struct guest *g, uint64_t address)
{
    note(g, address);
    return 1;
}

static inline uint64_t get(uint64_t host, uint64_t size)
{
    switch (size) {
    case 1:
        return *(const volatile uint8_t *)(uintptr_t)host;
    case 2:
        return *(const volatile uint16_t *)(uintptr_t)host;
    case 4:
        return *(const volatile uint32_t *)(uintptr_t)host;
    default:
        return *(const volatile uint64_t *)(uintptr_t)host;
    }
}

static inline int load_phys(struct guest *g, uint64_t gpa, uint64_t size, uint64_t *value)
{
    uint64_t at = gpa - g->gpa;

    if (unlikely((gpa & (size - 1)) || at >= g->size || size > g->size - at))
        return refuse(g, gpa);
    *value = get(g->host + at, size);
    return 0;
}

#if WORD == 8
/* The output address of an AArch64 descriptor (ARM DDI 0487, D8.3). */
static inline uint64_t output(const struct guest *g, uint64_t entry)
{
    uint64_t gpa = entry & KNOWN(address);

    (void)g;
    if (KNOWN(pa_bits) == 48)
        return gpa;
    return KNOWN(page_shift) == 16 ? gpa | ((entry >> 12) & 15) << 48 : gpa | ((entry >> 8) & 3) << 50;
}

/* AArch64 stage 1, the kernel's half (D8.2). */
static int walk(struct guest *g, uint64_t gva, uint64_t *gpa)
{
    const uint64_t offset = gva & ((UINT64_C(1) << KNOWN(bits)) - 1), stride = KNOWN(page_shift) - 3;
    const uint64_t last = (UINT64_C(1) << stride) - 1;
    uint64_t shift = KNOWN(shift), entry;

    if (gva >> KNOWN(bits) != (UINT64_C(1) << (64 - KNOWN(bits))) - 1)
        return refuse(g, gva);
    if (load_phys(g, g->root + (offset >> shift) * 8, 8, &entry))
        return 1;
    while (shift > KNOWN(page_shift) && (entry & 3) == 3) {
        shift -= stride;
        if (load_phys(g, output(g, entry) + ((offset >> shift) & last) * 8, 8, &entry))
            return 1;
    }
    if ((entry & 3) != (shift == KNOWN(page_shift) ? 3u : 1u) || (shift != KNOWN(page_shift) && shift > KNOWN(largest)))
        return refuse(g, gva);
    *gpa = (output(g, entry) >> shift << shift) | (gva & ((UINT64_C(1) << shift) - 1));
    return 0;
}
#else
/* Arm short descriptors, as Linux sets them up (ARM DDI 0406C, B3.5). */
static int walk(struct guest *g, uint64_t gva, uint64_t *gpa)
{
    uint64_t entry, access, size, base;

    if (gva >> 32)
        return refuse(g, gva);
    if (load_phys(g, g->root + (gva >> 20) * 4, 4, &entry))
        return 1;
    if (!(entry & 3))
        return refuse(g, gva);
    if ((entry & 3) == 1) {
        if (load_phys(g, (entry & 0xfffffc00) + ((gva >> 12) & 255) * 4, 4, &entry))
            return 1;
        if (!(entry & 3))
            return refuse(g, gva);
        access = ((entry >> 4) & 3) | ((entry >> 7) & 4);
        size = entry & 2 ? 0x1000 : 0x10000;
        base = entry & ~(size - 1);
    } else {
        access = ((entry >> 10) & 3) | ((entry >> 13) & 4);
        size = entry & 0x40000 ? 0x1000000 : 0x100000;
        base = entry & 0xffffffff & ~(size - 1);
        if (entry & 0x40000)
            base |= ((entry >> 20) & 15) << 32 | ((entry >> 5) & 15) << 36;
    }
    if (access == 4)
        return refuse(g, gva);
    *gpa = base | (gva & (size - 1));
    return 0;
}
#endif

/* What the cache does not hold: a misaligned address, or a page that is to be looked up. */
static __attribute__((noinline)) const struct entry *miss(struct guest *g, struct entry *entry, uint64_t gva,
                                                          uint64_t size)
{
    const uint64_t bytes = UINT64_C(1) << KNOWN(page_shift), first = gva & ~(bytes - 1);
    uint64_t gpa = 0, at;

    if ((gva & (size - 1)) || gva < g->first || gva > g->last) {
        note(g, gva);
        return NULL;
    }
    if (walk(g, first, &gpa))
        return NULL;
    g->misses++;
    at = gpa - g->gpa;
    if (at >= g->size || bytes > g->size - at) {
        note(g, gpa);
        return NULL;
    }
    entry->root = g->root;
    entry->first = first;
    entry->gpa = gpa;
    entry->host = g->host + at - first;
    return entry;
}

/* One load of guest memory. The low bits of a misaligned address are kept, so that it is the first byte of no page. */
static inline int load(struct guest *g, uint64_t gva, uint64_t size, uint64_t *value, uint64_t *loads)
{
    const uint64_t kept = ~((UINT64_C(1) << KNOWN(page_shift)) - 1) | (size - 1);
    struct entry *entry = &g->cache[((gva ^ g->root) >> KNOWN(page_shift)) & (ENTRIES - 1)];
    const struct entry *found = entry;

    if (unlikely(entry->first != (gva & kept) || entry->root != g->root)) {
        found = miss(g, entry, gva, size);
        if (!found)
            return 1;
    }
    ++*loads;
    *value = get(found->host + gva, size);
    return 0;
}

/* The same for a member that should have 4 bytes, and may have any number. */
static inline int load_member(struct guest *g, uint64_t gva, uint64_t size, uint64_t *value, uint64_t *loads)
{
    if (likely(size == 4))
        return load(g, gva, 4, value, loads);
    if (size - 1 > 7 || (size & (size - 1)))
        return refuse(g, gva);
    return load(g, gva, size, value, loads);
}

/* The lowest bit is the top of the first byte that is 0 (Hacker's Delight, 6-1). */
static inline word find_nul(word text)
{
    const word ones = (word)UINT64_C(0x0101010101010101);

    return (text - ones) & ~text & (ones << 7);
}

/* A name up to its NUL, by loads of a word where its place allows that, and zeros behind it. */
static inline int load_comm(struct guest *g, uint64_t gva, uint64_t comm[COMM_WORDS], uint64_t *budget, uint64_t *loads)
{
    uint64_t left = KNOWN(comm_size) > COMM_WORDS * 8 ? COMM_WORDS * 8 : KNOWN(comm_size), at = 0, part;

    for (uint64_t i = 0; i < COMM_WORDS; i++)
        comm[i] = 0;
    for (;;) {
        if (unlikely(!(*budget)--))
            return refuse(g, gva);
        if (!left)
            return 0;
        if (likely(!(gva & (WORD - 1)) && left >= WORD)) {
            word text, nul;

            if (load(g, gva, WORD, &part, loads))
                return 1;
            text = (word)part;
            nul = find_nul(text);
            if (nul)
                text &= ((nul & (~nul + 1)) >> 7) - 1;
            __builtin_memcpy((uint8_t *)comm + at, &text, WORD);
            if (nul)
                return 0;
            at += WORD;
            gva += WORD;
            left -= WORD;
        } else {
            if (load(g, gva, 1, &part, loads))
                return 1;
            if (!part)
                return 0;
            ((uint8_t *)comm)[at++] = (uint8_t)part;
            gva++;
            left--;
        }
    }
}

/* Rows written, or -1 where something was not as it has to be. */
EXPORT int64_t limit(struct guest *g);
EXPORT int64_t limit(struct guest *g)
{
    const uint64_t head = g->init + KNOWN(tasks);
    struct row *const rows = (struct row *)(uintptr_t)g->rows, *const end = rows + g->capacity, *row = rows;
    uint64_t previous = head, node, value, task, cred, pid, tgid, budget = g->budget, loads = 0;

    g->misses = 0;
    for (uint64_t i = 0; i < ENTRIES; i++) {
        /* An empty entry holds a pair that belongs into another one. */
        g->cache[i].root = 0;
        g->cache[i].first = (i ^ 1) << KNOWN(page_shift);
        g->cache[i].gpa = g->cache[i].host = 0;
    }
    if (load(g, head, WORD, &node, &loads))
        return -1;
    while (node != head) {
        if (unlikely(!budget--))
            return -1;
        if (load(g, node + WORD, WORD, &value, &loads) || unlikely(value != previous))
            return -1;
        task = (word)(node - KNOWN(tasks));
        if (load_member(g, task + KNOWN(pid), KNOWN(pid_size), &pid, &loads))
            return -1;
        if (load_member(g, task + KNOWN(tgid), KNOWN(tgid_size), &tgid, &loads))
            return -1;
        if (unlikely(row == end))
            return -1;
        if (load_comm(g, task + KNOWN(comm), row->comm, &budget, &loads))
            return -1;
        if (load(g, task + KNOWN(cred), WORD, &cred, &loads))
            return -1;
        if (load_member(g, cred + KNOWN(uid), KNOWN(uid_size), &value, &loads))
            return -1;
        row->present = 15;
        row->pid = (uint64_t)(int32_t)pid;
        row->tgid = (uint64_t)(int32_t)tgid;
        row->uid = value;
        row++;
        previous = node;
        if (load(g, node, WORD, &node, &loads))
            return -1;
    }
    g->budget = budget;
    g->loads = loads;
    return row - rows;
}

EXPORT int64_t unchecked(struct guest *g);
EXPORT int64_t unchecked(struct guest *g)
{
    /* Those of kernel threads are init_cred, in the image. */
    const uint64_t room = UINT64_C(64) << 20, image = g->host - g->gpa - g->image, linear = g->host - g->gpa - g->linear;
    const uint64_t head = g->init + g->tasks, at_tasks = g->tasks, at_pid = g->pid, at_tgid = g->tgid;
    const uint64_t at_comm = g->comm, at_cred = g->cred, at_uid = g->uid, words = g->comm_size / 4;
    struct row *const rows = (struct row *)(uintptr_t)g->rows, *row = rows;
    uint64_t node = *(const volatile word *)(uintptr_t)(head + image);

    while (node != head) {
        uint64_t task = node - at_tasks + linear, cred;

        row->present = 15;
        row->pid = *(const volatile uint32_t *)(uintptr_t)(task + at_pid);
        row->tgid = *(const volatile uint32_t *)(uintptr_t)(task + at_tgid);
        for (uint64_t i = 0; i < COMM_WORDS; i++)
            row->comm[i] = 0;
        for (uint64_t i = 0; i < words; i++)
            ((uint32_t *)row->comm)[i] = ((const volatile uint32_t *)(uintptr_t)(task + at_comm))[i];
        cred = *(const volatile word *)(uintptr_t)(task + at_cred);
        cred += cred - g->init + room < 2 * room ? image : linear;
        row->uid = *(const volatile uint32_t *)(uintptr_t)(cred + at_uid);
        row++;
        node = *(const volatile word *)(uintptr_t)(task + at_tasks);
    }
    return row - rows;
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
