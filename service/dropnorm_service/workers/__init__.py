"""Where jobs run: processes forked from one that has torch loaded, and what the server says to them.

The modules here are the server's side and load no torch; `child` is the processes' side.
"""
