"""Where a file is measured: a process on a device."""
