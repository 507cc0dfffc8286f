"""What stages share: nodes to emit, values and batches to ask about, quantised values."""
