"""Access to the objects of a storage: a folder, or a file system of pyarrow or fsspec."""
