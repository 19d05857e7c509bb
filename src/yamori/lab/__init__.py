"""Stock test devices: real kernels in QEMU, for the demo, the tests and people who try things."""
