/* Counts the calls of a function of the kernel by ftrace. */
#include "guard.h"
#include <linux/ftrace.h>

static unsigned long count;
module_param(count, ulong, 0400);
static unsigned long place;
module_param(place, ulong, 0400);

/* The fourth argument, unused, was struct pt_regs * before 5.11 (d19ad0775dcd). */
static void notrace counted(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, void *registers)
{
	count++;
}

static struct ftrace_ops ops = { .func = (ftrace_func_t)counted };
static char function[] = "iterate_supers";

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	error = ftrace_set_filter(&ops, function, sizeof(function) - 1, 1);
	place = (unsigned long)&ops;
	return error ? error : register_ftrace_function(&ops);
}

static void __exit stop(void)
{
	unregister_ftrace_function(&ops);
}

module_init(start);
module_exit(stop);
