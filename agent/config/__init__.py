"""From agent.toml to checked, frozen settings: parse.load() is the door."""
