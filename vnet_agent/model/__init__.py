"""The nouns of the house; imports nothing of the rest."""
