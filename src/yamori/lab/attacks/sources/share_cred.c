/* Gives a sleeping process the credentials of another, or of the kernel itself, and takes them back when it goes. */
#include "guard.h"
#include <linux/cred.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/sched/task.h>

static int pid;
module_param(pid, int, 0400);
static int from;
module_param(from, int, 0400);
MODULE_PARM_DESC(from, "whose credentials; 0 for the kernel's own, those of init_task");

static struct task_struct *marker;
static const struct cred *lent, *before;

/* Both pointers hold a reference; those to `before` are kept for the way back. */
static void give(const struct cred *cred)
{
	rcu_assign_pointer(marker->real_cred, cred);
	rcu_assign_pointer(marker->cred, cred);
}

static struct task_struct *task_of(int number)
{
	struct pid *found = find_get_pid(number);
	struct task_struct *task = found ? get_pid_task(found, PIDTYPE_PID) : NULL;

	put_pid(found);
	return task;
}

static int __init start(void)
{
	struct task_struct *donor;
	int error = lab_only();

	if (error)
		return error;
	donor = from ? task_of(from) : get_task_struct(&init_task);
	marker = task_of(pid);
	if (donor && marker) {
		lent = get_task_cred(donor);
		get_cred(lent);
		before = rcu_dereference_protected(marker->real_cred, 1);
		give(lent);
	}
	if (donor)
		put_task_struct(donor);
	if (!lent && marker)
		put_task_struct(marker);
	return lent ? 0 : -ESRCH;
}

static void __exit stop(void)
{
	give(before);
	put_cred(lent);
	put_cred(lent);
	put_task_struct(marker);
}

module_init(start);
module_exit(stop);
