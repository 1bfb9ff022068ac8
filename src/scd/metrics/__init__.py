"""Measures, each with its definition; pictures are uint8 unless it says otherwise."""
