commands-objs-$(CONFIG_CMD_IDS)+= cmd_ids.o
commands-objs-$(CONFIG_CMD_IDS)+= ids_port.o
commands-objs-$(CONFIG_CMD_IDS)+= ids_core.o
