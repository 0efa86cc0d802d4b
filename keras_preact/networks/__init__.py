"""Networks from their description to a `keras.Model`: units, layout, costs, and the files of their weights."""
