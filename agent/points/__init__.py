"""The data model: what a reading is called, typed and rounded to in a bucket, and line protocol from outside."""
