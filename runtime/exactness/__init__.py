"""The definition of "exact" (docs/exactness.md): the comparison with full inference, and the noise of full inference itself."""
