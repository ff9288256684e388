"""What lies in a folder, in tables that loader processes share and the cache keeps."""
