/* Takes itself off the list of modules, and does nothing else. */
#include "guard.h"
#include "hide.h"

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	hide();
	return 0;
}

static void __exit stop(void)
{
}

module_init(start);
module_exit(stop);
