"""The start of a search, new or resumed."""
