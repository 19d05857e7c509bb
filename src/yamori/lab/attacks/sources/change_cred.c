/* Makes a sleeping process root's by writing into its credentials, and undoes it when it goes. */
#include "guard.h"
#include <linux/cred.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/sched/task.h>

static int pid;
module_param(pid, int, 0400);

static struct task_struct *marker;
static kuid_t uid;

static void give(kuid_t value)
{
	struct cred *cred = (struct cred *)rcu_dereference_protected(marker->real_cred, 1);

	cred->uid = cred->euid = cred->suid = cred->fsuid = value;
}

static int __init start(void)
{
	struct pid *number;
	int error = lab_only();

	if (error)
		return error;
	number = find_get_pid(pid);
	marker = number ? get_pid_task(number, PIDTYPE_PID) : NULL;
	put_pid(number);
	if (!marker)
		return -ESRCH;
	uid = rcu_dereference_protected(marker->real_cred, 1)->uid;
	give(GLOBAL_ROOT_UID);
	return 0;
}

static void __exit stop(void)
{
	give(uid);
	put_task_struct(marker);
}

module_init(start);
module_exit(stop);
