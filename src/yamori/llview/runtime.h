/*
 * What a compiled probe runs on: the cache of translations, loads of guest memory, faults, budget, rows, troubles, events.
 *
 * This text stands in every unit, behind the structures that layout.py describes. What the parts mean is said in ir.py,
 * faults.py and machine.py; the interpreter does the same, load for load.
 *
 * Two functions come from outside, and nothing else does. They are the runtime contract, which a hypervisor implements
 * in its own way:
 *
 *   ll_window  The mapped RAM around a GPA: its host address, or 0 where it is not mapped; *first is its first GPA and
 *              *size its bytes. Host address and GPA are alike modulo 8.
 *   ll_read    One load of 1, 2, 4 or 8 bytes that need not be mapped: LL_NONE, LL_OUTSIDE (no such RAM) or LL_GONE.
 */

/*
 * A text that has a unit inside of it says so by LL_INSIDE: then nothing of the unit is seen outside, loads are not
 * recorded, and ll_slice(c), which is its own, is called at every tick.
 */
#ifdef LL_INSIDE
#define LL_EXPORT static
#define LL_CONTRACT static
#define LL_EVENTS(context) 0
static void ll_slice(struct ll_context *c);
#else
#define LL_EXPORT __attribute__((visibility("default")))
#define LL_CONTRACT
#define LL_EVENTS(context) ((context)->event_capacity)
#define ll_slice(context) ((void)0)
#endif

LL_CONTRACT uint64_t ll_window(const struct ll_context *c, uint64_t gpa, uint64_t *first, uint64_t *size);
LL_CONTRACT uint64_t ll_read(const struct ll_context *c, uint64_t gpa, uint64_t size, uint64_t *value);

#define LL_APART __attribute__((noinline))
#define LL_COLD __attribute__((noinline, cold))
#define LL_UNUSED __attribute__((unused))
#define ll_likely(condition) __builtin_expect(!!(condition), 1)
#define ll_unlikely(condition) __builtin_expect(!!(condition), 0)

/* A comparison that is always true for one probe, kernel or word size is no mistake in generated text. */
#pragma GCC diagnostic ignored "-Wtype-limits"
#pragma GCC diagnostic ignored "-Wtautological-compare"
#pragma GCC diagnostic ignored "-Wbool-compare"

/* Which object this is: the host refuses one whose structures it does not know. */
#ifndef LL_INSIDE
extern const uint64_t ll_layout;
LL_EXPORT const uint64_t ll_layout = LL_LAYOUT;
#endif

/* The walkers of this unit, by c->walker: 0 and the GPA of the page, or 1 after a fault. Written by the back end. */
static int ll_walk(struct ll_context *c, uint64_t root, uint64_t gva, uint64_t *gpa);

/* ---- Arithmetic: what C leaves undefined or to libgcc ---------------------------------------------------------- */

LL_UNUSED static inline uint32_t ll_shl32(uint32_t value, uint64_t count)
{
    return count < 32 ? value << count : 0;
}

LL_UNUSED static inline uint64_t ll_shl64(uint64_t value, uint64_t count)
{
    return count < 64 ? value << count : 0;
}

LL_UNUSED static inline uint32_t ll_shr32(uint32_t value, uint64_t count)
{
    return count < 32 ? value >> count : 0;
}

LL_UNUSED static inline uint64_t ll_shr64(uint64_t value, uint64_t count)
{
    return count < 64 ? value >> count : 0;
}

LL_UNUSED static inline int64_t ll_sar64(int64_t value, uint64_t count)
{
    return value >> (count < 63 ? count : 63);
}

/* Division by a positive constant. On a 32-bit machine gcc may call libgcc for it, so it is done bit by bit there. */
LL_UNUSED static inline uint64_t ll_div64(uint64_t value, uint64_t divisor)
{
#if UINTPTR_MAX > 0xffffffffu
    return value / divisor;
#else
    uint64_t quotient = 0, rest = 0;

    for (unsigned int bit = 64; bit-- > 0;) {
        uint64_t carry = rest >> 63;

        rest = (rest << 1) | ((value >> bit) & 1u);
        if (carry || rest >= divisor) {
            rest -= divisor;
            quotient |= (uint64_t)1 << bit;
        }
    }
    return quotient;
#endif
}

LL_UNUSED static inline uint64_t ll_mod64(uint64_t value, uint64_t divisor)
{
    return value - ll_div64(value, divisor) * divisor;
}

/* ---- Faults, events, troubles ---------------------------------------------------------------------------------- */

/* Take a fault; always 1. */
LL_COLD static int ll_fault(struct ll_context *c, uint64_t code, uint64_t address, uint64_t value, uint64_t message)
{
    c->fault.code = code;
    c->fault.address = address;
    c->fault.value = value;
    c->fault.message = message;
    c->faults++;
    return 1;
}

/* Whether the last fault ends the run, whatever attempt is around. */
LL_UNUSED static inline int ll_final(const struct ll_context *c)
{
    return c->fault.code == LL_BUDGET || c->fault.code == LL_ROWS || c->fault.code == LL_GONE;
}

/* What does not fit is counted, so that the host knows how much room another run needs. */
LL_COLD LL_UNUSED static void ll_event(struct ll_context *c, uint64_t kind, uint64_t address, uint64_t size)
{
    if (c->event_count < c->event_capacity) {
        struct ll_event *event = (struct ll_event *)(uintptr_t)c->events + c->event_count;

        event->kind = kind;
        event->address = address;
        event->size = size;
    }
    c->event_count++;
}

LL_COLD LL_UNUSED static void ll_trouble(struct ll_context *c, uint64_t message, uint64_t value, int faulted, int torn)
{
    if (c->trouble_count < c->trouble_capacity) {
        struct ll_trouble *trouble = (struct ll_trouble *)(uintptr_t)c->troubles + c->trouble_count;

        trouble->message = message;
        trouble->value = value;
        trouble->torn = torn != 0;
        trouble->faulted = faulted != 0;
        trouble->fault.code = c->fault.code;
        trouble->fault.address = c->fault.address;
        trouble->fault.value = c->fault.value;
        trouble->fault.message = c->fault.message;
    }
    c->trouble_count++;
}

/* ---- Loads ------------------------------------------------------------------------------------------------------ */

/* The load itself: one, aligned, volatile. */
static inline uint64_t ll_get(uint64_t host, uint64_t size)
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

/* Whether the window that was used last holds all of [gpa, gpa + size); size is at least 1. */
static inline int ll_in_window(const struct ll_context *c, uint64_t gpa, uint64_t size)
{
    uint64_t at = gpa - c->window.gpa;

    return at < c->window.size && size <= c->window.size - at;
}

/* Make that window the one around a GPA. */
LL_COLD static int ll_move_window(struct ll_context *c, uint64_t gpa, uint64_t size)
{
    uint64_t first = 0, length = 0;
    uint64_t host = ll_window(c, gpa, &first, &length);

    if (!host)
        return 0;
    c->window.gpa = first;
    c->window.size = length;
    c->window.host = host;
    return ll_in_window(c, gpa, size);
}

LL_UNUSED static inline int ll_load_phys(struct ll_context *c, uint64_t gpa, uint64_t size, uint64_t *value)
{
    uint64_t status, read = 0;

    if (ll_unlikely(gpa & (size - 1)))
        return ll_fault(c, LL_MISALIGNED, gpa, size, 0);
    if (ll_likely(ll_in_window(c, gpa, size)) || ll_move_window(c, gpa, size)) {
        if (ll_unlikely(LL_EVENTS(c)))
            ll_event(c, LL_PHYSICAL, gpa, size);
        *value = ll_get(c->window.host + (gpa - c->window.gpa), size);
        return 0;
    }
    status = ll_read(c, gpa, size, &read);
    if (status != LL_NONE)
        return ll_fault(c, status, gpa, size, 0);
    if (LL_EVENTS(c))
        ll_event(c, LL_PHYSICAL, gpa, size);
    *value = read;
    return 0;
}

/* What the cache does not hold: a misaligned address, or a page that the guest's page tables have to be walked for. */
LL_APART static const struct ll_entry *ll_miss(struct ll_context *c, struct ll_entry *entry, uint64_t root, uint64_t gva,
                                               uint64_t size)
{
    uint64_t first = gva & c->page_number, bytes = ~c->page_number + 1, gpa = 0;

    if (gva & (size - 1)) {
        (void)ll_fault(c, LL_MISALIGNED, gva, size, 0);
        return NULL;
    }
    if (root == c->root && (gva < c->kernel_first || gva > c->kernel_last)) {
        (void)ll_fault(c, LL_NOT_KERNEL, gva, 0, 0);
        return NULL;
    }
    if (ll_walk(c, root, first, &gpa))
        return NULL;
    entry->root = root;
    entry->first = first;
    entry->gpa = gpa;
    entry->host = 0;
    if (bytes >= 8 && !(gpa & 7) && (ll_in_window(c, gpa, bytes) || ll_move_window(c, gpa, bytes)))
        entry->host = c->window.host + (gpa - c->window.gpa) - first;
    return entry;
}

/* page(gva) for a load of a size that is known to be one: the cache's entry, or NULL after a fault. The low bits of a
 * misaligned address are kept, so that it is the first byte of no page. */
LL_UNUSED static inline const struct ll_entry *ll_page(struct ll_context *c, uint64_t root, uint64_t gva, uint64_t size)
{
    struct ll_entry *entry = &c->cache[((gva ^ root) >> c->page_shift) & (LL_TLB_ENTRIES - 1)];

    if (ll_likely(entry->first == (gva & (c->page_number | (size - 1))) && entry->root == root))
        return entry;
    return ll_miss(c, entry, root, gva, size);
}

/* Where the kernel's own tables have an address. */
LL_UNUSED static inline int ll_physical(struct ll_context *c, uint64_t gva, uint64_t *gpa)
{
    const struct ll_entry *entry = ll_page(c, c->root, gva, 1);

    if (ll_unlikely(!entry))
        return 1;
    *gpa = entry->gpa + (gva - entry->first);
    return 0;
}

LL_COLD static int ll_load_slowly(struct ll_context *c, uint64_t gpa, uint64_t gva, uint64_t size, uint64_t *value)
{
    uint64_t status = ll_read(c, gpa, size, value);

    if (status != LL_NONE)
        return ll_fault(c, status, gpa, size, 0);
    if (LL_EVENTS(c))
        ll_event(c, LL_VIRTUAL, gva, size);
    return 0;
}

/* The host load behind a page(): 0 and the value, or 1 after a fault. An entry's host is its first byte's address less
 * its GVA, so that the GVA alone leads to the byte. */
LL_UNUSED static inline int ll_load(struct ll_context *c, const struct ll_entry *entry, uint64_t gva, uint64_t size,
                                    uint64_t *value)
{
    if (ll_unlikely(!entry->host)) {
        uint64_t read;

        if (ll_load_slowly(c, entry->gpa + (gva - entry->first), gva, size, &read))
            return 1;
        *value = read;
        return 0;
    }
    if (ll_unlikely(LL_EVENTS(c)))
        ll_event(c, LL_VIRTUAL, gva, size);
    *value = ll_get(entry->host + gva, size);
    return 0;
}

/* Extend the low bits by their sign. */
LL_UNUSED static inline uint64_t ll_extend(uint64_t value, uint64_t bits)
{
    if (bits - 1 >= 63)
        return value;
    return (uint64_t)((int64_t)(value << (64 - bits)) >> (64 - bits));
}

/* A member's value: a bit-field cut out, a signed one extended. */
LL_UNUSED static inline uint64_t ll_member(uint64_t value, const struct ll_slot *slot)
{
    uint64_t bits = slot->size * 8;

    if (slot->bits) {
        bits = slot->bits;
        value = ll_shr64(value, slot->shift);
        if (bits < 64)
            value &= ((uint64_t)1 << bits) - 1;
    }
    return slot->is_signed ? ll_extend(value, bits) : value;
}

LL_COLD LL_UNUSED static const struct ll_entry *ll_page_odd(struct ll_context *c, uint64_t root, uint64_t gva,
                                                            const struct ll_slot *slot)
{
    if (slot->size - 1 > 7 || (slot->size & (slot->size - 1))) {
        (void)ll_fault(c, LL_SIZE, gva, slot->size, 0);
        return NULL;
    }
    return ll_page(c, root, gva, slot->size);
}

LL_COLD LL_UNUSED static int ll_load_odd(struct ll_context *c, const struct ll_entry *entry, uint64_t gva,
                                         const struct ll_slot *slot, uint64_t *value)
{
    if (ll_load(c, entry, gva, slot->size, value))
        return 1;
    *value = ll_member(*value, slot);
    return 0;
}

/* Whether a member of a kernel is as the probe declares it, so that its value is what is loaded: no bit-field, and of
 * `size` bytes, which are all that the probe's variable has. Others take the odd way. */
LL_UNUSED static inline int ll_plain(const struct ll_slot *slot, uint64_t size)
{
    return ll_likely(slot->size == size && !slot->bits);
}

/* page() and load of a member; `size` as the probe declares it. */
LL_UNUSED static inline const struct ll_entry *ll_page_slot(struct ll_context *c, uint64_t root, uint64_t gva,
                                                            const struct ll_slot *slot, uint64_t size)
{
    return ll_plain(slot, size) ? ll_page(c, root, gva, size) : ll_page_odd(c, root, gva, slot);
}

LL_UNUSED static inline int ll_load_slot(struct ll_context *c, const struct ll_entry *entry, uint64_t gva,
                                         const struct ll_slot *slot, uint64_t size, uint64_t *value)
{
    uint64_t read;

    if (ll_plain(slot, size))
        return ll_load(c, entry, gva, size, value);
    if (ll_load_odd(c, entry, gva, slot, &read))
        return 1;
    *value = read;
    return 0;
}

/* ---- Buffers, rows, the run itself ------------------------------------------------------------------------------ */

struct ll_unaligned {
    uint64_t word;
} __attribute__((packed, may_alias));

LL_UNUSED static inline void ll_clear(uint64_t *words, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        words[i] = 0;
}

/* Into a buffer, at any place of it. */
LL_UNUSED static inline void ll_store(uint8_t *bytes, uint64_t value, unsigned int size)
{
    if (size == 8)
        ((struct ll_unaligned *)(void *)bytes)->word = value;
    else
        for (unsigned int i = 0; i < size; i++)
            bytes[i] = (uint8_t)(value >> (8 * i));
}

/*
 * A text of a row: up to the first NUL, zeros behind it. `words` is its room in the row. A buffer begins at a word, and is
 * zero up to the end of its last one. The lowest bit of `nul` is the top of the first byte that is 0 (Hacker's Delight, 6-1).
 */
LL_UNUSED static inline void ll_text(uint64_t *row, uint64_t words, const uint64_t *text, uint64_t length)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), count = (length + 7) / 8;

    ll_clear(row, words);
    for (uint64_t i = 0; i < words && i < count; i++) {
        const uint64_t word = text[i], nul = (word - ones) & ~word & (ones << 7);
        if (nul) {
            row[i] = word & (((nul & (~nul + 1)) >> 7) - 1);
            return;
        }
        row[i] = word;
    }
}

/* Room for another row, or NULL after a fault. */
LL_UNUSED static inline uint64_t *ll_row(struct ll_context *c)
{
    if (ll_unlikely(c->row_count >= c->row_capacity)) {
        (void)ll_fault(c, LL_ROWS, 0, 0, 0);
        return NULL;
    }
    return (uint64_t *)(uintptr_t)(c->rows + c->row_stride * c->row_count++);
}

/* Spend a tick: 0, or 1 after a fault. */
LL_UNUSED static inline int ll_tick(struct ll_context *c)
{
    if (ll_unlikely(!c->budget || *(const volatile uint64_t *)&c->stop))
        return ll_fault(c, LL_BUDGET, 0, 0, 0);
    c->budget--;
    ll_slice(c);
    return 0;
}

/* Begin a run. An empty entry holds a pair that belongs into another entry, so that nothing hits it. */
LL_UNUSED static void ll_begin(struct ll_context *c)
{
    c->window.gpa = c->window.size = c->window.host = 0;
    c->page_shift &= 63;
    c->page_number = ~(((uint64_t)1 << c->page_shift) - 1);
    for (uint64_t i = 0; i < LL_TLB_ENTRIES; i++) {
        c->cache[i].root = 0;
        c->cache[i].first = (i ^ 1) << c->page_shift;
        c->cache[i].gpa = c->cache[i].host = 0;
    }
}
