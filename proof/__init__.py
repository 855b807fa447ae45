"""The tests that would convince a sceptic: `python -m proof`, or `make proof`."""
