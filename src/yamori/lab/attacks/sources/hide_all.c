/* Takes one sleeping process off the list of tasks, the family tree and the lists of its process id. */
#include "guard.h"
#include <linux/pid.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

static int pid;
module_param(pid, int, 0400);

static struct task_struct *marker, *parent;
static struct pid *number;

static int __init start(void)
{
	int type, error = lab_only();

	if (error)
		return error;
	number = find_get_pid(1);
	parent = number ? get_pid_task(number, PIDTYPE_PID) : NULL;
	put_pid(number);
	number = find_get_pid(pid);
	marker = number ? get_pid_task(number, PIDTYPE_PID) : NULL;
	if (!parent || !marker) {
		if (parent)
			put_task_struct(parent);
		put_pid(number);
		return -ESRCH;
	}
	list_del_rcu(&marker->tasks);
	list_del(&marker->sibling);
	/* The shell that started it ends, and would not find it among its children to give it to another parent. */
	rcu_assign_pointer(marker->real_parent, parent);
	marker->parent = parent;
	for (type = PIDTYPE_PID; type <= PIDTYPE_TGID; type++)
		hlist_del_init_rcu(&marker->pid_links[type]);
	return 0;
}

static void __exit stop(void)
{
	int type;

	for (type = PIDTYPE_PID; type <= PIDTYPE_TGID; type++)
		hlist_add_head_rcu(&marker->pid_links[type], &number->tasks[type]);
	list_add_tail(&marker->sibling, &parent->children);
	list_add_tail_rcu(&marker->tasks, &init_task.tasks);
	put_task_struct(marker);
	put_task_struct(parent);
	put_pid(number);
}

module_init(start);
module_exit(stop);
