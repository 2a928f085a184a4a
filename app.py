"""For `flask run`, which looks for a module of this name where it is started and then where packages are installed.

The same as `flask --app center run`. Its settings: center.toml, or the tutorial's config.ini, in this folder.
"""

from center import create_app

__all__ = ["create_app"]
