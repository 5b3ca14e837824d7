"""Where a known defect was seen, if its entry says nothing else."""

SEEN = ("2.8.0", "2.11.0", "2.13.0", "2.14.1", "2.15.0")  # 2.11.0: on the GPU's machine
