"""Both stores on one SQLite file, for laptops, demos and tests; and its write API."""
