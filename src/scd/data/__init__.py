"""Datasets: from what lies on a disk, or the procedural world, to `Sample` and `Batch`."""
