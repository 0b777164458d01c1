"""Executes a notebook in a kernel of its own and writes down, as one HTML file, what it did to memory."""
