"""Image data: read, split by seed, and cut into augmented batches; NumPy only until a data set is opened."""
