"""One file per hypervisor: find a VM, and say where on the host its RAM lies."""
