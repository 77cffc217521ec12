"""Make Keras 3 models small and fast on the device, and prove it."""
