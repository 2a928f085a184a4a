"""How the agent gets and keeps its token: registrar.Registrar with a center, static_token.StaticToken without."""
