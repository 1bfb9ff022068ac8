"""Poses: skeleton, drawing, files, detectors; nothing is imported before it is asked for."""
