/* Leads the jump or call to one system call, in the switch of x86-64, to a function that counts and forwards. */
#include "guard.h"
#include "write.h"
#include <linux/unistd.h>

static unsigned long place;
module_param_named(switch, place, ulong, 0400);
MODULE_PARM_DESC(switch, "address of x64_sys_call");
static unsigned long target;
module_param(target, ulong, 0400);
MODULE_PARM_DESC(target, "address of the system call");
static int nr = __NR_sync;
module_param(nr, int, 0400);
static unsigned long count;
module_param(count, ulong, 0400);
MODULE_PARM_DESC(count, "calls that came through here");

enum { LONGEST = 8192 };

static long forward(const void *registers)
{
	count++;
	return ((long (*)(const void *))target)(registers);
}

/* The distance lies behind the first byte of JMP and CALL, and counts from its own end. */
static int lead(unsigned long to)
{
	s32 distance = to - (place + sizeof(distance));

	return put_bytes((void *)place, &distance, sizeof(distance));
}

static int __init start(void)
{
	const u8 *code = (const u8 *)place;
	int error = lab_only();
	int at;

	if (error)
		return error;
	if (!IS_ENABLED(CONFIG_X86_64) || !code)
		return -EINVAL;
	for (at = 0; at < LONGEST; at++) {
		s32 distance;

		memcpy(&distance, code + at + 1, sizeof(distance));
		if ((code[at] & 0xfe) == 0xe8 && (unsigned long)(code + at + 5) + distance == target) {
			place = (unsigned long)(code + at + 1);
			return lead((unsigned long)forward);
		}
	}
	return -ENODEV;
}

static void __exit stop(void)
{
	lead(target);
}

module_init(start);
module_exit(stop);
