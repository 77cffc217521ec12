"""What XNNPACK makes of a file."""
