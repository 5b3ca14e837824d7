"""The gate: the loop over identities, formats and problems, in one process or in several, and what it has finished."""
