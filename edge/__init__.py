"""Run .tflite files, measure them, and report."""
