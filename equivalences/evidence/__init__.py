"""Can the gate fail?  Faults planted, what other judges say of them, and the smallest error that is noticed."""
