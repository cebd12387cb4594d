"""The claims: what each trains, how it is judged, what it costs."""
