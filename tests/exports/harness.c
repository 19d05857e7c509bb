/*
 * A port for Linux programs: runs a command of the core over RAM in files, and prints its lines.
 *
 * harness COMMAND RAW WINDOW WINDOWS HINT YIELDS GPA=FILE...
 *
 * Windows of WINDOW bytes are mapped from the files, at most WINDOWS at a time. What of a window is no RAM cannot be
 * read, and one that was evicted is unmapped at once: whoever reads there is killed. After YIELDS yields the command has
 * to end; 0 is never. Where PEEK is in the environment, bytes can be read without a window, too.
 */

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ids_core.h"

enum { MOST_WINDOWS = 64, MOST_FILES = 40 };

static struct window {
    unsigned char *host;
    unsigned long long gpa;
    unsigned long used;
} windows[MOST_WINDOWS];

static struct ram {
    unsigned long long gpa, size;
    int fd;
} ram[MOST_FILES];

static unsigned int files, window_count, maps, yields, most_yields;
static unsigned long uses;
static unsigned long long window_size;
static void *area;

static int region(struct ids_port *port, unsigned int number, unsigned long long *gpa, unsigned long long *size)
{
    (void)port;
    if (number >= files)
        return 0;
    *gpa = ram[number].gpa;
    *size = ram[number].size;
    return 1;
}

static void evict(struct window *window)
{
    if (!window->host)
        return;
    ids_evicted(area, window->host, (unsigned long)window_size);
    munmap(window->host, (size_t)window_size);
    window->host = NULL;
}

static const void *map(struct ids_port *port, unsigned long long gpa, unsigned long long *first,
                       unsigned long long *size)
{
    unsigned long long start = gpa & ~(window_size - 1);
    struct window *window = windows;

    (void)port;
    *first = start;
    *size = window_size;
    for (unsigned int i = 0; i < window_count; i++) {
        if (windows[i].host && windows[i].gpa == start) {
            windows[i].used = ++uses;
            return windows[i].host;
        }
        if (windows[i].used < window->used) /* what was used longest ago goes */
            window = &windows[i];
    }
    evict(window);
    window->host = mmap(NULL, (size_t)window_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (window->host == MAP_FAILED)
        abort();
    window->gpa = start;
    window->used = ++uses;
    for (unsigned int i = 0; i < files; i++) {
        unsigned long long from = start > ram[i].gpa ? start : ram[i].gpa;
        unsigned long long to = ram[i].gpa + ram[i].size;

        to = to < start + window_size ? to : start + window_size;
        if (from < to && mmap(window->host + (from - start), (size_t)(to - from), PROT_READ, MAP_PRIVATE | MAP_FIXED,
                              ram[i].fd, (off_t)(from - ram[i].gpa)) == MAP_FAILED)
            abort();
    }
    maps++;
    return window->host;
}

static int peek(struct ids_port *port, unsigned long long gpa, unsigned long long *word)
{
    (void)port;
    for (unsigned int i = 0; i < files; i++)
        if (gpa % 8 == 0 && gpa - ram[i].gpa < ram[i].size && 8 <= ram[i].size - (gpa - ram[i].gpa))
            return pread(ram[i].fd, word, 8, (off_t)(gpa - ram[i].gpa)) == 8;
    abort(); /* it lies outside of RAM, or is not aligned */
}

static void line(struct ids_port *port, const char *text)
{
    (void)port;
    puts(text);
}

static int yield(struct ids_port *port)
{
    (void)port;
    return ++yields != most_yields;
}

int main(int argc, char **argv)
{
    struct ids_port port = {.region = region, .map = map, .line = line, .yield = yield};
    enum ids_result result = IDS_MORE;

    if (argc < 7)
        return 100;
    port.raw = atoi(argv[2]);
    port.peek = getenv("PEEK") ? peek : NULL;
    window_size = strtoull(argv[3], NULL, 0);
    window_count = (unsigned int)atoi(argv[4]);
    port.hint = strtoull(argv[5], NULL, 0);
    most_yields = (unsigned int)atoi(argv[6]);
    for (int i = 7; i < argc; i++, files++) {
        struct stat stat;
        char *file;

        ram[files].gpa = strtoull(argv[i], &file, 0);
        ram[files].fd = open(file + 1, O_RDONLY);
        if (ram[files].fd < 0 || fstat(ram[files].fd, &stat))
            return 101;
        ram[files].size = (unsigned long long)stat.st_size;
    }
    for (unsigned long size = IDS_AREA; result == IDS_MORE && size <= IDS_LARGEST_AREA; size *= 2) {
        free(area);
        for (unsigned int i = 0; i < window_count; i++)
            windows[i].host = NULL; /* the old area knows them */
        area = malloc(size);
        if (!area)
            return 102;
        result = ids_run(area, size, &port, argv[1]);
    }
    fprintf(stderr, "maps %u yields %u\n", maps, yields);
    return (int)result;
}
