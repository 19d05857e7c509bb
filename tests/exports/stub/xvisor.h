/*
 * What the exported port calls of the hypervisor, declared by what its public interfaces are documented to take: enough
 * to compile against, and to run over files. Written for these tests; nothing of the hypervisor is in it.
 */

#ifndef STUB_XVISOR_H
#define STUB_XVISOR_H

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned int stub_bool;
#define bool stub_bool
#define TRUE 1
#define FALSE 0
#ifndef NULL
#define NULL ((void *)0)
#endif

typedef unsigned long virtual_addr_t;
typedef unsigned long virtual_size_t;
typedef unsigned long long physical_addr_t;
typedef unsigned long long physical_size_t;

enum { VMM_OK = 0, VMM_EFAIL = -1, VMM_ENOTAVAIL = -3 };

struct vmm_chardev;
int vmm_cprintf(struct vmm_chardev *cdev, const char *format, ...) __attribute__((format(printf, 2, 3)));

void *vmm_zalloc(virtual_size_t size);
void vmm_free(void *ptr);

struct vmm_mutex {
    int lock;
};
#define DEFINE_MUTEX(name) struct vmm_mutex name = {0}
int vmm_mutex_trylock(struct vmm_mutex *mut);
int vmm_mutex_unlock(struct vmm_mutex *mut);

u64 vmm_timer_timestamp(void);
void vmm_scheduler_yield(void);

/* Guests. */
enum {
    VMM_REGION_REAL = 1,
    VMM_REGION_VIRTUAL = 2,
    VMM_REGION_ALIAS = 4,
    VMM_REGION_MEMORY = 8,
    VMM_REGION_ISRAM = 0x100,
    VMM_REGION_ISROM = 0x200
};

struct vmm_region {
    u32 stub_flags;
    physical_addr_t stub_start;
    physical_size_t stub_size;
};
#define VMM_REGION_GPHYS_START(reg) ((reg)->stub_start)
#define VMM_REGION_GPHYS_END(reg) ((reg)->stub_start + (reg)->stub_size)
#define VMM_REGION_PHYS_SIZE(reg) ((reg)->stub_size)
#define VMM_REGION_FLAGS(reg) ((reg)->stub_flags)

struct vmm_vcpu {
    void *arch_priv;
};
struct vmm_guest;

struct vmm_guest *vmm_manager_guest_find(const char *name);
int vmm_manager_guest_iterate(int (*iter)(struct vmm_guest *, void *), void *priv);
struct vmm_vcpu *vmm_manager_guest_vcpu(struct vmm_guest *guest, u32 subid);
void vmm_guest_iterate_region(struct vmm_guest *guest, u32 flags,
                              void (*func)(struct vmm_guest *, struct vmm_region *, void *), void *priv);
struct vmm_region *vmm_guest_find_region(struct vmm_guest *guest, physical_addr_t gpa, u32 flags, bool resolve_alias);
void vmm_guest_find_mapping(struct vmm_guest *guest, struct vmm_region *reg, physical_addr_t gpa, physical_addr_t *hpa,
                            physical_size_t *avail);

u32 vmm_guest_memory_read(struct vmm_guest *guest, physical_addr_t gpa, void *to, u32 size, bool cacheable);

/* The host's memory. */
enum { VMM_MEMORY_FLAGS_NORMAL = 0x1f };
virtual_addr_t vmm_host_memmap(physical_addr_t pa, virtual_size_t size, u32 flags);
int vmm_host_memunmap(virtual_addr_t va);
u32 vmm_host_memmap_hash_free_count(void);
u32 vmm_host_vapool_free_page_count(void);

/* Registers. */
struct arm_priv {
    struct {
        u64 ttbr1_el1;
    } sysregs;
    struct {
        u64 c2_ttbr1;
    } cp15;
};
#define arm_priv(vcpu) ((struct arm_priv *)(vcpu)->arch_priv)
struct riscv_priv {
    unsigned long vsatp;
};
#define riscv_priv(vcpu) ((struct riscv_priv *)(vcpu)->arch_priv)

/* Commands. */
struct vmm_cmd {
    char name[64];
    char desc[128];
    void (*usage)(struct vmm_chardev *cdev);
    int (*exec)(struct vmm_chardev *cdev, int argc, char **argv);
};
int vmm_cmdmgr_register_cmd(struct vmm_cmd *cmd);
int vmm_cmdmgr_unregister_cmd(struct vmm_cmd *cmd);

#define __init
#define __exit
#define VMM_DECLARE_MODULE(text, author, license, priority, start, end) \
    int stub_start(void); \
    int stub_start(void) \
    { \
        return *(text) && *(author) && *(license) && (priority) == 0 ? start() : -1; \
    } \
    void stub_end(void); \
    void stub_end(void) \
    { \
        end(); \
    }

u64 udiv64(u64 value, u64 divisor);

int strcmp(const char *one, const char *other);

#endif
