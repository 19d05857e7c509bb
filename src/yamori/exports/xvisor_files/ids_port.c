/*
 * The port of Yamori's commands to Xvisor: the guest's RAM regions, windows onto them, lines, and time.
 *
 * A guest's RAM is mapped onto the host's in pieces, and the hypervisor has no mapping of it. So a few windows of at most
 * 32 KiB are mapped as they are needed, each within one piece, and all are unmapped when the command ends.
 */

/* Room is shorter than time. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif

/* Nobody unwinds these functions: their frames' layout is for a debugger. */
__asm__(".cfi_sections .debug_frame");

#include <vmm_error.h>
#include <vmm_stdio.h>
#include <vmm_heap.h>
#include <vmm_mutex.h>
#include <vmm_timer.h>
#include <vmm_scheduler.h>
#include <vmm_host_aspace.h>
#include <vmm_host_vapool.h>
#include <vmm_guest_aspace.h>
#include <arch_regs.h>
#include <libs/mathlib.h>

#include "ids_core.h"
#include "ids_port.h"

enum {
    IDS_WINDOWS = 8,
    IDS_WINDOW_ORDER = 15,  /* log2 of the largest window's bytes: mapping costs by the page, and tasks lie apart */
    IDS_PAGE_ORDER = 12,    /* of the smallest */
    IDS_VAPOOL_SHARE = 4,   /* the windows may take one part of so many of what is free of the virtual address pool */
    IDS_MOST_RAM = 32,      /* RAM regions of a guest */
    IDS_GROWTH = 4,         /* an area in which the rows find no room is followed by one so many times larger */
    IDS_SLICE_NS = 500000,  /* the command manager's thread yields after so long */
};

#define IDS_LONGEST_NS 20000000000ull /* a command that takes longer ends with an error line */
#define IDS_MEMORY VMM_MEMORY_FLAGS_NORMAL /* as all who map RAM have it: two kinds of mapping are not allowed */

struct ids_window {
    physical_addr_t gpa;
    physical_size_t size; /* 0: not mapped */
    virtual_addr_t host;
    unsigned long used; /* the larger, the later */
};

struct ids_run {
    struct ids_port port; /* first */
    struct vmm_chardev *cdev;
    struct vmm_guest *guest;
    void *area;
    struct ids_window windows[IDS_WINDOWS];
    unsigned long uses;
    unsigned int order; /* log2 of the bytes of a window */
    unsigned int regions;
    unsigned int maps; /* windows that were mapped */
    unsigned int lines;
    int quiet; /* lines are counted only */
    struct {
        physical_addr_t gpa;
        physical_size_t size;
    } ram[IDS_MOST_RAM];
    u64 started;
    u64 yielded;
};

static DEFINE_MUTEX(ids_busy);

/* ---- The guest's RAM -------------------------------------------------------------------------------------------- */

static void ids_port_add_region(struct vmm_guest *guest, struct vmm_region *reg, void *priv)
{
    struct ids_run *run = priv;

    (void)guest;
    if (run->regions >= IDS_MOST_RAM || !VMM_REGION_PHYS_SIZE(reg))
        return;
    run->ram[run->regions].gpa = VMM_REGION_GPHYS_START(reg);
    run->ram[run->regions].size = VMM_REGION_PHYS_SIZE(reg);
    run->regions++;
}

static int ids_port_region(struct ids_port *port, unsigned int number, unsigned long long *gpa,
                           unsigned long long *size)
{
    struct ids_run *run = (struct ids_run *)port;

    if (number >= run->regions)
        return 0;
    *gpa = run->ram[number].gpa;
    *size = run->ram[number].size;
    return 1;
}

/* ---- Windows ---------------------------------------------------------------------------------------------------- */

static void ids_port_unmap(struct ids_run *run, struct ids_window *window)
{
    if (!window->size)
        return;
    ids_evicted(run->area, (const void *)window->host, (unsigned long)window->size);
    vmm_host_memunmap(window->host);
    window->size = 0;
}

/*
 * The largest place for a window around a GPA: aligned from the region's start on, so that two never overlap, and
 * within one piece of the map. 0 where there is none.
 */
static physical_size_t ids_port_place(struct ids_run *run, physical_addr_t gpa, physical_addr_t *first,
                                      physical_addr_t *host)
{
    struct vmm_region *reg = vmm_guest_find_region(run->guest, gpa, VMM_REGION_REAL | VMM_REGION_MEMORY, FALSE);
    physical_addr_t start, at, hpa;
    physical_size_t size, left, avail;
    unsigned int order;

    if (!reg || (VMM_REGION_FLAGS(reg) & VMM_REGION_ISRAM) == 0)
        return 0;
    start = VMM_REGION_GPHYS_START(reg);
    for (order = run->order; order >= IDS_PAGE_ORDER; order--) {
        size = (physical_size_t)1 << order;
        at = start + ((gpa - start) & ~(size - 1));
        left = VMM_REGION_GPHYS_END(reg) - at;
        avail = 0;
        vmm_guest_find_mapping(run->guest, reg, at, &hpa, &avail);
        if (gpa - at >= avail)
            continue; /* another piece begins between the two */
        size = size < avail ? size : avail;
        size = size < left ? size : left;
        if (hpa & (((physical_addr_t)1 << IDS_PAGE_ORDER) - 1))
            return 0;
        *first = at;
        *host = hpa;
        return size;
    }
    return 0;
}

static const void *ids_port_map(struct ids_port *port, unsigned long long gpa, unsigned long long *first,
                                unsigned long long *size)
{
    struct ids_run *run = (struct ids_run *)port;
    struct ids_window *window, *oldest = run->windows;
    physical_addr_t at = 0, hpa = 0;
    physical_size_t bytes;

    for (window = run->windows; window < run->windows + IDS_WINDOWS; window++) {
        if (gpa - window->gpa < window->size)
            break;
        if (window->used < oldest->used)
            oldest = window;
    }
    if (window == run->windows + IDS_WINDOWS) {
        bytes = ids_port_place(run, (physical_addr_t)gpa, &at, &hpa);
        if (!bytes)
            return NULL;
        window = oldest;
        ids_port_unmap(run, window);
        window->host = vmm_host_memmap(hpa, (virtual_size_t)bytes, IDS_MEMORY);
        if (!window->host)
            return NULL;
        window->gpa = at;
        window->size = bytes;
        run->maps++;
    }
    window->used = ++run->uses;
    *first = window->gpa;
    *size = window->size;
    return (const void *)window->host;
}

/* A word of a RAM region: for so little a window would cost ten times as much. What is not aligned would be the end. */
static int ids_port_peek(struct ids_port *port, unsigned long long gpa, unsigned long long *word)
{
    struct vmm_guest *guest = ((struct ids_run *)port)->guest;

    return !(gpa & (sizeof(*word) - 1)) &&
           vmm_guest_memory_read(guest, (physical_addr_t)gpa, word, sizeof(*word), TRUE) == sizeof(*word);
}

/* The largest windows for which there is room; mapping without it would be the end of the hypervisor. */
static unsigned int ids_port_order(void)
{
    unsigned int order = IDS_WINDOW_ORDER;
    u32 room = vmm_host_vapool_free_page_count() / IDS_VAPOOL_SHARE;

    while (order >= IDS_PAGE_ORDER && ((u32)IDS_WINDOWS << (order - IDS_PAGE_ORDER)) > room)
        order--;
    return vmm_host_memmap_hash_free_count() < 2 * IDS_WINDOWS ? 0 : order;
}

/* ---- Lines, time, a vCPU's register ----------------------------------------------------------------------------- */

static void ids_port_line(struct ids_port *port, const char *text)
{
    struct ids_run *run = (struct ids_run *)port;

    run->lines++;
    if (!run->quiet)
        vmm_cprintf(run->cdev, "%s\n", text);
}

static int ids_port_yield(struct ids_port *port)
{
    struct ids_run *run = (struct ids_run *)port;
    u64 now = vmm_timer_timestamp();

    if (now - run->yielded >= IDS_SLICE_NS) {
        vmm_scheduler_yield();
        run->yielded = vmm_timer_timestamp();
    }
    return now - run->started < IDS_LONGEST_NS;
}

/*
 * The table of kernel addresses as the first vCPU had it when it was last switched away from, without the bits that are
 * no address. It may be stale, or a trampoline: the core proves what it finds by it, or else searches all RAM.
 */
static unsigned long long ids_port_hint(struct vmm_guest *guest)
{
    struct vmm_vcpu *vcpu = vmm_manager_guest_vcpu(guest, 0);

    if (!vcpu)
        return 0;
#if defined(__aarch64__)
    return arm_priv(vcpu)->sysregs.ttbr1_el1 & 0x0000fffffffffffeull;
#elif defined(__arm__)
    return arm_priv(vcpu)->cp15.c2_ttbr1 & 0xffffc000ull;
#elif defined(__riscv)
    return ((unsigned long long)riscv_priv(vcpu)->vsatp & 0x00000fffffffffffull) << 12;
#else
    return 0;
#endif
}

/* ---- A command -------------------------------------------------------------------------------------------------- */

static void ids_port_error(struct vmm_chardev *cdev, int raw, const char *text)
{
    vmm_cprintf(cdev, "%s%s\n", raw ? "E " : "error: ", text);
}

static enum ids_result ids_port_try(struct ids_run *run, const char *command, unsigned long size)
{
    enum ids_result result;
    unsigned int i;

    run->area = vmm_zalloc(size);
    if (!run->area) {
        ids_port_error(run->cdev, run->port.raw, "the hypervisor has not enough memory for the rows");
        return IDS_ERROR;
    }
    result = ids_run(run->area, size, &run->port, command);
    for (i = 0; i < IDS_WINDOWS; i++)
        ids_port_unmap(run, &run->windows[i]);
    vmm_free(run->area);
    return result;
}

static enum ids_result ids_port_command(struct ids_run *run, const char *command)
{
    enum ids_result result = IDS_MORE;
    unsigned long size;

    vmm_guest_iterate_region(run->guest, VMM_REGION_REAL | VMM_REGION_MEMORY | VMM_REGION_ISRAM, ids_port_add_region,
                             run);
    run->order = ids_port_order();
    if (run->order < IDS_PAGE_ORDER) {
        ids_port_error(run->cdev, run->port.raw, "the hypervisor has no room to map the guest's RAM");
        return IDS_ERROR;
    }
    for (size = IDS_AREA; result == IDS_MORE && size <= IDS_LARGEST_AREA; size *= IDS_GROWTH)
        result = ids_port_try(run, command, size);
    if (result == IDS_MORE)
        ids_port_error(run->cdev, run->port.raw, "there are too many rows");
    return result;
}

/* Time a command without its output: what a console needs for it is many times more. */
static enum ids_result ids_port_bench(struct ids_run *run, const char *command)
{
    enum ids_result result;
    u64 took;

    run->quiet = 1;
    result = ids_port_command(run, command);
    took = vmm_timer_timestamp() - run->started;
    vmm_cprintf(run->cdev, run->port.raw ? "T %s %d %u %u %u\n" : "%s: result %d, %u us, %u windows mapped, %u lines\n",
                command, (int)result, (unsigned int)udiv64(took, 1000), run->maps, run->lines);
    return result;
}

int ids_port_run(struct vmm_chardev *cdev, struct vmm_guest *guest, const char *command, int raw, int bench)
{
    struct ids_run *run;
    enum ids_result result;

    if (!vmm_mutex_trylock(&ids_busy)) {
        ids_port_error(cdev, raw, "another console runs a command of ids; try again");
        return VMM_EFAIL;
    }
    run = vmm_zalloc(sizeof(*run));
    if (run) {
        run->port.own = run;
        run->port.raw = raw;
        run->port.hint = ids_port_hint(guest);
        run->port.region = ids_port_region;
        run->port.map = ids_port_map;
        run->port.peek = ids_port_peek;
        run->port.line = ids_port_line;
        run->port.yield = ids_port_yield;
        run->cdev = cdev;
        run->guest = guest;
        run->started = run->yielded = vmm_timer_timestamp();
        result = bench ? ids_port_bench(run, command) : ids_port_command(run, command);
        vmm_free(run);
    } else {
        ids_port_error(cdev, raw, "the hypervisor has not enough memory");
        result = IDS_ERROR;
    }
    vmm_mutex_unlock(&ids_busy);
    return result == IDS_OK ? VMM_OK : VMM_EFAIL;
}
