"""The book on paper and offline, made from the built site.

`python -m tools.paper pdf`, `epub` and `zip` write one file each to _build/paper. On paper nothing
moves: a picture that responds shows its first frame, and what a click opens on the site is open.
"""
