"""What a step of training is made of: batches, processes, precision, optimizer, averaged weights."""
