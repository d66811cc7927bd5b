"""Measurements that take longer than a test: speed, and the recorded results."""
