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

static const char *const ids_tasks_messages[] = {IDS_TASKS_MESSAGES};

/* Read the list of tasks into rows. */
static int ids_tasks(struct ids_area *a, uint64_t bytes)
{
    int ended = 0;

    for (unsigned int i = 0; i < IDS_ATTEMPTS; i++) {
        ids_prepare(a, bytes, 8 * ids_tasks_words);
        a->arguments[1] = a->found.slide; /* behind `threads` */
        ended = (int)ll_run_tasks(&a->c);
        if (!ids_is_torn(a) || a->c.stop)
            break;
    }
    return ended;
}

static const char ids_none[] = "there is no process at all: the guest boots, or its list was cut";

static enum ids_result ids_plist(struct ids_area *a, uint64_t bytes)
{
    const int ended = ids_tasks(a, bytes);
    const char *wrong;

    if (ids_needs_more(a, ended))
        return IDS_MORE;
    wrong = ids_impossible(a);
    if (!a->port->raw) {
        ids_text(a, "  PID  PPID   UID S COMM");
        ids_put(a);
    }
    for (uint64_t i = 0; i < a->c.row_count; i++)
        ids_process(a, ids_row(a, i));
    if (ids_reason(a, ids_tasks_messages, ended))
        return IDS_INCOMPLETE;
    return ids_end(a, a->c.row_count ? wrong : ids_none);
}

/* Where each entry led at the export, in bytes behind the start of the kernel's text; IDS_ELSEWHERE: out of it. */
static const uint32_t ids_calls[] = {IDS_CALLS};

static const char *const ids_entries_messages[] = {IDS_ENTRIES_MESSAGES};

/* Read the system-call table into rows. */
static int ids_entries(struct ids_area *a, uint64_t bytes)
{
    ids_prepare(a, bytes, 8 * ids_entries_words);
    a->arguments[0] = ids_word(IDS_INIT_GVA + a->found.slide + (uint64_t)IDS_TABLE_AT);
    return (int)ll_run_entries(&a->c);
}

enum { IDS_INSIDE = 1, IDS_SAME = 2 };

/* Whether an entry leads into the kernel's text, and where it led at the export. */
static unsigned int ids_leads(struct ids_area *a, uint64_t i)
{
    const uint64_t text = ids_word(IDS_INIT_GVA + a->found.slide + (uint64_t)IDS_TEXT_AT);
    const uint64_t at = ids_row(a, i)[ids_entries_address] - text;
    const int inside = at < IDS_TEXT_SIZE;
    const int same = i < sizeof(ids_calls) / sizeof(*ids_calls) && ids_calls[i] == (inside ? at : IDS_ELSEWHERE);

    return (inside ? IDS_INSIDE : 0) | (same ? IDS_SAME : 0);
}

static enum ids_result ids_syscall(struct ids_area *a, uint64_t bytes)
{
    const int ended = ids_entries(a, bytes);

    if (ids_needs_more(a, ended))
        return IDS_MORE;
    for (uint64_t i = 0; i < a->c.row_count; i++) {
        const uint64_t *row = ids_row(a, i);
        const unsigned int leads = ids_leads(a, i);
        const int inside = leads & IDS_INSIDE, same = leads & IDS_SAME;

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
    return ids_reason(a, ids_entries_messages, ended) ? IDS_INCOMPLETE : ids_end(a, NULL);
}

/* The banner, as it was compared byte for byte, and where the kernel lies. */
static enum ids_result ids_show_kernel(struct ids_area *a, int all)
{
    a->c.row_count = 1;
    ids_text(a, a->port->raw ? "B " : "");
    for (unsigned int i = 0; i < sizeof(ids_made_for) - 1; i++)
        ids_escaped(a, (uint8_t)ids_made_for[i]);
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
