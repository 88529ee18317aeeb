"""What an operator sees of a running service: metrics now, traces where they are asked for.

Nothing here is known to the rooms that it looks into. They tell plain functions what happened, or are read when
somebody asks.
"""
