"""What cells take: measured around each, told by `%%memkit`, `%memkit cells` and a badge, kept in the notebook file."""
