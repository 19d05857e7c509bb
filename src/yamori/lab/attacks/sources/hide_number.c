/* Takes one sleeping process off the lists of its process id, and puts it back when it goes. */
#include "guard.h"
#include <linux/pid.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/sched/task.h>

static int pid;
module_param(pid, int, 0400);

static struct task_struct *marker;
static struct pid *number;

static int __init start(void)
{
	int type, error = lab_only();

	if (error)
		return error;
	number = find_get_pid(pid);
	marker = number ? get_pid_task(number, PIDTYPE_PID) : NULL;
	if (!marker) {
		put_pid(number);
		return -ESRCH;
	}
	for (type = PIDTYPE_PID; type <= PIDTYPE_TGID; type++)
		hlist_del_init_rcu(&marker->pid_links[type]);
	return 0;
}

static void __exit stop(void)
{
	int type;

	for (type = PIDTYPE_PID; type <= PIDTYPE_TGID; type++)
		hlist_add_head_rcu(&marker->pid_links[type], &number->tasks[type]);
	put_task_struct(marker);
	put_pid(number);
}

module_init(start);
module_exit(stop);
