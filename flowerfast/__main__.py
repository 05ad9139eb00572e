"""`python -m flowerfast`."""

from flowerfast.commands.cli import main

main()
