"""Kernels as their authors write them, right ones and wrong ones: what `check` is itself held to."""
