"""Inside the kernel: magics, cell hooks, rendering."""
