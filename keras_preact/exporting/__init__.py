"""Networks for production: simplified, and written in one of the formats, each of which is a room beside the others."""
