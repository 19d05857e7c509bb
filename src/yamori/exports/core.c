/* ---- The core: what a run works on ------------------------------------------------------------------------------- */

enum {
    IDS_MOST_REGIONS = 32,
    IDS_MOST_TROUBLES = 4,
    IDS_MOST_MATCHES = 256,   /* copies of the banner that are looked at */
    IDS_ATTEMPTS = 4,         /* runs of a probe whose rows the guest changed meanwhile, as in probes/run.py */
    IDS_SLICE = 256,          /* ticks between two yields */
    IDS_SCANNED = 1 << 16,    /* bytes between two yields of a scan */
    IDS_PAGE = 4096,          /* every granule, and the image's alignment, are multiples of it */
    IDS_COMM_LENGTH = 16,     /* TASK_COMM_LEN, include/linux/sched.h */
    IDS_LINE = 512,
    IDS_OTHER_BANNER = 96,    /* bytes that are shown of another kernel's banner */
    IDS_MOST_COMPARED = 2048, /* rows whose pids are compared with each other */
    IDS_LIST_WINDOW = 4096    /* as in kernel/root.py: a list that leaves init_task leads further than this */
};

#define IDS_BUDGET (UINT64_C(1) << 20) /* DEFAULT_BUDGET of llview/machine.py */
#define IDS_MOST_ROWS 32768u           /* processes that a kernel has by default (PID_MAX_DEFAULT) */

struct ids_region {
    uint64_t gpa;
    uint64_t size;
};

/* A kernel that was proved. */
struct ids_found {
    uint64_t init;  /* GPA of init_task */
    uint64_t slide; /* bytes by which the kernel lies behind IDS_INIT_GVA and all that goes by it */
    uint64_t root;  /* GPA of the kernel's own table */
};

/* All memory of one run; the rows follow. */
struct ids_area {
    struct ll_context c; /* first: the contract's functions get it */
    struct ids_port *port;
    struct ids_found found;
    struct ll_trouble troubles[IDS_MOST_TROUBLES];
    struct ids_region regions[IDS_MOST_REGIONS];
    uint64_t arguments[4];
    uint64_t region_count;
    uint64_t ticks;
    unsigned int length;
    char line[IDS_LINE];
};

static struct ids_area *ids_of(const struct ll_context *c)
{
    return (struct ids_area *)(uintptr_t)c;
}

/* ---- The runtime contract, over the port's windows -------------------------------------------------------------- */

/* The RAM region that holds a GPA. */
static const struct ids_region *ids_region(const struct ids_area *a, uint64_t gpa)
{
    for (uint64_t i = 0; i < a->region_count; i++)
        if (gpa - a->regions[i].gpa < a->regions[i].size)
            return &a->regions[i];
    return NULL;
}

/* A window never reaches out of its region, whatever the port has mapped. */
static uint64_t ll_window(const struct ll_context *c, uint64_t gpa, uint64_t *first, uint64_t *size)
{
    struct ids_area *a = ids_of(c);
    const struct ids_region *region = ids_region(a, gpa);
    unsigned long long at = 0, bytes = 0;
    uint64_t host, end;

    if (!region)
        return 0;
    host = (uint64_t)(uintptr_t)a->port->map(a->port, gpa, &at, &bytes);
    if (!host || gpa - at >= bytes || ((host - at) & 7))
        return 0;
    end = bytes < region->gpa + region->size - at ? at + bytes : region->gpa + region->size;
    *first = at > region->gpa ? at : region->gpa;
    *size = end - *first;
    return host + (*first - at);
}

/* A load from a page that no window holds whole. */
static uint64_t ll_read(const struct ll_context *c, uint64_t gpa, uint64_t size, uint64_t *value)
{
    uint64_t first = 0, bytes = 0, host = ll_window(c, gpa, &first, &bytes);

    if (!host)
        return ids_region(ids_of(c), gpa) ? LL_GONE : LL_OUTSIDE;
    if (size > bytes - (gpa - first))
        return LL_OUTSIDE;
    *value = ll_get(host + (gpa - first), size);
    return LL_NONE;
}

static void ids_pause(struct ids_area *a)
{
    if (!a->port->yield(a->port))
        a->c.stop = 1;
}

static void ll_slice(struct ll_context *c)
{
    struct ids_area *a = ids_of(c);

    if (++a->ticks % IDS_SLICE == 0)
        ids_pause(a);
}

void ids_evicted(void *area, const void *host, unsigned long size)
{
    struct ll_context *c = &((struct ids_area *)area)->c;
    uint64_t start = (uint64_t)(uintptr_t)host;

    if (c->window.host - start < size)
        c->window.size = 0;
    for (uint64_t i = 0; i < LL_TLB_ENTRIES; i++) {
        struct ll_entry *entry = &c->cache[i];

        if (entry->host && entry->host + entry->first - start < size)
            entry->host = 0; /* where the page lies in RAM still holds; ll_read() maps it again */
    }
}

/* ---- Text ------------------------------------------------------------------------------------------------------- */

static void ids_char(struct ids_area *a, char letter)
{
    if (a->length < IDS_LINE - 1)
        a->line[a->length++] = letter;
}

static void ids_text(struct ids_area *a, const char *text)
{
    while (*text)
        ids_char(a, *text++);
}

/* A number, at least as wide as asked for. */
static void ids_decimal(struct ids_area *a, uint64_t value, unsigned int width)
{
    char digits[20];
    unsigned int count = 0;

    do {
        uint64_t rest = ll_div64(value, 10);

        digits[count++] = (char)('0' + (unsigned int)(value - rest * 10));
        value = rest;
    } while (value);
    for (unsigned int i = count; i < width; i++)
        ids_char(a, ' ');
    while (count)
        ids_char(a, digits[--count]);
}

static void ids_digits(struct ids_area *a, uint64_t value, unsigned int least)
{
    unsigned int count = 16;

    while (count > least && !(value >> 60)) {
        value <<= 4;
        count--;
    }
    for (; count; count--, value <<= 4)
        ids_char(a, "0123456789abcdef"[value >> 60]);
}

static void ids_hex(struct ids_area *a, uint64_t value)
{
    ids_text(a, "0x");
    ids_digits(a, value, 1);
}

/* A byte of the guest, as records.escape() of the host writes it. */
static void ids_escaped(struct ids_area *a, unsigned int byte)
{
    if (byte >= 0x20 && byte < 0x7f && byte != '\\') {
        ids_char(a, (char)byte);
        return;
    }
    ids_text(a, "\\x");
    ids_digits(a, byte, 2);
}

static void ids_put(struct ids_area *a)
{
    a->line[a->length] = 0;
    a->length = 0;
    a->port->line(a->port, a->line);
}

/* Begin the error line: there is one at most. */
static void ids_begin_error(struct ids_area *a)
{
    a->length = 0;
    ids_text(a, a->port->raw ? "E " : "error: ");
}

static enum ids_result ids_error(struct ids_area *a, const char *text)
{
    ids_begin_error(a);
    ids_text(a, text);
    ids_put(a);
    return IDS_ERROR;
}
