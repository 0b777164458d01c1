"""Executes a notebook as on a machine with less memory, and finds the smallest one in which it still completes."""
