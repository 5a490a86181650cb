"""One training loop: order, optimiser, EMA, checkpoints, metrics. Knows no method; imports only data/."""
