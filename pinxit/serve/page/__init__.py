"""The studio's page: one HTML file with its modules and styles."""
