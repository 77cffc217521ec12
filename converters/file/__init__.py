"""What stands in a .tflite file, and which Keras layer it came from."""
