"""Contact sheets: photos and what training makes of them, with the numbers of their plans."""
