"""Rewrites of a .tflite file, each run in a child process."""
