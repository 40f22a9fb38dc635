"""Client uploads: files that hundreds of clients put into directories of their own, loaded into one table."""
