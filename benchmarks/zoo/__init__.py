"""Budgets over torchvision's models: the figures torchvision publishes, as ordinary pytest files."""
