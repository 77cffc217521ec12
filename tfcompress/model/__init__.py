"""Read, check and rebuild Keras models; nothing here makes a model smaller."""
