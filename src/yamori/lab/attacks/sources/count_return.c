/* Counts the returns of a function of the kernel by a kretprobe. */
#include "guard.h"
#include <linux/kprobes.h>

static unsigned long count;
module_param(count, ulong, 0400);
static unsigned long place;
module_param(place, ulong, 0400);

static int counted(struct kretprobe_instance *instance, struct pt_regs *registers)
{
	count++;
	return 0;
}

static struct kretprobe probe = { .kp.symbol_name = "iterate_supers", .handler = counted };

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	error = register_kretprobe(&probe);
	place = (unsigned long)probe.kp.addr;
	return error;
}

static void __exit stop(void)
{
	unregister_kretprobe(&probe);
}

module_init(start);
module_exit(stop);
