/* Replaces the entry of sync() in the system-call table by a function that counts and forwards. */
#include "guard.h"
#include "write.h"
#include <linux/unistd.h>

static unsigned long table;
module_param(table, ulong, 0400);
MODULE_PARM_DESC(table, "address of sys_call_table");
static int nr = __NR_sync;
module_param(nr, int, 0400);
MODULE_PARM_DESC(nr, "number of the call");
static unsigned long count;
module_param(count, ulong, 0400);
MODULE_PARM_DESC(count, "calls that came through here");

typedef asmlinkage long (*call_t)(unsigned long, unsigned long, unsigned long, unsigned long, unsigned long, unsigned long);
static call_t before;

/* With wrappers (x86-64, 64-bit Arm) the first argument is struct pt_regs *, and the others are nothing. */
static asmlinkage long forward(unsigned long a, unsigned long b, unsigned long c, unsigned long d, unsigned long e,
			       unsigned long f)
{
	count++;
	return before(a, b, c, d, e, f);
}

/* The table is read-only. */
static int put(call_t value)
{
	return put_pointer((call_t *)table + nr, value);
}

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	if (!table)
		return -EINVAL;
	before = ((call_t *)table)[nr];
	return put(forward);
}

static void __exit stop(void)
{
	put(before);
}

module_init(start);
module_exit(stop);
