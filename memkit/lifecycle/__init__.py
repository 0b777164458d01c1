"""What is tracked, and how it is let go."""
