/* ---- ids check --------------------------------------------------------------------------------------------------- */

/* What the code that each entry leads to began with at the export. */
static const uint16_t ids_heads[] = {IDS_HEADS};

/* Who may run, of an allow-list that was given to the export: a name, in which * stands for anything, and its uids. */
struct ids_allowed {
    const char *name;
    unsigned short first, users; /* in ids_users; no uids: any */
    unsigned int required;
};

static const struct ids_allowed ids_allowed[] = {IDS_ALLOWED};
static const uint32_t ids_users[] = {IDS_USERS};

/* A digest of what lies at an address, as exports/core.py makes it; 0 where it cannot be read. */
static unsigned int ids_head(struct ids_area *a, uint64_t gva)
{
    uint32_t digest = 0;

    for (unsigned int i = 0; i < IDS_HEAD; i += 4) {
        const uint64_t at = (gva & ~UINT64_C(3)) + i;
        const struct ll_entry *entry = ll_page(&a->c, a->c.root, at, 4);
        uint64_t word = 0;

        if (!entry || ll_load(&a->c, entry, at, 4, &word))
            return 0;
        digest = (digest ^ (uint32_t)word) * 0x9e3779b1u;
    }
    return (digest >> 16) | 1;
}

static int ids_matches(const char *pattern, const char *text)
{
    const char *star = NULL, *from = text;

    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            from = text;
        } else if (*pattern == *text) {
            pattern++, text++;
        } else if (star) {
            pattern = star;
            text = ++from;
        } else {
            return 0;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

/* Whether a uid is one of an entry's; what is not known cannot be held against a process. */
static int ids_may(const struct ids_allowed *one, const uint64_t *row, unsigned int word, unsigned int bit)
{
    int may = !one->users || !((row[0] >> bit) & 1);

    for (unsigned int i = 0; i < one->users; i++)
        may |= ids_users[one->first + i] == row[word];
    return may;
}

static int ids_covers(const struct ids_allowed *one, const uint64_t *row)
{
    char name[8 * ids_tasks_comm_words + 1];

    for (unsigned int i = 0; i < sizeof(name) - 1; i++)
        name[i] = ((const char *)(row + ids_tasks_comm))[i];
    name[sizeof(name) - 1] = 0;
    return !row[ids_tasks_kthread] && ids_matches(one->name, name) &&
           ids_may(one, row, ids_tasks_uid, ids_tasks_uid_bit) &&
           ids_may(one, row, ids_tasks_euid, ids_tasks_euid_bit);
}

/* Begin a line of what was found. */
static void ids_finding(struct ids_area *a, uint64_t *found, const char *text)
{
    ++*found;
    ids_text(a, a->port->raw ? "F " : "FOUND: ");
    ids_text(a, text);
}

/* whole: Whether all of the processes are there, so that a missing one is told. */
static void ids_check_processes(struct ids_area *a, uint64_t *found, int whole)
{
    const uint64_t count = a->c.row_count;

    for (uint64_t i = 0; i < count; i++) {
        const uint64_t *row = ids_row(a, i);
        int meant = row[ids_tasks_kthread] != 0;

        if (i % 16 == 15)
            ids_pause(a);
        for (const struct ids_allowed *one = ids_allowed; one->name && !meant; one++)
            meant = ids_covers(one, row);
        if (meant)
            continue;
        ids_finding(a, found, "process ");
        ids_decimal(a, row[ids_tasks_pid], 0);
        ids_char(a, ' ');
        IDS_FIELD(uid, 0);
        ids_char(a, ' ');
        ids_comm(a, row);
        ids_put(a);
    }
    for (const struct ids_allowed *one = ids_allowed; one->name; one++) {
        int runs = !whole || !one->required;

        for (uint64_t i = 0; i < count && !runs; i++)
            runs = ids_covers(one, ids_row(a, i));
        if (runs)
            continue;
        ids_finding(a, found, "missing ");
        ids_text(a, one->name);
        ids_put(a);
    }
}

static void ids_check_calls(struct ids_area *a, uint64_t *found)
{
    for (uint64_t i = 0; i < a->c.row_count; i++) {
        const uint64_t *row = ids_row(a, i);
        const unsigned int leads = ids_leads(a, i);

        if (i % 64 == 63)
            ids_pause(a);
        if ((leads & IDS_SAME) && (!(leads & IDS_INSIDE) || ids_head(a, row[ids_entries_address]) == ids_heads[i]))
            continue;
        ids_finding(a, found, leads & IDS_SAME ? "code " : "syscall ");
        ids_decimal(a, row[ids_entries_nr], 0);
        ids_char(a, ' ');
        ids_hex(a, row[ids_entries_address]);
        ids_put(a);
    }
}

/*
 * Judge the guest: processes against the allow-list, the system-call table and where it leads against the export. Rows
 * that find no room are known before the first line is put out, so that the command can be run again.
 */
static enum ids_result ids_check(struct ids_area *a, uint64_t bytes)
{
    uint64_t found = 0, loads;
    const char *wrong;
    int ended;

    if (bytes < sizeof(ids_calls) / sizeof(*ids_calls) * 8 * ids_entries_words)
        return IDS_MORE;
    ended = ids_tasks(a, bytes);
    if (ids_needs_more(a, ended))
        return IDS_MORE;
    wrong = a->c.row_count ? ids_impossible(a) : ids_none;
    if (ids_allowed[0].name)
        ids_check_processes(a, &found, !ended && !a->c.trouble_count && !wrong);
    else {
        ids_text(a, a->port->raw ? "N process" : "not judged: processes");
        ids_put(a);
    }
    if (ids_reason(a, ids_tasks_messages, ended))
        return IDS_INCOMPLETE;
    if (wrong)
        return ids_end(a, wrong);
    loads = a->c.loads;
    ended = ids_entries(a, bytes);
    ids_check_calls(a, &found);
    if (ids_reason(a, ids_entries_messages, ended))
        return IDS_INCOMPLETE;
    a->c.row_count = found;
    a->c.loads += loads;
    if (!a->port->raw) {
        ids_decimal(a, found, 0);
        ids_text(a, " found");
        ids_put(a);
    }
    return ids_end(a, NULL);
}

