"""The sub-commands of mia-batch, a file each."""
