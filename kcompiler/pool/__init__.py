"""Workers that open a model once and take one task after the other: processes of this machine, or actors on a Ray cluster."""
