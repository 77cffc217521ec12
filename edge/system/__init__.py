"""This machine: its console, its files, its processes and its LiteRT runtime."""
