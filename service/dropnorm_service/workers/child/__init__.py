"""What runs in processes of their own: the fork server and, forked from it, workers and the planner.

The only rooms besides `training` that load torch; the server starts them by name and never imports them.
"""
