"""The command line: one module per verb; stdout is data, stderr is talk."""
