"""Where points wait, in memory and on disk: buffer.Buffer is the door, and for other processes offline."""
