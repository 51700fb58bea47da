"""Fuzz targets, each beside the oracle that it is held against, and what runs them; see `benchmarks.fuzz`."""
