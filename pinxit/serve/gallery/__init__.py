"""Keeps pictures in a folder, reads recipes from uploaded ones, and draws comparison grids."""
