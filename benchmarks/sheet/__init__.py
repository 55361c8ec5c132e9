"""The article's sheet, rendered by the farm and by diffusers, side by side: `python -m benchmarks.sheet`."""
