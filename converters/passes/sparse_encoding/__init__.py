"""Constants of a .tflite file in its sparse encoding."""
