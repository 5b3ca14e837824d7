"""What the suite tells its user: failures, tables, the machine, and results that programs read."""
