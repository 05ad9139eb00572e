"""`python -m flowerfast`."""

from flowerfast.cli import main

main()
