"""Proofs and measurements of the whole service from outside; `benchmarks/README.md` says which there are."""
