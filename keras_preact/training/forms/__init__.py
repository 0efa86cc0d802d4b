"""The forms in which a network is trained; its weights and files are the same in each."""
