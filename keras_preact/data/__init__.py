"""From image files and arrays to batches: preprocessing, augmentation, and the data sets that are trained on."""
