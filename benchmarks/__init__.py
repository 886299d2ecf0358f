"""What afterward costs, as ratios within one run: `python -m benchmarks --help`."""
