"""One script per claim about speed and memory; what they measure is in docs/benchmarks.md."""
