/* ---- The core: finds the kernel, runs the probes, and says what they found -------------------------------------- */

enum {
    IDS_MOST_REGIONS = 32,
    IDS_MOST_TROUBLES = 4,
    IDS_MOST_MATCHES = 256,   /* copies of the banner that are looked at */
    IDS_ATTEMPTS = 4,         /* runs of a probe whose rows the guest changed meanwhile, as in probes/run.py */
    IDS_SLICE = 256,          /* ticks between two yields */
    IDS_SCANNED = 1 << 20,    /* bytes between two yields of a scan */
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
    uint64_t others; /* GPA of another kernel's banner, or 0 */
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

        if (entry->host && entry->host + entry->first - start < size) {
            entry->root = entry->host = 0;
            entry->first = (i ^ 1) << c->page_shift; /* as ll_begin() empties it */
        }
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

/* ---- Finding the kernel ----------------------------------------------------------------------------------------- */

static const char ids_banner[] = IDS_BANNER "\n";
const char ids_made_for[] = IDS_BANNER;

static int ids_phys(struct ids_area *a, uint64_t gpa, uint64_t size, uint64_t *value)
{
    *value = 0;
    return ll_load_phys(&a->c, gpa, size, value);
}

/* Whether text lies at a GPA. */
static int ids_lies_at(struct ids_area *a, uint64_t gpa, const char *text, uint64_t length)
{
    uint64_t byte;

    for (uint64_t i = 0; i < length; i++)
        if (ids_phys(a, gpa + i, 1, &byte) || byte != (uint8_t)text[i])
            return 0;
    return 1;
}

/* Whether a kernel address translates to where it has to lie. */
static int ids_maps(struct ids_area *a, uint64_t gva, uint64_t gpa)
{
    uint64_t found = 0;

    return !ll_physical(&a->c, gva, &found) && found == gpa;
}

static int ids_pointer(struct ids_area *a, uint64_t gva, uint64_t *value)
{
    const struct ll_entry *entry = ll_page(&a->c, a->c.root, gva, IDS_WORD);

    *value = 0;
    return entry && !ll_load(&a->c, entry, gva, IDS_WORD, value);
}

static uint64_t ids_word(uint64_t address)
{
    return IDS_WORD == 8 ? address : (uint32_t)address;
}

/*
 * Prove a kernel whose banner lies at a GPA, as kernel/root.py does: init_task says itself where it is, and the kernel's
 * own tables have to lead to init_task, banner, text and system-call table where they lie, and through a list of tasks
 * away from the image and back.
 */
static int ids_prove(struct ids_area *a, uint64_t banner, struct ids_found *found)
{
    struct ll_context *c = &a->c;
    uint64_t init = banner - (uint64_t)IDS_BANNER_AT, gva, other, node;

    if (!ids_lies_at(a, init + IDS_COMM, "swapper", 7) || ids_phys(a, init + IDS_COMM + 7, 1, &other) ||
        (other && other != '/'))
        return 0;
    if (ids_phys(a, init + IDS_REAL_PARENT, IDS_WORD, &gva) || ids_phys(a, init + IDS_GROUP_LEADER, IDS_WORD, &other) ||
        gva != other || ((gva - IDS_INIT_GVA) & (IDS_PAGE - 1)))
        return 0;
    found->init = init;
    found->slide = gva - IDS_INIT_GVA;
    found->root = init + (uint64_t)IDS_ROOT_AT;
    c->root = found->root;
    ll_begin(c);
    if (!ids_maps(a, gva, init) || !ids_maps(a, ids_word(gva + (uint64_t)IDS_BANNER_AT), banner) ||
        !ids_maps(a, ids_word(gva + (uint64_t)IDS_TEXT_AT), init + (uint64_t)IDS_TEXT_AT) ||
        !ids_maps(a, ids_word(gva + (uint64_t)IDS_TABLE_AT), init + (uint64_t)IDS_TABLE_AT))
        return 0;
    return ids_pointer(a, gva + IDS_TASKS, &node) && node - gva + IDS_LIST_WINDOW > 2 * IDS_LIST_WINDOW &&
           ids_pointer(a, ids_word(node + IDS_WORD), &other) && other == gva + IDS_TASKS;
}

/*
 * Look for the kernel. Image and page tables agree on pages, so the banner has the same place in its page in every boot,
 * and one load of each page of RAM finds it.
 */
static enum ids_result ids_find(struct ids_area *a)
{
    unsigned int matches = 0, proved = 0;
    struct ids_found found;
    uint64_t value;

    for (uint64_t i = 0; i < a->region_count; i++) {
        const uint64_t first = a->regions[i].gpa, end = first + a->regions[i].size;
        uint64_t gpa = first + ((IDS_BANNER_IN_PAGE - first) & (IDS_PAGE - 1));

        for (; gpa < end && end - gpa >= sizeof(ids_banner); gpa += IDS_PAGE) {
            if ((gpa & (IDS_SCANNED - 1)) < IDS_PAGE)
                ids_pause(a);
            if (a->c.stop)
                return ids_error(a, "given up: looking for the kernel takes too long");
            /* Where it differs from those of other kernels first, then all of it. */
            if (ids_phys(a, gpa + 14, 1, &value) || value != (uint8_t)ids_banner[14] ||
                !ids_lies_at(a, gpa, ids_banner, sizeof(ids_banner)))
                continue;
            if (++matches > IDS_MOST_MATCHES)
                return ids_error(a, "RAM is full of copies of the kernel's banner: somebody may be planting them");
            if (ids_prove(a, gpa, &found) && (!proved++ || found.root == a->port->hint))
                a->found = found;
        }
    }
    if (proved > 1 && a->found.root != a->port->hint)
        return ids_error(a, "two kernels of this build can be proved in RAM: an earlier one, or a decoy");
    if (proved)
        return IDS_OK;
    if (matches)
        return ids_error(a, "the kernel's banner is there, but init_task or the page tables do not hold: it boots, or "
                            "its memory is damaged");
    return IDS_INCOMPLETE;
}

/* Say which other kernel is there, if any; banners are aligned to four bytes by every compiler. */
static enum ids_result ids_other(struct ids_area *a)
{
    uint64_t value, gpa;

    for (uint64_t i = 0; i < a->region_count; i++) {
        const uint64_t end = a->regions[i].gpa + a->regions[i].size;

        for (gpa = (a->regions[i].gpa + 3) & ~UINT64_C(3); gpa < end && end - gpa >= 32; gpa += 4) {
            if (!(gpa & (IDS_SCANNED - 1)))
                ids_pause(a);
            if (a->c.stop)
                return ids_error(a, "given up: looking for the kernel takes too long");
            if (ids_phys(a, gpa, 4, &value) || value != IDS_LINU || !ids_lies_at(a, gpa, "Linux version ", 14) ||
                ids_phys(a, gpa + 14, 1, &value) || value < '0' || value > '9')
                continue;
            ids_begin_error(a);
            ids_text(a, "not the kernel that these commands were made for: ");
            for (unsigned int n = 0; n < IDS_OTHER_BANNER && !ids_phys(a, gpa + n, 1, &value) && value >= 0x20; n++)
                ids_escaped(a, (unsigned int)value);
            ids_put(a);
            return IDS_ERROR;
        }
    }
    return ids_error(a, "no Linux kernel was found in the guest's RAM");
}

/* ---- The commands ----------------------------------------------------------------------------------------------- */

/* End a command: a line for programs, or the error line. */
static enum ids_result ids_end(struct ids_area *a, const char *what)
{
    struct ll_context *c = &a->c;

    if (what) {
        ids_begin_error(a);
        ids_text(a, what);
        ids_put(a);
        return IDS_INCOMPLETE;
    }
    if (a->port->raw) {
        ids_text(a, "= ");
        ids_decimal(a, c->row_count, 0);
        ids_char(a, ' ');
        ids_decimal(a, c->loads, 0);
        ids_put(a);
    }
    return IDS_OK;
}

static void ids_fault(struct ids_area *a, const struct ll_fault *fault)
{
    static const char *const names[] = {IDS_FAULTS};

    ids_text(a, ": ");
    ids_text(a, fault->code < sizeof(names) / sizeof(*names) ? names[fault->code] : "fault");
    if (fault->code == LL_BUDGET || fault->code == LL_ROWS)
        return;
    ids_char(a, ' ');
    ids_hex(a, fault->address);
}

/* Why a probe's rows are not all there is; 0 where they are. */
static int ids_reason(struct ids_area *a, const char *const *messages, int ended)
{
    const struct ll_context *c = &a->c;
    const struct ll_trouble *first = a->troubles;

    if (!ended && !c->trouble_count)
        return 0;
    ids_begin_error(a);
    ids_text(a, "incomplete");
    if (c->trouble_count) {
        ids_text(a, ", ");
        ids_decimal(a, c->trouble_count, 0);
        ids_text(a, " times, first: ");
        ids_text(a, messages[first->message]);
        if (first->value) {
            ids_char(a, ' ');
            ids_hex(a, first->value);
        }
        if (first->faulted)
            ids_fault(a, &first->fault);
    }
    if (ended) {
        ids_text(a, "; ended");
        ids_fault(a, &c->fault);
    }
    ids_put(a);
    return 1;
}

static void ids_prepare(struct ids_area *a, uint64_t bytes, uint64_t stride)
{
    struct ll_context *c = &a->c;

    c->rows = (uint64_t)(uintptr_t)(a + 1);
    c->row_stride = stride;
    c->row_capacity = ll_div64(bytes, stride);
    if (c->row_capacity > IDS_MOST_ROWS)
        c->row_capacity = IDS_MOST_ROWS;
    c->troubles = (uint64_t)(uintptr_t)a->troubles;
    c->trouble_capacity = IDS_MOST_TROUBLES;
    c->arguments = (uint64_t)(uintptr_t)a->arguments;
    c->row_count = c->trouble_count = c->loads = c->faults = 0;
    c->budget = IDS_BUDGET;
    c->root = a->found.root;
}

static uint64_t *ids_row(struct ids_area *a, uint64_t number)
{
    return (uint64_t *)(uintptr_t)(a->c.rows + number * a->c.row_stride);
}

static int ids_is_torn(const struct ids_area *a)
{
    for (uint64_t i = 0; i < a->c.trouble_count && i < IDS_MOST_TROUBLES; i++)
        if (a->troubles[i].torn)
            return 1;
    return 0;
}

/* Where the rows found no room, and a larger area has some. */
static int ids_needs_more(const struct ids_area *a, int ended)
{
    return ended && a->c.fault.code == LL_ROWS && a->c.row_capacity < IDS_MOST_ROWS;
}

/* What a pid is that no process can have: below 1, or another's. */
static const char *ids_impossible(struct ids_area *a)
{
    const uint64_t count = a->c.row_count < IDS_MOST_COMPARED ? a->c.row_count : IDS_MOST_COMPARED;

    for (uint64_t i = 0; i < count; i++) {
        const uint64_t pid = ids_row(a, i)[ids_tasks_pid];

        if (i % 64 == 63)
            ids_pause(a);
        if ((int64_t)pid < 1)
            return "a pid is none that a process can have: somebody may have changed it";
        for (uint64_t j = 0; j < i; j++)
            if (ids_row(a, j)[ids_tasks_pid] == pid)
                return "a pid appears twice: somebody may have changed it";
    }
    return NULL;
}

/* A number of a row, or a dash. */
static void ids_field(struct ids_area *a, const uint64_t *row, unsigned int word, unsigned int bit, unsigned int sign,
                      unsigned int width)
{
    if ((row[0] >> bit) & 1) {
        if (sign && row[word] >> 63)
            ids_char(a, '-');
        ids_decimal(a, sign && row[word] >> 63 ? ~row[word] + 1 : row[word], width);
    } else {
        for (unsigned int i = 1; i < width; i++)
            ids_char(a, ' ');
        ids_char(a, '-');
    }
}

static void ids_comm(struct ids_area *a, const uint64_t *row)
{
    const uint8_t *text = (const uint8_t *)(row + ids_tasks_comm);

    for (unsigned int i = 0; i < 8 * ids_tasks_comm_words && text[i]; i++)
        ids_escaped(a, text[i]);
}

#define IDS_FIELD(name, width) \
    ids_field(a, row, ids_tasks_##name, ids_tasks_##name##_bit, ids_tasks_##name##_signed, width)

static void ids_process(struct ids_area *a, const uint64_t *row)
{
    const unsigned int width = a->port->raw ? 0 : 5;
    const int known = (int)((row[0] >> ids_tasks_state_bit) & 1);

    if (a->port->raw)
        ids_text(a, "P ");
    IDS_FIELD(pid, width);
    ids_char(a, ' ');
    if (a->port->raw) {
        IDS_FIELD(tgid, 0);
        ids_char(a, ' ');
    }
    IDS_FIELD(ppid, width);
    ids_char(a, ' ');
    IDS_FIELD(uid, width);
    ids_char(a, ' ');
    if (a->port->raw) {
        IDS_FIELD(gid, 0);
        ids_char(a, ' ');
        IDS_FIELD(euid, 0);
        ids_char(a, ' ');
        IDS_FIELD(egid, 0);
        ids_char(a, ' ');
    }
    ids_escaped(a, known ? (uint8_t)row[ids_tasks_state] : '-');
    ids_char(a, ' ');
    if (a->port->raw) {
        IDS_FIELD(kthread, 0);
        ids_char(a, ' ');
        IDS_FIELD(start_time, 0);
        ids_char(a, ' ');
        ids_hex(a, row[ids_tasks_task]);
        ids_char(a, ' ');
        ids_comm(a, row);
    } else {
        ids_text(a, row[ids_tasks_kthread] ? "[" : "");
        ids_comm(a, row);
        ids_text(a, row[ids_tasks_kthread] ? "]" : "");
    }
    ids_put(a);
}

static enum ids_result ids_plist(struct ids_area *a, uint64_t bytes)
{
    static const char *const messages[] = {IDS_TASKS_MESSAGES};
    const char *wrong;
    int ended;

    for (unsigned int i = 0; i < IDS_ATTEMPTS; i++) {
        ids_prepare(a, bytes, 8 * ids_tasks_words);
        a->arguments[1] = a->found.slide; /* behind `threads` */
        ended = (int)ll_run_tasks(&a->c);
        if (!ids_is_torn(a) || a->c.stop)
            break;
    }
    if (ids_needs_more(a, ended))
        return IDS_MORE;
    wrong = ids_impossible(a);
    if (!a->port->raw) {
        ids_text(a, "  PID  PPID   UID S COMM");
        ids_put(a);
    }
    for (uint64_t i = 0; i < a->c.row_count; i++)
        ids_process(a, ids_row(a, i));
    if (ids_reason(a, messages, ended))
        return IDS_INCOMPLETE;
    return ids_end(a, a->c.row_count ? wrong : "there is no process at all: the guest boots, or its list was cut");
}

/* Where each entry led at the export, in bytes behind the start of the kernel's text; IDS_ELSEWHERE: out of it. */
static const uint32_t ids_calls[] = {IDS_CALLS};

static enum ids_result ids_syscall(struct ids_area *a, uint64_t bytes)
{
    const uint64_t count = sizeof(ids_calls) / sizeof(*ids_calls);
    const uint64_t text = ids_word(IDS_INIT_GVA + a->found.slide + (uint64_t)IDS_TEXT_AT);
    static const char *const messages[] = {IDS_ENTRIES_MESSAGES};
    int ended;

    ids_prepare(a, bytes, 8 * ids_entries_words);
    a->arguments[0] = ids_word(IDS_INIT_GVA + a->found.slide + (uint64_t)IDS_TABLE_AT);
    ended = (int)ll_run_entries(&a->c);
    if (ids_needs_more(a, ended))
        return IDS_MORE;
    for (uint64_t i = 0; i < a->c.row_count; i++) {
        const uint64_t *row = ids_row(a, i), at = row[ids_entries_address] - text;
        const int inside = at < IDS_TEXT_SIZE;
        const int same = i < count && (inside ? ids_calls[i] == at : ids_calls[i] == IDS_ELSEWHERE);

        if (a->port->raw)
            ids_text(a, "S ");
        ids_decimal(a, row[ids_entries_nr], a->port->raw ? 0 : 4);
        ids_char(a, ' ');
        ids_hex(a, row[ids_entries_address]);
        if (a->port->raw)
            ids_text(a, inside ? same ? " 1 1" : " 1 0" : same ? " 0 1" : " 0 0");
        else
            ids_text(a, same ? "" : inside ? " CHANGED" : " CHANGED, outside the kernel's text");
        ids_put(a);
    }
    return ids_reason(a, messages, ended) ? IDS_INCOMPLETE : ids_end(a, NULL);
}

/* The banner, as it was compared byte for byte, and where the kernel lies. */
static enum ids_result ids_show_kernel(struct ids_area *a, int all)
{
    a->c.row_count = 1;
    ids_text(a, a->port->raw ? "B " : "");
    for (unsigned int i = 0; i < sizeof(ids_banner) - 2; i++)
        ids_escaped(a, (uint8_t)ids_banner[i]);
    ids_put(a);
    if (all) {
        ids_text(a, a->port->raw ? "K " : "init_task at GPA ");
        ids_hex(a, a->found.init);
        ids_text(a, a->port->raw ? " " : ", kernel's table at GPA ");
        ids_hex(a, a->found.root);
        ids_text(a, a->port->raw ? " " : ", GVA of init_task ");
        ids_hex(a, ids_word(IDS_INIT_GVA + a->found.slide));
        ids_put(a);
    }
    return ids_end(a, NULL);
}

static int ids_is(const char *text, const char *other)
{
    while (*text && *text == *other)
        text++, other++;
    return *text == *other;
}

static void ids_regions(struct ids_area *a)
{
    unsigned long long gpa = 0, size = 0;

    for (unsigned int i = 0; i < IDS_MOST_REGIONS && a->port->region(a->port, i, &gpa, &size); i++) {
        struct ids_region *region = &a->regions[a->region_count];

        region->gpa = gpa;
        region->size = size < ~gpa ? size : ~gpa;
        a->region_count += size != 0;
    }
}

enum ids_result ids_run(void *area, unsigned long size, struct ids_port *port, const char *command)
{
    static const uint64_t geometry[] = {IDS_GEOMETRY};
    struct ids_area *a = area;
    enum ids_result result;

    if (size < sizeof(*a) + 8 * ids_tasks_words)
        return IDS_MORE;
    if (!ids_is(command, "plist") && !ids_is(command, "syscall") && !ids_is(command, "banner") &&
        !ids_is(command, "info"))
        return IDS_UNKNOWN;
    ll_clear((uint64_t *)area, sizeof(*a) / 8);
    for (unsigned int i = 0; i < sizeof(geometry) / sizeof(*geometry); i++)
        a->c.geometry[i] = geometry[i];
    a->c.page_shift = IDS_PAGE_SHIFT;
    a->c.kernel_first = IDS_KERNEL_FIRST;
    a->c.kernel_last = IDS_KERNEL_LAST;
    a->c.budget = IDS_BUDGET;
    a->port = port;
    ids_regions(a);
    result = ids_find(a);
    if (result == IDS_INCOMPLETE)
        return ids_other(a);
    if (result != IDS_OK)
        return result;
    if (ids_is(command, "plist"))
        return ids_plist(a, size - sizeof(*a));
    if (ids_is(command, "syscall"))
        return ids_syscall(a, size - sizeof(*a));
    return ids_show_kernel(a, ids_is(command, "info"));
}
