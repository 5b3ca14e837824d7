"""What PyTorch gets wrong: tables, each beside what holds it to account."""
