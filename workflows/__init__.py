"""The improvement loop: durable steps, training, evaluation, reports and the command line."""
