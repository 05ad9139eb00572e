"""What this machine has, lacks or has broken, a line each, with the command that mends it."""
