"""What operators and service managers see of a live run, and how they steer it."""
