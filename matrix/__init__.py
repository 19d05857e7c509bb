"""The matrix: stock kernels of several Debian releases on many machines, each compared with what the guest itself says.

``python -m matrix``, or ``make matrix``. Development tooling: it is not part of the package.
"""
