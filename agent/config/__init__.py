"""From agent.toml to checked, frozen settings: parse.load_settings() is the door."""
