"""One device's work: requests, the engine that batches them, the runner that answers them."""
