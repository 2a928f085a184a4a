"""What every part of the agent uses and that knows none of them: errors, secrets, files, HTTP within bounds, loops."""
