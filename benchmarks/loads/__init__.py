"""The workloads W1 to W5, the same for the library and for what it is compared with.

Each is an async generator (see `benchmarks.worker`) that yields the answer of a `Meter` once;
`growing` has what is repeated with ever more of something.
"""
