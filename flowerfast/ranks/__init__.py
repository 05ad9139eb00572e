"""Processes that train one model together: who is who, how they meet, what they tell each other."""
