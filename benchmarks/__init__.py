"""Every stage in the study's way and in ours, measured in turns in one run: `python -m benchmarks [STAGE]`."""
