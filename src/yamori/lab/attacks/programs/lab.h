/*
 * What programs of the lab need: they have no C library, which cross compilers come without. The numbers of system
 * calls are those of each architecture's unistd.h.
 */
#if defined(__x86_64__)
enum { READ = 0, OPEN_AT = 257, SEND_FILE = 40, EXIT = 60, MEMFD_CREATE = 319, EXEC_AT = 322, SOCKET = 41,
       SET_SOCK_OPT = 54, NANOSLEEP = 35, MAP = 9, WRITE = 1, BPF = 321 };
#elif defined(__arm__)
enum { READ = 3, OPEN_AT = 322, SEND_FILE = 187, EXIT = 1, MEMFD_CREATE = 385, EXEC_AT = 387, SOCKET = 281,
       SET_SOCK_OPT = 294, NANOSLEEP = 162, MAP = 192 /* mmap2 */, WRITE = 4, BPF = 386 };
#else /* include/uapi/asm-generic/unistd.h: 64-bit Arm, RISC-V */
enum { READ = 63, OPEN_AT = 56, SEND_FILE = 71, EXIT = 93, MEMFD_CREATE = 279, EXEC_AT = 281, SOCKET = 198,
       SET_SOCK_OPT = 208, NANOSLEEP = 101, MAP = 222, WRITE = 64, BPF = 280 };
#endif

enum { HERE = -100 /* AT_FDCWD */ };

/* A sixth argument is 0. */
static long call(long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
	register long fourth asm("r10") = d, fifth asm("r8") = e, sixth asm("r9") = 0;
	long result;

	asm volatile("syscall"
		     : "=a"(result)
		     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
		     : "rcx", "r11", "memory");
	return result;
#elif defined(__arm__)
	register long nr asm("r7") = number, r0 asm("r0") = a, r1 asm("r1") = b, r2 asm("r2") = c, r3 asm("r3") = d,
		      r4 asm("r4") = e, r5 asm("r5") = 0;

	asm volatile("svc 0" : "+r"(r0) : "r"(nr), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
	return r0;
#elif defined(__aarch64__)
	register long nr asm("x8") = number, x0 asm("x0") = a, x1 asm("x1") = b, x2 asm("x2") = c, x3 asm("x3") = d,
		      x4 asm("x4") = e, x5 asm("x5") = 0;

	asm volatile("svc 0" : "+r"(x0) : "r"(nr), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#elif defined(__riscv)
	register long nr asm("a7") = number, a0 asm("a0") = a, a1 asm("a1") = b, a2 asm("a2") = c, a3 asm("a3") = d,
		      a4 asm("a4") = e, a5 asm("a5") = 0;

	asm volatile("ecall" : "+r"(a0) : "r"(nr), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
	return a0;
#endif
}

/* Say whether the kernel's command line has the word that the lab puts there. */
static int in_lab(void)
{
	static const char word[] = "yamori.lab";
	static char line[2048];
	long file = call(OPEN_AT, HERE, (long)"/proc/cmdline", 0, 0, 0);
	long size = call(READ, file, (long)line, sizeof(line) - 1, 0, 0);
	unsigned int same = 0;

	for (long at = 0; at <= size; at++) {
		char one = line[at];

		if (one == ' ' || one == '\n' || !one) {
			if (same == sizeof(word) - 1)
				return 1;
			same = 0;
		} else {
			same = same < sizeof(word) - 1 && one == word[same] ? same + 1 : sizeof(word);
		}
	}
	return 0;
}
