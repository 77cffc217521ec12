"""The runtimes that compute a file: LiteRT on the CPU and on the GPU."""
