"""The configuration: its sections, how a file of it is read, and the functions of the user's that it names."""
