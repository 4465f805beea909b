"""One step of a rank of a plan of any size, on one process and without memory: what it holds and
what it sends."""
