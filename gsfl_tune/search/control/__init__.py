"""Early ends of a search: signals, time limits and targets."""
