"""The view of training runs: their data, live while they train, and starting and stopping them."""
