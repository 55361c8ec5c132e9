"""Measurements that print ratios from one run. Figures to quote stand in RESULTS.md."""
