"""Many devices' work. The only place that knows Ray."""
