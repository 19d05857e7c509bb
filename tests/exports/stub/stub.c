/*
 * A hypervisor of files, for tests: guests whose RAM is mapped in pieces that lie anywhere in the host's memory.
 *
 * stub PIECE ROOM PAGES GUESTS GPA=FILE... -- WORD...
 *
 * Each region is a file, in pieces of PIECE bytes; GUESTS guests have them all, by the names guest0, guest1, ...
 * ROOM bytes can be allocated, PAGES pages of the pool of virtual addresses are free. What the real one answers by a
 * panic ends the program: mapping the same memory twice in different ways, or more than there is room for; so does
 * whatever is left allocated or mapped. The words are a command; its return code is printed on standard error.
 */

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "xvisor.h"

enum { MOST_REGIONS = 16, MOST_MAPPED = 16 };

static const physical_addr_t host_base = 0x100000000ull, scatter = 0x10000000ull;

struct vmm_guest {
    struct vmm_vcpu vcpu;
};

static struct {
    struct vmm_region region;
    int fd;
} ram[MOST_REGIONS];

static struct {
    physical_addr_t pa;
    virtual_size_t size;
    unsigned char *host;
} mapped[MOST_MAPPED];

static struct vmm_guest guests[8];
static struct vmm_cmd *command;
static unsigned int regions, guest_count, allocations, pages, most_mapped, yields, maps;
static unsigned long room;
static unsigned long long piece;

int stub_start(void);
void stub_end(void);

static void panic(const char *why)
{
    fprintf(stderr, "panic: %s\n", why);
    abort();
}

int vmm_cprintf(struct vmm_chardev *cdev, const char *format, ...)
{
    va_list arguments;
    int length;

    (void)cdev;
    va_start(arguments, format);
    length = vprintf(format, arguments);
    va_end(arguments);
    return length;
}

void *vmm_zalloc(virtual_size_t size)
{
    if (size > room)
        return NULL;
    allocations++;
    return calloc(1, size);
}

void vmm_free(void *ptr)
{
    allocations--;
    free(ptr);
}

int vmm_mutex_trylock(struct vmm_mutex *mut)
{
    return mut->lock++ == 0;
}

int vmm_mutex_unlock(struct vmm_mutex *mut)
{
    return --mut->lock;
}

u64 vmm_timer_timestamp(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)now.tv_sec * 1000000000u + (u64)now.tv_nsec;
}

u64 udiv64(u64 value, u64 divisor)
{
    return value / divisor;
}

void vmm_scheduler_yield(void)
{
    yields++;
}

struct vmm_guest *vmm_manager_guest_find(const char *name)
{
    char own[16];

    for (unsigned int i = 0; i < guest_count; i++) {
        snprintf(own, sizeof(own), "guest%u", i);
        if (!strcmp(own, name))
            return &guests[i];
    }
    return NULL;
}

int vmm_manager_guest_iterate(int (*iter)(struct vmm_guest *, void *), void *priv)
{
    for (unsigned int i = 0; i < guest_count; i++)
        iter(&guests[i], priv);
    return VMM_OK;
}

struct vmm_vcpu *vmm_manager_guest_vcpu(struct vmm_guest *guest, u32 subid)
{
    return subid ? NULL : &guest->vcpu;
}

void vmm_guest_iterate_region(struct vmm_guest *guest, u32 flags,
                              void (*func)(struct vmm_guest *, struct vmm_region *, void *), void *priv)
{
    for (unsigned int i = 0; i < regions; i++)
        if ((ram[i].region.stub_flags & flags) == flags)
            func(guest, &ram[i].region, priv);
}

struct vmm_region *vmm_guest_find_region(struct vmm_guest *guest, physical_addr_t gpa, u32 flags, bool resolve_alias)
{
    (void)guest;
    (void)resolve_alias;
    for (unsigned int i = 0; i < regions; i++)
        if ((ram[i].region.stub_flags & flags) == flags && gpa - ram[i].region.stub_start < ram[i].region.stub_size)
            return &ram[i].region;
    return NULL;
}

/* Piece p of region r lies at a place that neither its neighbours nor the GPA tell. */
static physical_addr_t host_of(unsigned int region, unsigned long long number)
{
    return host_base + ((number * 37 + region * 11) % 4096 * 16 + region) * scatter;
}

void vmm_guest_find_mapping(struct vmm_guest *guest, struct vmm_region *reg, physical_addr_t gpa, physical_addr_t *hpa,
                            physical_size_t *avail)
{
    unsigned long long at = gpa - reg->stub_start, left = reg->stub_size - at;

    (void)guest;
    for (unsigned int i = 0; i < regions; i++)
        if (&ram[i].region == reg)
            *hpa = host_of(i, at / piece) + at % piece;
    *avail = piece - at % piece;
    if (*avail > left)
        *avail = left;
}

u32 vmm_guest_memory_read(struct vmm_guest *guest, physical_addr_t gpa, void *to, u32 size, bool cacheable)
{
    (void)guest;
    if (!cacheable)
        panic("memory is read past the cache");
    if (size == 8 && gpa % 8)
        panic("data abort: a misaligned word"); /* so does 32-bit Arm */
    for (unsigned int i = 0; i < regions; i++) {
        unsigned long long at = gpa - ram[i].region.stub_start;

        if (at < ram[i].region.stub_size && size <= ram[i].region.stub_size - at)
            return (u32)pread(ram[i].fd, to, size, (off_t)at);
    }
    panic("what is no RAM is read");
    return 0;
}

virtual_addr_t vmm_host_memmap(physical_addr_t pa, virtual_size_t size, u32 flags)
{
    unsigned int free_one = MOST_MAPPED, count = 1;

    if (flags != VMM_MEMORY_FLAGS_NORMAL)
        panic("mapped in two ways");
    if (size / 4096 > pages)
        panic("no virtual addresses are left");
    for (unsigned int i = 0; i < MOST_MAPPED; i++) {
        if (!mapped[i].host)
            free_one = i;
        else if (pa < mapped[i].pa + mapped[i].size && mapped[i].pa < pa + size)
            panic("mapped twice");
        else
            count++;
    }
    if (free_one == MOST_MAPPED)
        panic("too many are mapped");
    most_mapped = count > most_mapped ? count : most_mapped;
    for (unsigned int r = 0; r < regions; r++)
        for (unsigned long long p = 0; p * piece < ram[r].region.stub_size; p++)
            if (pa >= host_of(r, p) && pa - host_of(r, p) < piece) {
                unsigned long long at = p * piece + (pa - host_of(r, p));

                if (size > piece - at % piece || at + size > ram[r].region.stub_size)
                    panic("what is no RAM of the guest's is mapped");
                mapped[free_one].pa = pa;
                mapped[free_one].size = size;
                mapped[free_one].host = mmap(NULL, size, PROT_READ, MAP_PRIVATE, ram[r].fd, (off_t)at);
                pages -= (unsigned int)(size / 4096);
                maps++;
                return (virtual_addr_t)mapped[free_one].host;
            }
    panic("what is no RAM is mapped");
    return 0;
}

int vmm_host_memunmap(virtual_addr_t va)
{
    for (unsigned int i = 0; i < MOST_MAPPED; i++)
        if (mapped[i].host && (virtual_addr_t)mapped[i].host == va) {
            munmap(mapped[i].host, mapped[i].size);
            mapped[i].host = NULL;
            pages += (unsigned int)(mapped[i].size / 4096);
            return VMM_OK;
        }
    panic("what is not mapped is unmapped");
    return VMM_EFAIL;
}

u32 vmm_host_memmap_hash_free_count(void)
{
    return 64;
}

u32 vmm_host_vapool_free_page_count(void)
{
    return pages;
}

int vmm_cmdmgr_register_cmd(struct vmm_cmd *cmd)
{
    command = cmd;
    return VMM_OK;
}

int vmm_cmdmgr_unregister_cmd(struct vmm_cmd *cmd)
{
    command = cmd == command ? NULL : command;
    return VMM_OK;
}

int main(int argc, char **argv)
{
    static unsigned long long registers[16]; /* nothing is in them: the hint is 0 */
    unsigned int before;
    int i, code;

    piece = strtoull(argv[1], NULL, 0);
    room = strtoul(argv[2], NULL, 0);
    before = pages = (unsigned int)strtoul(argv[3], NULL, 0);
    guest_count = (unsigned int)strtoul(argv[4], NULL, 0);
    for (i = 0; i < 8; i++)
        guests[i].vcpu.arch_priv = registers;
    for (i = 5; i < argc && strcmp(argv[i], "--"); i++, regions++) {
        struct stat stat;
        char *file;

        ram[regions].region.stub_flags = VMM_REGION_REAL | VMM_REGION_MEMORY | VMM_REGION_ISRAM;
        ram[regions].region.stub_start = strtoull(argv[i], &file, 0);
        ram[regions].fd = open(file + 1, O_RDONLY);
        if (fstat(ram[regions].fd, &stat))
            panic("no such file");
        ram[regions].region.stub_size = (physical_size_t)stat.st_size;
    }
    if (stub_start() || !command || strcmp(command->name, "ids"))
        panic("the command is not there");
    code = command->exec(NULL, argc - i - 1, argv + i + 1);
    stub_end();
    if (allocations || pages != before || command)
        panic("something is left");
    fprintf(stderr, "code %d windows %u maps %u yields %u\n", code, most_mapped, maps, yields);
    return 0;
}
