"""What is measured on each store: the library's workloads, their limits and peers, the goals."""
