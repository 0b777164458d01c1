"""Kernel survival: one mechanism a file."""
