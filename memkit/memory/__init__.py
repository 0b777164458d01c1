"""What the machine says about memory, and giving memory back to it."""
