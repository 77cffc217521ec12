"""Trace a Keras model into a SavedModel that the TensorFlow converter can read."""
