"""Files in models/ become loaded networks."""
