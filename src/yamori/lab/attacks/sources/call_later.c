/* Has the kernel call it again and again, in one of four ways, counts that, and is on no list of modules. */
#include "guard.h"
#include "hide.h"
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/timer.h>
#include <linux/version.h>
#include <linux/workqueue.h>

enum { THREAD, WORK, TIMER, PRECISE };
enum { PERIOD_MS = 50 };

static int way;
module_param(way, int, 0400);
MODULE_PARM_DESC(way, "0: a thread, 1: delayed work, 2: a timer, 3: a high-resolution timer");
static unsigned long place;
module_param(place, ulong, 0400);
MODULE_PARM_DESC(place, "what is called");
static unsigned long count;
module_param(count, ulong, 0400);
MODULE_PARM_DESC(count, "how often");

static struct task_struct *thread;
static struct delayed_work work;
static struct timer_list timer;
static struct hrtimer precise;

static int run(void *nothing)
{
	while (!kthread_should_stop()) {
		count++;
		msleep_interruptible(PERIOD_MS);
	}
	return 0;
}

static void do_work(struct work_struct *nothing)
{
	count++;
	schedule_delayed_work(&work, msecs_to_jiffies(PERIOD_MS));
}

static void expire(struct timer_list *nothing)
{
	count++;
	mod_timer(&timer, jiffies + msecs_to_jiffies(PERIOD_MS));
}

static enum hrtimer_restart expire_precise(struct hrtimer *nothing)
{
	count++;
	hrtimer_forward_now(&precise, ms_to_ktime(PERIOD_MS));
	return HRTIMER_RESTART;
}

static int begin(void)
{
	switch (way) {
	case THREAD:
		place = (unsigned long)run;
		thread = kthread_run(run, NULL, "call_later");
		return PTR_ERR_OR_ZERO(thread);
	case WORK:
		place = (unsigned long)do_work;
		INIT_DELAYED_WORK(&work, do_work);
		schedule_delayed_work(&work, 1);
		return 0;
	case TIMER:
		place = (unsigned long)expire;
		timer_setup(&timer, expire, 0);
		mod_timer(&timer, jiffies + 1);
		return 0;
	case PRECISE:
		place = (unsigned long)expire_precise;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
		hrtimer_setup(&precise, expire_precise, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
#else
		hrtimer_init(&precise, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
		precise.function = expire_precise;
#endif
		hrtimer_start(&precise, ms_to_ktime(PERIOD_MS), HRTIMER_MODE_REL);
		return 0;
	}
	return -EINVAL;
}

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	error = begin();
	if (!error)
		hide();
	return error;
}

static void __exit stop(void)
{
	if (way == THREAD)
		kthread_stop(thread);
	else if (way == WORK)
		cancel_delayed_work_sync(&work);
	else if (way == PRECISE)
		hrtimer_cancel(&precise);
	else
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
		timer_delete_sync(&timer);
#else
		del_timer_sync(&timer);
#endif
}

module_init(start);
module_exit(stop);
