/* What every module of the attack lab begins with: it does nothing outside of a lab guest. */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A fixture of Yamori's attack lab; refuses to start elsewhere");

/* Return 0 if the kernel's command line has the word that the lab puts there. */
static int lab_only(void)
{
	char line[1024] = "";
	char *rest = line, *word;
	loff_t position = 0;
	struct file *file = filp_open("/proc/cmdline", O_RDONLY, 0);
	ssize_t got;

	if (IS_ERR(file))
		return PTR_ERR(file);
	got = kernel_read(file, line, sizeof(line) - 1, &position);
	filp_close(file, NULL);
	if (got < 0)
		return got;
	while ((word = strsep(&rest, " \n")))
		if (!strcmp(word, "yamori.lab"))
			return 0;
	return -EPERM;
}
