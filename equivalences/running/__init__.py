"""Problems to tensors, forms to functions, and the one run of a function: forward, backward, plain or followed."""
