"""Measures afk.messaging: `python -m benchmarks [PART...] [--quick]`."""
