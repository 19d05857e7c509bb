/* ---- Finding the kernel ----------------------------------------------------------------------------------------- */

const char ids_made_for[] = IDS_BANNER;

enum { IDS_BANNER_SIZE = sizeof(ids_made_for) + 1 }; /* with its line feed */

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

/* Whether the kernel's banner may lie at a GPA of RAM, by where it differs from those of other kernels. */
static int ids_may_be_banner(struct ids_area *a, uint64_t gpa)
{
    unsigned long long word = 0;
    uint64_t loaded = 0;

    if (a->port->peek)
        return a->port->peek(a->port, gpa + IDS_TELLING, &word) && word == IDS_TOLD;
    return !ids_phys(a, gpa + IDS_TELLING, 8, &loaded) && loaded == IDS_TOLD;
}

static int ids_is_banner(struct ids_area *a, uint64_t gpa)
{
    return ids_lies_at(a, gpa, ids_made_for, IDS_BANNER_SIZE - 2) && ids_lies_at(a, gpa + IDS_BANNER_SIZE - 2, "\n", 2);
}

/* Prove the kernel whose table a vCPU's register names, if it does: then RAM need not be searched. */
static int ids_hinted(struct ids_area *a)
{
    static const uint64_t behind[] = {IDS_HINTS};

    for (unsigned int i = 0; a->port->hint && i < sizeof(behind) / sizeof(*behind); i++) {
        const uint64_t init = a->port->hint - behind[i] - (uint64_t)IDS_ROOT_AT;

        if (ids_is_banner(a, init + (uint64_t)IDS_BANNER_AT) &&
            ids_prove(a, init + (uint64_t)IDS_BANNER_AT, &a->found))
            return 1;
    }
    return 0;
}

/*
 * Look for the kernel. Image and page tables agree on pages, so the banner has the same place in its page in every boot,
 * and one load of each page of RAM finds it.
 */
static enum ids_result ids_find(struct ids_area *a)
{
    unsigned int matches = 0, proved = 0;
    struct ids_found other;

    if (ids_hinted(a))
        return IDS_OK;
    for (uint64_t i = 0; i < a->region_count; i++) {
        const uint64_t first = a->regions[i].gpa, end = first + a->regions[i].size;
        uint64_t gpa = first + ((IDS_BANNER_IN_PAGE - first) & (IDS_PAGE - 1));

        for (; gpa < end && end - gpa >= IDS_BANNER_SIZE; gpa += IDS_PAGE) {
            if ((gpa & (IDS_SCANNED - 1)) < IDS_PAGE)
                ids_pause(a);
            if (a->c.stop)
                return ids_error(a, "given up: looking for the kernel takes too long");
            if (!ids_may_be_banner(a, gpa) || !ids_is_banner(a, gpa))
                continue;
            if (++matches > IDS_MOST_MATCHES)
                return ids_error(a, "RAM is full of copies of the kernel's banner: somebody may be planting them");
            if (ids_prove(a, gpa, proved ? &other : &a->found))
                proved++;
        }
    }
    if (proved > 1)
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
