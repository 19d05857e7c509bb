/* Counts the calls of a function of the kernel by a kprobe. */
#include "guard.h"
#include <linux/kprobes.h>

static unsigned long count;
module_param(count, ulong, 0400);
static unsigned long place;
module_param(place, ulong, 0400);

static int counted(struct kprobe *probe, struct pt_regs *registers)
{
	count++;
	return 0;
}

static struct kprobe probe = { .symbol_name = "iterate_supers", .pre_handler = counted };

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	error = register_kprobe(&probe);
	place = (unsigned long)probe.addr;
	return error;
}

static void __exit stop(void)
{
	unregister_kprobe(&probe);
}

module_init(start);
module_exit(stop);
