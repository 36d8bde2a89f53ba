"""Authorization driver `policy`: rules in a file."""
