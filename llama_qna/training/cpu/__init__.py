"""A training step of a Llama in few passes over memory, for CPUs. Begin at `layers.quicken`."""
