"""When a reading was taken, in Unix time: clock.Clock is the door, backdating.Dating applies it to what waits."""
