"""Training on several devices and hosts: mesh, partition rules, transfers and processes."""
