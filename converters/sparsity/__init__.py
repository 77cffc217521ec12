"""The inside of `sparsify`: a .tflite file's tables, rewritten. Runs in child processes.

`sparsifying.job` follows a file: `packing` reads and writes the tables, `rewriting` makes the
weights sparse in the form that `encoding` finds smallest, `equality` runs the result beside the
original.
"""
