"""The command line: what it takes, what people see, what scripts read."""
