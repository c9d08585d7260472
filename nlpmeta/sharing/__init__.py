"""What leaves this machine when a model is shared, and how a shared model is found again."""
