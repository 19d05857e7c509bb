/* ---- Running a command ------------------------------------------------------------------------------------------- */

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
        !ids_is(command, "info") && !ids_is(command, "check"))
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
    if (ids_is(command, "check"))
        return ids_check(a, size - sizeof(*a));
    return ids_show_kernel(a, ids_is(command, "info"));
}
