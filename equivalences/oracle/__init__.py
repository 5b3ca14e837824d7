"""The exact oracle: exact numbers, enclosures in float64, and what a specification says of a problem."""
