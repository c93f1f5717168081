"""The files of one run: the only room that imports h5py."""
