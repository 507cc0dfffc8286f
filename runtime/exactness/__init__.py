"""What "exact" means (docs/exactness.md): the comparison with full inference, and what the order of sums explains."""
