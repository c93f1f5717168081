"""The files of one run: the only room that imports h5py."""

import os

# HDF5 reads this when it is loaded, and then heeds no file's own choice: with TRUE nobody can look at what another
# process writes, and where flock is refused nothing can be opened. `mia_batch.locks` locks our files, whatever it says.
# FALSE stays, as a user's own code may need it.
if os.environ.get("HDF5_USE_FILE_LOCKING", "FALSE") != "FALSE":
    del os.environ["HDF5_USE_FILE_LOCKING"]
