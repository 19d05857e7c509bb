/* Copies busybox into a memfd and becomes it, asleep. */
#include "lab.h"

enum { EMPTY_PATH = 0x1000 /* AT_EMPTY_PATH */, MOST = 64 << 20 };

void _start(void)
{
	static char *const arguments[] = { "sleep", "7206", 0 }, *const environment[] = { 0 };
	long source, memory;

	if (in_lab()) {
		source = call(OPEN_AT, HERE, (long)"/bin/busybox", 0, 0, 0);
		memory = call(MEMFD_CREATE, (long)"yamori", 0, 0, 0, 0);
		while (call(SEND_FILE, memory, source, 0, MOST, 0) > 0)
			;
		call(EXEC_AT, memory, (long)"", (long)arguments, (long)environment, EMPTY_PATH);
	}
	call(EXIT, 1, 0, 0, 0, 0);
}
