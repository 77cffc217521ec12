"""What runs in a child process, and the function that starts one."""
