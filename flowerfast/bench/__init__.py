"""How fast loaders, training steps and both together are: the one way to time in this project."""
