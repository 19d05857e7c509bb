/*
 * Leads the gate of exception 22, which is reserved and which no CPU raises, to a function that counts and returns, and
 * raises it, in kernel mode, when 1 is written to its parameter `raise`.
 */
#include "guard.h"
#include "write.h"

static unsigned long table;
module_param(table, ulong, 0400);
MODULE_PARM_DESC(table, "address of idt_table");

unsigned long gate_calls;
module_param_named(count, gate_calls, ulong, 0400);

#if defined(CONFIG_X86_64)
#define RESERVED 22
#define ENTRY_SIZE 16

void gate_stub(void);
asm("gate_stub: lock incq gate_calls(%rip)\n\tiretq");

static u8 before[ENTRY_SIZE];

static void *place(void)
{
	return (void *)(table + ENTRY_SIZE * RESERVED);
}

static int raise_it(const char *value, const struct kernel_param *parameter)
{
	asm volatile("int %0" : : "i" (RESERVED) : "memory");
	return 0;
}

/* Everything but the address stays as it is: the segment, the type of an interrupt gate, and that it is present. */
static int lead(void)
{
	unsigned long to = (unsigned long)gate_stub;
	u8 gate[ENTRY_SIZE];

	memcpy(before, place(), sizeof(before));
	memcpy(gate, before, sizeof(gate));
	memcpy(gate, &to, 2);
	memcpy(gate + 6, (u8 *)&to + 2, 6);
	return put_bytes(place(), gate, sizeof(gate));
}

static void restore(void)
{
	put_bytes(place(), before, sizeof(before));
}
#else
static int raise_it(const char *value, const struct kernel_param *parameter)
{
	return -ENODEV;
}

static int lead(void)
{
	return -ENODEV;
}

static void restore(void)
{
}
#endif

static const struct kernel_param_ops raise_ops = { .set = raise_it };
module_param_cb(raise, &raise_ops, NULL, 0200);

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	return table ? lead() : -EINVAL;
}

static void __exit stop(void)
{
	restore();
}

module_init(start);
module_exit(stop);
