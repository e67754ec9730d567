"""The proof that the package works on a GPU: independent steps, one JSON, one page (`python -m benchmarks.gpu`)."""
