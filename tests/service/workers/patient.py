"""To be imported by a fork server: it gives what it forked all the time there is to end by itself, as on a crowded
machine a checkpoint may need it."""

import sys

sys.modules["__main__"]._LAST_MOMENT = 60.0  # type: ignore[attr-defined]
