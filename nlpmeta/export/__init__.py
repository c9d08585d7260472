"""An adapted model in the forms of other libraries: everything in one folder, the same probabilities to 1e-4."""
