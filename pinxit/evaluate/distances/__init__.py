"""Distances between sets of pictures: FID, KID, CMMD, precision and recall, with their noise."""
