"""Real servers, for tests and benchmarks: started as one process, gone with the process that started them."""
