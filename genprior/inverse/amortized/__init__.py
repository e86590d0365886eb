"""Methods whose work was done in a training: one evaluation of a network restores an image."""
