"""What XNNPACK does with the ops of a file."""
