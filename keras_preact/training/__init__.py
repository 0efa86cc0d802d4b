"""Training and measuring: recipes, devices, the folder of a run, the engine, fine-tuning and evaluation."""
