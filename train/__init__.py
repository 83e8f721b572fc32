"""Training: data, sampling, losses, schedule, the loop and its evaluation."""
