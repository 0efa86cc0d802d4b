"""Networks against each other: how long they take and how much memory, each in a process of its own."""
