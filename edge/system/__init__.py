"""This machine, its console and its files."""
