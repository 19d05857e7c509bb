/*
 * The command `ids`: what runs in a guest, read from its memory by the probes of Yamori.
 */

/* Room is shorter than time. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif

/* Nobody unwinds these functions: their frames' layout is for a debugger. */
__asm__(".cfi_sections .debug_frame");

#include <vmm_error.h>
#include <vmm_stdio.h>
#include <vmm_manager.h>
#include <vmm_modules.h>
#include <vmm_cmdmgr.h>
#include <libs/stringlib.h>

#include "ids_core.h"
#include "ids_port.h"

#define MODULE_DESC "Command ids"
#define MODULE_AUTHOR "Yamori"
#define MODULE_LICENSE "MIT"
#define MODULE_IPRIORITY 0
#define MODULE_INIT cmd_ids_init
#define MODULE_EXIT cmd_ids_exit

struct cmd_ids_guests {
    struct vmm_guest *first;
    unsigned int count;
};

static void cmd_ids_usage(struct vmm_chardev *cdev)
{
    vmm_cprintf(cdev, "Usage:\n");
    vmm_cprintf(cdev, "   ids help\n");
    vmm_cprintf(cdev, "   ids info|banner|syscall|plist|check|bench [--raw] [<guest_name>]\n");
    vmm_cprintf(cdev, "Note:\n");
    vmm_cprintf(cdev, "   Without <guest_name> there has to be one guest only\n");
    vmm_cprintf(cdev, "   --raw is for programs: a letter and fields on each line\n");
}

static int cmd_ids_count(struct vmm_guest *guest, void *priv)
{
    struct cmd_ids_guests *guests = priv;

    if (!guests->count++)
        guests->first = guest;
    return VMM_OK;
}

/* The guest of a name, or the only one. */
static struct vmm_guest *cmd_ids_guest(const char *name)
{
    struct cmd_ids_guests guests = {NULL, 0};

    if (name)
        return vmm_manager_guest_find(name);
    vmm_manager_guest_iterate(cmd_ids_count, &guests);
    return guests.count == 1 ? guests.first : NULL;
}

static int cmd_ids_is_command(const char *word)
{
    return !strcmp(word, "info") || !strcmp(word, "banner") || !strcmp(word, "syscall") || !strcmp(word, "plist") ||
           !strcmp(word, "check") || !strcmp(word, "bench");
}

static int cmd_ids_exec(struct vmm_chardev *cdev, int argc, char **argv)
{
    const char *command = NULL, *name = NULL;
    struct vmm_guest *guest;
    int i, raw = 0;

    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--raw")) {
            raw = 1;
        } else if (!command) {
            command = argv[i];
        } else if (!name) {
            name = argv[i];
        } else {
            cmd_ids_usage(cdev);
            return VMM_EFAIL;
        }
    }
    if (!command || !cmd_ids_is_command(command)) {
        cmd_ids_usage(cdev);
        return command && !strcmp(command, "help") ? VMM_OK : VMM_EFAIL;
    }
    guest = cmd_ids_guest(name);
    if (!guest) {
        vmm_cprintf(cdev, "%s%s\n", raw ? "E " : "error: ", name ? "no such guest" : "say which guest");
        return VMM_ENOTAVAIL;
    }
    if (!strcmp(command, "info"))
        vmm_cprintf(cdev, "%s%s\n", raw ? "I " : "made for: ", ids_made_for);
    return strcmp(command, "bench") ? ids_port_run(cdev, guest, command, raw, 0)
                                    : ids_port_run(cdev, guest, "plist", raw, 1);
}

static struct vmm_cmd cmd_ids = {
    .name = "ids",
    .desc = "look into a guest from outside",
    .usage = cmd_ids_usage,
    .exec = cmd_ids_exec,
};

static int __init cmd_ids_init(void)
{
    return vmm_cmdmgr_register_cmd(&cmd_ids);
}

static void __exit cmd_ids_exit(void)
{
    vmm_cmdmgr_unregister_cmd(&cmd_ids);
}

VMM_DECLARE_MODULE(MODULE_DESC, MODULE_AUTHOR, MODULE_LICENSE, MODULE_IPRIORITY, MODULE_INIT, MODULE_EXIT);
