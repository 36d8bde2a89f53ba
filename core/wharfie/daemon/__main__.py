"""`python -m wharfie.daemon`: the same as `wharfied`."""

from __future__ import annotations

from wharfie.daemon import main

main()
