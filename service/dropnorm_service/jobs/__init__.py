"""Jobs: their states, their journals, the queue, and what may be asked of them. Knows no library.

`service.JobService` is the way in; `ports` is what it needs; `errors` is how it says no.
"""
