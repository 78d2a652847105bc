"""Other releases of this repository, which tests take from git and run beside this one."""
