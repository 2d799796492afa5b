"""Benchmarks: interleaved rounds in one process, medians, opponents at their best settings."""
