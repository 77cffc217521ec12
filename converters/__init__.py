"""From a Keras model to a .tflite file that is known to be right."""
