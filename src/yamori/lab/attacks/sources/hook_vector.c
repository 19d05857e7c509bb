/*
 * 32-bit Arm goes to 0xffff0008 for a system call, which loads the program counter from a word behind the vectors. Leads
 * that to a function which counts and goes on to where it led.
 */
#include "guard.h"
#include "write.h"

static unsigned long place;
module_param(place, ulong, 0400);
MODULE_PARM_DESC(place, "where the pointer lies");

unsigned long vector_calls, vector_before;
module_param_named(count, vector_calls, ulong, 0400);

/* Not with LPAE: there processes get their map of modules by faults, and one in the stub loses the caller's SPSR. */
#if defined(CONFIG_ARM) && !defined(CONFIG_THUMB2_KERNEL) && !defined(CONFIG_ARM_LPAE)
enum { LOAD_PC = 0xe59ff000, DISTANCE = 0xfff, FAILED = 1 };
#define SYSTEM_CALL 0xffff0008UL

/* Every register and flag is as before; what was pushed last is taken into the program counter. */
void vector_stub(void);
asm(".arm\nvector_stub: sub sp, sp, #4\n\tpush {r0, r1}\n\tldr r0, =vector_calls\n\tldr r1, [r0]\n\tadd r1, r1, #1\n\t"
    "str r1, [r0]\n\tldr r0, =vector_before\n\tldr r0, [r0]\n\tstr r0, [sp, #8]\n\tpop {r0, r1, pc}\n\t.ltorg");

/* The vectors are mapped read-only, and are in no map that has a symbol: the CPU tells where they are (ATS1CPR). */
static int put(unsigned long value)
{
	unsigned long physical;
	struct page *page;
	void *alias;

	asm volatile("mcr p15, 0, %1, c7, c8, 0\n\tisb\n\tmrc p15, 0, %0, c7, c4, 0" : "=r" (physical) : "r" (place));
	if (physical & FAILED)
		return -EFAULT;
	page = pfn_to_page(physical >> PAGE_SHIFT);
	alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	if (!alias)
		return -ENOMEM;
	WRITE_ONCE(*(unsigned long *)(alias + offset_in_page(place)), value);
	vunmap(alias);
	return 0;
}

static int lead(void)
{
	u32 load = *(volatile u32 *)SYSTEM_CALL;

	if ((load & ~DISTANCE) != LOAD_PC)
		return -ENODEV;
	place = SYSTEM_CALL + 8 + (load & DISTANCE);
	vector_before = *(volatile unsigned long *)place;
	return put((unsigned long)vector_stub);
}
#else
static int put(unsigned long value)
{
	return -ENODEV;
}

static int lead(void)
{
	return -ENODEV;
}
#endif

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	return lead();
}

static void __exit stop(void)
{
	put(vector_before);
}

module_init(start);
module_exit(stop);
