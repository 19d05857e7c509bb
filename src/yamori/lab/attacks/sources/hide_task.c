/* Takes one sleeping process off the list of tasks, and puts it back when it goes. */
#include "guard.h"
#include <linux/pid.h>
#include <linux/rculist.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

static int pid;
module_param(pid, int, 0400);
static bool listed = true;
module_param(listed, bool, 0400);
MODULE_PARM_DESC(listed, "whether the list leads to the process");

static struct task_struct *marker;

static bool is_listed(void)
{
	struct task_struct *task;
	bool found = false;

	rcu_read_lock();
	for_each_process(task)
		found |= task == marker;
	rcu_read_unlock();
	return found;
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
	list_del_rcu(&marker->tasks);
	listed = is_listed();
	return 0;
}

static void __exit stop(void)
{
	list_add_tail_rcu(&marker->tasks, &init_task.tasks);
	put_task_struct(marker);
}

module_init(start);
module_exit(stop);
