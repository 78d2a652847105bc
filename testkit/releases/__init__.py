"""Other releases of this repository, taken from git, and run beside this one."""
