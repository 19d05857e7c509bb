/* Maps a library that does nothing, as a dynamic linker told by LD_PRELOAD would, and sleeps. */
#include "lab.h"

enum { READ_EXECUTE = 5 /* PROT_READ | PROT_EXEC */, MAP_PRIVATE = 2, SIZE = 4096 };

void _start(void)
{
	static const long ages[2] = { 86400, 0 };
	long file, place;

	if (in_lab()) {
		file = call(OPEN_AT, HERE, (long)"/tmp/libnothing.so", 0, 0, 0);
		place = file < 0 ? -1 : call(MAP, 0, SIZE, READ_EXECUTE, MAP_PRIVATE, file);
		if (place < -4095 || place > 0) /* no error: on 32 bits addresses may be negative */
			call(NANOSLEEP, (long)ages, 0, 0, 0, 0);
	}
	call(EXIT, 1, 0, 0, 0, 0);
}
