"""From the run of a form to a verdict: what is measured, what is a known defect, what the numbers add up to."""
