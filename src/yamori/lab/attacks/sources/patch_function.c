/*
 * Patches the start of a function of the kernel, where the compiler left room for tracing, into a call of one that
 * counts and returns. Both see to it that every register is as before.
 */
#include "guard.h"
#include "write.h"

static unsigned long place;
module_param(place, ulong, 0400);
MODULE_PARM_DESC(place, "where the function begins");

unsigned long patched_calls;
module_param_named(count, patched_calls, ulong, 0400);

void patched_stub(void);

#if defined(CONFIG_X86_64)
asm("patched_stub: lock incq patched_calls(%rip)\n\tret");
static const u8 room[] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };
enum { SKIPPED = 0, STEP = 1 };

static int call_from(unsigned long at, u8 *code)
{
	s32 distance = (unsigned long)patched_stub - at - 5;

	code[0] = 0xe8;
	memcpy(code + 1, &distance, sizeof(distance));
	return (unsigned long)patched_stub == at + 5 + distance ? 0 : -ERANGE;
}
#elif defined(CONFIG_ARM64)
/* The caller's return address went to x9 before. x9 to x15 are free here. */
asm("patched_stub: hint #34\n\tadrp x10, patched_calls\n\tadd x10, x10, :lo12:patched_calls\n\tldr x11, [x10]\n\t"
    "add x11, x11, #1\n\tstr x11, [x10]\n\tmov x10, x30\n\tmov x30, x9\n\tret x10");
static const u8 room[] = { 0xe9, 0x03, 0x1e, 0xaa, 0x1f, 0x20, 0x03, 0xd5 };
enum { SKIPPED = 4, STEP = 4 };

static int call_from(unsigned long at, u8 *code)
{
	long distance = (long)patched_stub - (long)at;
	u32 word = 0x94000000 | (distance >> 2 & 0x3ffffff);

	memcpy(code, &word, sizeof(word));
	return distance < SZ_128M && distance >= -(long)SZ_128M ? 0 : -ERANGE;
}
#else
/* The caller's return address was pushed before, and the room takes it off the stack: so does what is called. */
asm("patched_stub: push {r0, r1}\n\tldr r0, =patched_calls\n\tldr r1, [r0]\n\tadd r1, r1, #1\n\tstr r1, [r0]\n\t"
    "pop {r0, r1}\n\tmov ip, lr\n\tpop {lr}\n\tbx ip\n\t.ltorg");
static const u8 room[] = { 0x04, 0xe0, 0x2d, 0xe5, 0x04, 0xd0, 0x8d, 0xe2 }; /* 5.18 and later */
enum { SKIPPED = 4, STEP = 4 };

static int call_from(unsigned long at, u8 *code)
{
	long distance = (long)patched_stub - (long)at - 8;
	u32 word = 0xeb000000 | (distance >> 2 & 0xffffff);

	memcpy(code, &word, sizeof(word));
	return distance < SZ_32M && distance >= -(long)SZ_32M ? 0 : -ERANGE;
}
#endif

static int __init start(void)
{
	u8 code[sizeof(room)];
	unsigned long at = place, last = place + 16;
	int error = lab_only();

	if (error)
		return error;
	while (memcmp((void *)at, room, sizeof(room)))
		if ((at += STEP) > last)
			return -ENODEV;
	place = at + SKIPPED;
	error = call_from(place, code);
	return error ? error : put_bytes((void *)place, code, sizeof(room) - SKIPPED);
}

static void __exit stop(void)
{
	put_bytes((void *)place, room + SKIPPED, sizeof(room) - SKIPPED);
}

module_init(start);
module_exit(stop);
