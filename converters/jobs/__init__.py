"""What runs in a child process, and the call that starts one."""
