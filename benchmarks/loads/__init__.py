"""The workloads W1 to W5, the same for the library and for what it is compared with.

Each is an async generator (see `benchmarks.worker`) that yields `{"value": ...}` once: messages
a second, for W2 microseconds.
"""
