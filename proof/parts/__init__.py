"""One module for each way to try to break the promises."""
