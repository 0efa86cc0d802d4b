"""The paper's tables and figures: its experiments as rows, what was trained of them, and how signals pass."""
