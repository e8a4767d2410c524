"""Chest ImaGenome v1.0.0: regions of the frontal films of MIMIC-CXR-JPG and their findings."""
