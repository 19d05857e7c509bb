/*
 * The runtime contract on a Linux host (see runtime.h), over the regions that the context lists: those that are mapped
 * are loaded from, the others read by pread. Nothing is kept: each load is a read of its own.
 *
 * pread comes by its address, so that the object needs no particular C library.
 */

typedef ptrdiff_t ll_pread(int fd, void *buffer, size_t size, int64_t offset);

/* The region that holds a GPA. They are sorted and do not overlap. */
static const struct ll_region *ll_find(const struct ll_context *c, uint64_t gpa)
{
    const struct ll_region *regions = (const struct ll_region *)(uintptr_t)c->regions;
    uint64_t low = 0, high = c->region_count;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (gpa < regions[middle].gpa)
            high = middle;
        else if (gpa - regions[middle].gpa >= regions[middle].size)
            low = middle + 1;
        else
            return &regions[middle];
    }
    return NULL;
}

uint64_t ll_window(const struct ll_context *c, uint64_t gpa, uint64_t *first, uint64_t *size)
{
    const struct ll_region *region = ll_find(c, gpa);

    if (!region || !region->host || ((region->host - region->gpa) & 7))
        return 0;
    *first = region->gpa;
    *size = region->size;
    return region->host;
}

/* A load whose place on the host is not aligned cannot be a single one. */
static uint64_t ll_mapped(uint64_t host, uint64_t size)
{
    const volatile uint8_t *bytes = (const volatile uint8_t *)(uintptr_t)host;
    uint64_t value = 0;

    if (!(host & (size - 1))) {
        switch (size) {
        case 1:
            return *bytes;
        case 2:
            return *(const volatile uint16_t *)(uintptr_t)host;
        case 4:
            return *(const volatile uint32_t *)(uintptr_t)host;
        default:
            return *(const volatile uint64_t *)(uintptr_t)host;
        }
    }
    for (uint64_t i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

uint64_t ll_read(const struct ll_context *c, uint64_t gpa, uint64_t size, uint64_t *value)
{
    const struct ll_region *region = ll_find(c, gpa);
    ll_pread *pread = (ll_pread *)(uintptr_t)c->pread;
    uint64_t at, got = 0;
    ptrdiff_t length;

    if (!region || size > 8 || size > region->size - (gpa - region->gpa))
        return LL_OUTSIDE;
    at = gpa - region->gpa;
    if (region->host) {
        *value = ll_mapped(region->host + at, size);
        return LL_NONE;
    }
    length = pread((int)region->fd, &got, (size_t)size, (int64_t)(region->offset + at));
    if (length != (ptrdiff_t)size)
        return length < 0 && region->holes ? LL_OUTSIDE : LL_GONE;
    *value = got;
    return LL_NONE;
}
