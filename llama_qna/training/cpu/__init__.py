"""A training step of a Llama in few passes over memory, for CPUs. A sealed room: begin at `layers.quicken`."""
