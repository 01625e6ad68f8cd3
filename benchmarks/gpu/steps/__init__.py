"""One file a step: ``run(record, size)`` measures and asserts, see `benchmarks.gpu.record`."""
