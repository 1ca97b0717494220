"""Goldens of the Qwen3 MoE layer in Python: the exporter, the portable generator, and the writer of candidates."""
