"""Timings against other libraries: contenders interleaved in one process, medians and ratios."""
