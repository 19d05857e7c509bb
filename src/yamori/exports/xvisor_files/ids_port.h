/*
 * The port of Yamori's commands to Xvisor.
 */

#ifndef IDS_PORT_H
#define IDS_PORT_H

#include <vmm_chardev.h>
#include <vmm_manager.h>

/*
 * Run a command of the core on a guest; see ids_core.h. One runs at a time, whatever the number of consoles.
 *
 * cdev      Where its lines go.
 * guest     Which guest. It must not be destroyed meanwhile.
 * command   "info", "banner", "syscall" or "plist".
 * raw       Whether a program reads the lines.
 * bench     Whether the time is put out instead of the lines.
 *
 * Returns VMM_OK where the rows are whole, else VMM_EFAIL after one error line.
 */
int ids_port_run(struct vmm_chardev *cdev, struct vmm_guest *guest, const char *command, int raw,
                 int bench);

#endif
