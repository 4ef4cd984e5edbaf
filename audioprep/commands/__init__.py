"""What the command line and recipes can do: one module a command, each with `Settings`, `run` and `plan`."""
