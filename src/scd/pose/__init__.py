"""Poses: the skeleton, its drawing, its files and the detectors; nothing is imported before it is asked for."""
