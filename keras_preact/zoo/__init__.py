"""Networks by name with their weights: the index, the Hub, other zoos, and the builders."""
