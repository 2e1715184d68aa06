"""Published checkpoints by name: the table of those that can be read, and the download of their files."""
