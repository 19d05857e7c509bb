/*
 * The commands of Yamori for one kernel, inside of a hypervisor: what a port gives, and what it may call.
 *
 * The core reads guest memory and nothing else. It allocates nothing, keeps nothing between two commands but what lies
 * in the area, and trusts nothing that the guest has written.
 */

#ifndef IDS_CORE_H
#define IDS_CORE_H

/* What the hypervisor supplies. Every function gets this structure itself, and returns 0 where it says no. */
struct ids_port {
    void *own;               /* whatever the port likes */
    int raw;                 /* lines for programs, not for people */
    unsigned long long hint; /* GPA of the table of kernel addresses that a vCPU's register names, or 0. Where the
                              * kernel can be proved by it, RAM is not searched; it may be wrong or stale. */

    /* The guest's RAM region of a number, counted from 0: its first GPA and its bytes. 0 behind the last. */
    int (*region)(struct ids_port *port, unsigned int number, unsigned long long *gpa, unsigned long long *size);

    /* Map the RAM around a GPA to be read: the host's address of *first, and *size bytes from there on; NULL where it
     * cannot be. Host address and GPA are alike modulo 8. It stays mapped until ids_evicted() was told, and what was
     * mapped last is not the next to go. */
    const void *(*map)(struct ids_port *port, unsigned long long gpa, unsigned long long *first,
                       unsigned long long *size);

    /* Read an aligned word of RAM: 0 where it cannot be. NULL where a window costs no more. */
    int (*peek)(struct ids_port *port, unsigned long long gpa, unsigned long long *word);

    /* Put a line of printable ASCII, without its line feed. */
    void (*line)(struct ids_port *port, const char *text);

    /* Let others run, if it is time; 0 where the command has taken too long and has to end. */
    int (*yield)(struct ids_port *port);
};

enum ids_result {
    IDS_OK,         /* whole */
    IDS_INCOMPLETE, /* rows are missing or doubtful; one error line says why */
    IDS_ERROR,      /* no row; one error line says why */
    IDS_MORE,       /* nothing was put out: the area is too small for the rows */
    IDS_UNKNOWN     /* nothing was put out: there is no such command */
};

/* Areas that hold a usual device's rows, and the largest that is ever of use, in bytes. */
#define IDS_AREA 0x8000ul
#define IDS_LARGEST_AREA 0x800000ul

/*
 * Run a command: "info", "banner", "syscall", "plist" or "check".
 *
 * area    Memory of the caller for this run, aligned to 8 bytes; what is in it does not matter.
 * size    Its bytes, IDS_AREA at least. The larger, the more rows.
 */
enum ids_result ids_run(void *area, unsigned long size, struct ids_port *port, const char *command);

/* The banner of the kernel that the core is made for, escaped. */
extern const char ids_made_for[];

/* Tell the core, out of map(), that a window is about to be unmapped: its host address and bytes. */
void ids_evicted(void *area, const void *host, unsigned long size);

#endif
