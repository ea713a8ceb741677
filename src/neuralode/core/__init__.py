"""The data of a solve: problem, field, layout, clocks, norms, record, outputs and solution."""
