/* Opens a packet socket for every protocol, with a filter that takes nothing, and sleeps. */
#include "lab.h"

enum { AF_PACKET = 17, SOCK_RAW = 3, ALL = 0x0300 /* htons(ETH_P_ALL) */, SOL_SOCKET = 1, SO_ATTACH_FILTER = 26 };

/* include/uapi/linux/filter.h */
struct instruction {
	unsigned short code;
	unsigned char jt, jf;
	unsigned int k;
};

struct program {
	unsigned short size;
	const struct instruction *code;
};

void _start(void)
{
	static const struct instruction nothing[] = { { 0x06 /* BPF_RET | BPF_K */, 0, 0, 0 } };
	static const long ages[2] = { 86400, 0 };
	struct program filter = { 1, nothing };
	long file;

	if (in_lab()) {
		file = call(SOCKET, AF_PACKET, SOCK_RAW, ALL, 0, 0);
		if (file >= 0 && !call(SET_SOCK_OPT, file, SOL_SOCKET, SO_ATTACH_FILTER, (long)&filter, sizeof(filter)))
			call(NANOSLEEP, (long)ages, 0, 0, 0, 0);
	}
	call(EXIT, 1, 0, 0, 0, 0);
}
