"""``kcompiler serve``: a page on this machine that explains pictures with one compiled bundle."""
